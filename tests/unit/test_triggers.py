"""common/domain/triggers.py: what a trigger is for, and what tells events apart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.domain.keys import RateLimit
from common.domain.triggers import COMMAND_REQUESTED, STALE, Channel, Inbound, Trigger

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ONE, TWO = UUID(int=1), UUID(int=2)


def inbound(channel: Channel = Channel.HTTP, data: Any = None, **attributes: str) -> Inbound:
    plain = {"id": "1", "source": "/ci", "type": "t"}
    return Inbound(channel, plain | attributes, data, b"{}")


def trigger(command: dict[str, Any]) -> Trigger:
    fits = {"prefix": {"source": "/"}}
    http = frozenset({"http"})
    return Trigger(ONE, "x", ONE, fits, command, http, RateLimit(1, 1), NOW, NOW)


def test_a_template_is_for_what_its_filter_fits() -> None:
    """Where it runs and what is in the command itself."""
    made = trigger({"project": "demo", "kind": "shell", "script": "true"})
    assert (made.projects, made.kinds) == ({"demo"}, {"shell"})
    assert made.is_for(inbound())
    assert not made.is_for(inbound(source="x"))


@pytest.mark.parametrize(
    ("data", "fits"),
    [
        ({"project": "demo", "kind": "git"}, True),
        ({"project": "demo", "kind": "shell"}, False),
        ({"project": "other", "kind": "git"}, False),
        ({"project": ["demo"], "kind": "git"}, False),
        ({"project": {"a": 1}, "kind": {}}, False),
        ({}, False),
        (None, False),
        ("demo", False),
        ([], False),
    ],
)
def test_a_command_from_data_is_one_of_those_it_may_be(data: Any, fits: bool) -> None:
    """Project and kind as the trigger lists them; whatever else the data is."""
    made = trigger({"from": "data", "projects": ["demo", "site"], "kinds": ["git"]})
    assert made.projects == {"demo", "site"}
    assert made.is_for(inbound(data=data)) is fits


@pytest.mark.parametrize(
    ("time", "stale"),
    [
        ((NOW - STALE - timedelta(seconds=1)).isoformat(), True),
        ((NOW - STALE + timedelta(seconds=1)).isoformat(), False),
        ("2020-01-01T00:00:00Z", True),
        ("2020-01-01T00:00:00+05:00", True),
        ("2020-01-01T00:00:00", False),
        ("yesterday", False),
        ("", False),
        ("2999-01-01T00:00:00Z", False),
    ],
)
def test_an_event_is_stale_by_its_own_time(time: str, stale: bool) -> None:
    """One without a time that can be read is not."""
    assert inbound(time=time).is_stale(NOW) is stale
    assert not inbound().is_stale(NOW)


@pytest.mark.parametrize(
    ("source", "ours"),
    [("/rdev", True), ("/rdev/x", True), ("/rdevx", False), ("/x/rdev", False), ("rdev", False)],
)
def test_an_event_of_rdev_is_known_by_its_source(source: str, ours: bool) -> None:
    """Whoever sent it."""
    assert inbound(source=source).is_ours is ours


def test_a_request_names_its_project() -> None:
    """Only a request does, and only by a text."""
    assert inbound(type=COMMAND_REQUESTED, data={"project": "demo"}).named_project == "demo"
    assert inbound(type=COMMAND_REQUESTED, data={"project": 7}).named_project is None
    assert inbound(type=COMMAND_REQUESTED).named_project is None
    assert inbound(data={"project": "demo"}).named_project is None


@given(st.text(), st.text(), st.text(), st.text())
def test_events_are_told_apart_by_source_and_id(a: str, b: str, c: str, d: str) -> None:
    """Exactly when either differs, however the two run together; and per trigger."""
    one, two = inbound(source=a, id=b), inbound(source=c, id=d)
    assert (one.seen_as(ONE) == two.seen_as(ONE)) is ((a, b) == (c, d))
    assert one.seen_as(ONE) != one.seen_as(TWO)


def test_a_delivery_of_github_is_told_apart_by_what_is_signed() -> None:
    """Its id is in a header that anybody may write anew."""
    first = inbound(Channel.GITHUB, id="1")
    assert first.seen_as(ONE) == inbound(Channel.GITHUB, id="2").seen_as(ONE)
    other = Inbound(Channel.GITHUB, first.attributes, None, b"[]")
    assert first.seen_as(ONE) != other.seen_as(ONE)
