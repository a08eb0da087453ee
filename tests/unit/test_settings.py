"""common/settings.py: every variable, read once."""

from __future__ import annotations

from dataclasses import fields
from ipaddress import ip_network
from typing import Any

import pytest

from common.settings import Settings, read


def test_without_variables_there_are_defaults() -> None:
    """Nothing has to be set to start."""
    assert read({}) == Settings()


def test_every_setting_is_described_and_its_variable_is_its_own() -> None:
    """The docs table is generated from these."""
    names = [f.metadata["variable"] for f in fields(Settings)]
    assert len(set(names)) == len(names)
    assert all(f.metadata["what"] for f in fields(Settings))


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("RDEV_PG_POOL", "3", "pool_open", 3),
        ("RDEV_BROKER_URL", "http://b", "broker_url", "http://b"),
        ("RDEV_SECRET_KEYS", " a, b ,,", "secret_keys", ("a", "b")),
        (
            "RDEV_TRUSTED_PROXIES",
            "10.0.0.0/8, ::1/128",
            "trusted_proxies",
            (ip_network("10.0.0.0/8"), ip_network("::1/128")),
        ),
        ("RDEV_EDGE_OVERWRITES", "1", "edge_overwrites", True),
        ("RDEV_EDGE_OVERWRITES", "False", "edge_overwrites", False),
        ("RDEV_PG_POOL", "", "pool_open", 25),
    ],
)
def test_a_variable_becomes_a_setting(variable: str, text: str, name: str, value: Any) -> None:
    """Numbers, lists, networks and flags; empty is not set."""
    assert getattr(read({variable: text}), name) == value


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("RDEV_PG_POOL", "many"),
        ("RDEV_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("RDEV_TRUSTED_PROXIES", "everybody"),
        ("RDEV_EDGE_OVERWRITES", "maybe"),
    ],
)
def test_a_value_that_cannot_be_read_ends_the_process(variable: str, text: str) -> None:
    """And the message says which one."""
    with pytest.raises(SystemExit, match=variable):
        read({variable: text})


def test_listening_goes_to_the_database_unless_told_otherwise() -> None:
    """A pooler cannot LISTEN."""
    assert read({"RDEV_DATABASE_URL": "a"}).listen == "a"
    both = {"RDEV_DATABASE_URL": "a", "RDEV_DATABASE_LISTEN_URL": "b"}
    assert read(both).listen == "b"


def test_secrets_are_known_for_what_they_are() -> None:
    """Keys, and passwords of addresses as they are written and as they are meant."""
    given = read(
        {
            "RDEV_SECRET_KEYS": "one,two",
            "RDEV_DATABASE_URL": "postgresql://app:p%40ss@db:5432/rdev",
            "RDEV_DATABASE_LISTEN_URL": "postgresql://app@/rdev?host=/run",
        }
    )
    assert set(given.secrets) == {"one", "two", "p%40ss", "p@ss", ""}
