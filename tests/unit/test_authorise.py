"""common/services/authorise.py: who is asking, and what a refusal says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from common.domain import keys
from common.domain.errors import Forbidden, RateLimited, RdevError, Unauthorized
from common.domain.keys import Caller, RateLimit
from common.ports.commands import Origin
from common.ports.keys import Grant
from common.services.authorise import Authorise, acceptable
from tests.unit.fakes import KEY

ORIGIN = Origin("req_1", "10.0.0.1", "127.0.0.1")
CALLER = Caller(KEY, "ci", frozenset(), None, rate_limit=RateLimit(100, 60))


class Store:
    def __init__(self, grant: Grant) -> None:
        self.grant = grant
        self.asked: list[tuple[bytes, list[str], str | None, bool]] = []

    def authorise(
        self, key_hash: bytes, scopes: Sequence[str], ip: str | None, *, counts: bool
    ) -> Grant:
        self.asked.append((key_hash, list(scopes), ip, counts))
        return self.grant


def ask(status: str, caller: Caller | None = CALLER, **more: Any) -> tuple[Store, Authorise]:
    store = Store(Grant(status, caller, **more))
    return store, Authorise(store)  # type: ignore[arg-type]


def test_a_good_key_is_asked_for_by_hash_address_and_scopes() -> None:
    """One call, and its grant is the answer."""
    store, authorise = ask("ok", remaining=5)
    key = keys.new_key()
    assert authorise(key, ["commands:read"], ORIGIN, counts=False) is store.grant
    assert store.asked == [(keys.hash_of(key), ["commands:read"], "10.0.0.1", False)]


@pytest.mark.parametrize(
    "token",
    ["", "rdev_", "x" * 10_000, "rdev_é", keys.new_key()[:-1] + "!"],
    ids=["empty", "prefix", "long", "not ASCII", "checksum"],
)
def test_a_malformed_key_never_asks_the_database(token: str) -> None:
    """The checksum is wrong, so there is nothing to look for."""
    store, authorise = ask("ok")
    with pytest.raises(Unauthorized):
        authorise(token, [], ORIGIN)
    assert store.asked == []


@pytest.mark.parametrize("status", ["unknown", "revoked", "expired", "anything else"])
def test_unknown_revoked_and_expired_read_the_same(status: str) -> None:
    """A refusal teaches nothing about the key, and neither does a malformed one."""
    with pytest.raises(Unauthorized) as refused:
        ask(status)[1](keys.new_key(), [], ORIGIN)
    with pytest.raises(Unauthorized) as malformed:
        ask("ok")[1]("nonsense", [], ORIGIN)
    assert refused.value.detail == malformed.value.detail


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [("ip", Forbidden, "ip_not_allowed"), ("scope", Forbidden, "forbidden")],
)
def test_a_valid_key_that_may_not_is_forbidden(
    status: str, error: type[RdevError], code: str
) -> None:
    """Address and scope have their own codes."""
    with pytest.raises(error) as caught:
        ask(status)[1](keys.new_key(), ["keys:admin"], ORIGIN)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("reset", "seconds"), [(None, 1), (0.0, 1), (0.2, 1), (7.4, 8), (59.9, 60)]
)
def test_a_full_window_says_when_it_opens(reset: float | None, seconds: int) -> None:
    """Whole seconds, never 0, never before the window opens."""
    with pytest.raises(RateLimited) as caught:
        ask("limited", reset_s=reset)[1](keys.new_key(), [], ORIGIN)
    assert (caught.value.limit, caught.value.window_s) == (100, 60)
    assert seconds <= caught.value.retry_after <= seconds + 1


def test_a_limit_that_is_none_is_a_bug() -> None:
    """Being limited without a limit cannot be."""
    with pytest.raises(AssertionError):
        ask("limited", caller=None)[1](keys.new_key(), [], ORIGIN)


@pytest.mark.parametrize(
    ("wanted", "enough"),
    [
        (["commands:read"], ["commands:read"]),
        (["commands:write:git"], ["commands:write", "commands:write:git"]),
        (
            ["commands:write:git", "commands:write:shell"],
            ["commands:write", "commands:write:git", "commands:write:shell"],
        ),
        ([], []),
    ],
)
def test_a_wider_scope_is_enough(wanted: list[str], enough: list[str]) -> None:
    """The database is asked for any of the scopes wanted and those above them."""
    assert acceptable(wanted) == enough
