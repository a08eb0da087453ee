"""common/services/manage_triggers.py: whose triggers they are, and what a dry run says."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from common.domain import identifiers
from common.domain.errors import (
    Forbidden,
    InvalidField,
    NotFound,
    PreconditionFailed,
    PreconditionRequired,
    Unavailable,
)
from common.domain.keys import Caller, RateLimit
from common.domain.triggers import Channel, Inbound, Trigger
from common.entrypoints.models.commands import new_command
from common.ports.commands import Idempotency
from tests.unit.desk import FROM_DATA, ORIGIN, SCRIPT, Desk

ANY = frozenset({"*"})


@pytest.fixture
def desk() -> Desk:
    return Desk()


def wanted(desk: Desk, command: dict[str, Any] = SCRIPT, **fields: Any) -> Trigger:
    plain: dict[str, Any] = {"accept": frozenset({"http"}), "filter": {"exact": {"type": "t"}}}
    return Trigger(
        id=identifiers.new_id(), name="t", key_id=UUID(int=0), command=command,
        rate_limit=RateLimit(1, 1), created_at=desk.now, updated_at=desk.now, **plain | fields,
    )  # fmt: skip


def made(desk: Desk, caller: Caller | None = None, **fields: Any) -> str:
    created, _ = desk.manage.create(wanted(desk, **fields), {}, caller or desk.owner, ORIGIN, None)
    return identifiers.show("trg", created.trigger.id)


def test_a_secret_is_shown_once_and_stored_sealed(desk: Desk) -> None:
    """A repetition of the creation has none; parts of the command are sealed too."""
    key = Idempotency("r", "k", b"1")
    parts = {"env": {"A": "s3cret"}}
    created, secret = desk.manage.create(wanted(desk), parts, desk.owner, ORIGIN, key)
    _, again = desk.manage.create(wanted(desk), parts, desk.owner, ORIGIN, key)
    assert secret is not None
    assert (len(secret), again) == (64, None)
    assert desk.triggers.secrets(created.trigger.id) == [b"sealed:" + secret.encode()]
    assert created.trigger.sealed_parts == b'sealed:{"env": {"A": "s3cret"}}'
    assert "s3cret" not in repr(created)


@pytest.mark.parametrize(
    ("scopes", "fields", "error"),
    [
        (("triggers:write", "commands:write:git"), {}, Forbidden),
        (("triggers:write", "commands:write:shell"), {"command": FROM_DATA}, Forbidden),
        (("triggers:write", "commands:write"), {"accept": frozenset({"broker"})}, Forbidden),
        (
            ("triggers:write", "commands:write", "triggers:broker"),
            {"accept": frozenset({"broker"}), "command": FROM_DATA},
            InvalidField,
        ),
    ],
)
def test_nobody_makes_one_that_may_do_more_than_they(
    desk: Desk, scopes: tuple[str, ...], fields: dict[str, Any], error: type[Exception]
) -> None:
    """Kinds, and the broker: only with its scope, and only into one project."""
    with pytest.raises(error):
        made(desk, desk.key(*scopes), **fields)
    assert desk.state.triggers == {}


def test_a_trigger_of_other_projects_is_not_there(desk: Desk) -> None:
    """Neither to make, nor to see, nor in part."""
    mine = desk.key("triggers:write", "commands:write", projects=frozenset({"demo"}))
    with pytest.raises(NotFound):
        made(desk, mine, command=SCRIPT | {"project": "other"})
    foreign = [made(desk, command=SCRIPT | {"project": "other"}), made(desk, command=FROM_DATA)]
    own = made(desk, mine)
    for name in (*foreign, "trg_" + "0" * 32, "nonsense"):
        for ask in (
            lambda n: desk.manage.one(n, mine),
            lambda n: desk.manage.delete(n, ANY, mine, ORIGIN),
            lambda n: desk.manage.update(n, ANY, {"name": "x"}, {}, mine, ORIGIN),
            lambda n: desk.manage.rotate(n, 0, mine, ORIGIN, None),
            lambda n: desk.manage.matches(n, None, None, 5, mine),
        ):
            with pytest.raises(NotFound, match="there is no"):
                ask(name)
    assert [t.id for t in desk.manage.many(None, 2, mine)] == [identifiers.parse("trg", own)]
    assert len(desk.manage.many(None, 2, desk.owner)) == 2


def test_who_changes_what_it_does_becomes_its_owner(desk: Desk) -> None:
    """So nobody borrows the rights of another key by writing into its trigger."""
    name = made(desk)
    other = desk.key("triggers:write", "commands:write:shell")
    renamed = desk.manage.update(name, ANY, {"name": "n", "enabled": False}, {}, other, ORIGIN)
    assert (renamed.key_id, renamed.name, renamed.enabled) == (desk.owner.key_id, "n", False)
    changed = desk.manage.update(name, ANY, {"command": SCRIPT}, {}, other, ORIGIN)
    assert changed.key_id == other.key_id
    for field, value in (
        ("filter", {"exact": {"type": "u"}}), ("accept", ["github"]),
        ("rate_limit", {"limit": 9, "window_s": 9}),
    ):  # fmt: skip
        mine = desk.key("triggers:write", "commands:write:shell")
        changes = {field: value}
        assert desk.manage.update(name, ANY, changes, {}, mine, ORIGIN).key_id == mine.key_id


def test_a_change_may_do_no_more_than_its_maker(desk: Desk) -> None:
    """Also when only a part of it is changed."""
    git_only = desk.key("triggers:write", "commands:write:git")
    name = made(desk)
    before = desk.triggers.get(identifiers.parse("trg", name))
    for changes in ({"filter": {"exact": {"type": "u"}}}, {"accept": ["broker"]}):
        with pytest.raises(Forbidden):
            desk.manage.update(name, ANY, changes, {}, git_only, ORIGIN)
    assert desk.triggers.get(identifiers.parse("trg", name)) == before


def test_a_change_says_what_it_changes(desk: Desk) -> None:
    """The version that was read, or any; else nothing happens."""
    name = made(desk)
    with pytest.raises(PreconditionRequired):
        desk.manage.update(name, None, {"name": "x"}, {}, desk.owner, ORIGIN)
    with pytest.raises(PreconditionFailed):
        desk.manage.update(name, frozenset({"7"}), {"name": "x"}, {}, desk.owner, ORIGIN)
    first = frozenset({"1"})
    assert desk.manage.update(name, first, {"name": "x"}, {}, desk.owner, ORIGIN).version == 2
    with pytest.raises(PreconditionFailed):
        desk.manage.delete(name, first, desk.owner, ORIGIN)
    with pytest.raises(PreconditionRequired):
        desk.manage.delete(name, None, desk.owner, ORIGIN)
    assert desk.manage.update(name, ANY, {}, {}, desk.owner, ORIGIN).version == 2
    desk.manage.delete(name, ANY, desk.owner, ORIGIN)
    assert desk.state.triggers == {}


@pytest.mark.parametrize("status", ["stale", "unknown"])
def test_a_change_that_lost_a_race_is_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    """Between reading and writing somebody else was there."""
    name = made(desk)
    monkeypatch.setattr(desk.triggers, "update", lambda *_: status)
    monkeypatch.setattr(desk.triggers, "rotate", lambda *_: None)
    error = PreconditionFailed if status == "stale" else NotFound
    with pytest.raises(error):
        desk.manage.update(name, ANY, {"name": "x"}, {}, desk.owner, ORIGIN)
    with pytest.raises(NotFound):
        desk.manage.rotate(name, 0, desk.owner, ORIGIN, None)


# -- dry runs --------------------------------------------------------------------------------------


def dry(desk: Desk, name: str, channel: str = "http", data: Any = None, **attributes: str) -> Any:
    plain = {"id": "1", "source": "/ci", "type": "t"} | attributes
    event = Inbound(Channel(channel), plain, {"a": "x"} if data is None else data, b"")
    return desk.manage.dry_run(name, event, new_command, desk.owner)


def test_a_dry_run_shows_the_command_and_runs_nothing(desk: Desk) -> None:
    """Nothing is stored, nothing is counted, nothing is seen."""
    name = made(desk)
    before = len(desk.state.audit)
    done = dry(desk, name)
    assert done.matches
    assert done.command.spec["script"] == "echo 'x'"
    assert (desk.made, desk.dead, desk.state.seen) == ([], [], {})
    assert len(desk.state.audit) == before


@pytest.mark.parametrize(
    ("changes", "event", "reason"),
    [
        ({}, {"type": "other"}, "no_match"),
        ({}, {"source": "/rdev"}, "loop"),
        ({"enabled": False}, {}, "trigger_off"),
        ({}, {"channel": "github"}, "not_accepted"),
        ({}, {"data": {"b": 1}}, "value_missing"),
    ],
)
def test_a_dry_run_says_why_there_is_no_command(
    desk: Desk, changes: dict[str, Any], event: dict[str, Any], reason: str
) -> None:
    """In the word that the log would have."""
    name = made(desk)
    desk.manage.update(name, ANY, changes, {}, desk.owner, ORIGIN)
    done = dry(desk, name, **event)
    assert (done.command, done.reason) == (None, reason)
    assert done.detail


def test_a_dry_run_asks_for_the_rights_of_now(desk: Desk) -> None:
    """The owner's; trouble of ours is no answer about them."""
    name = made(desk)
    desk.keys.revoke(desk.owner.key_id, {}, desk.owner, ORIGIN)
    assert dry(desk, name).reason == "key_revoked"

    def away(_: object) -> Any:
        raise Unavailable("the database does not answer")

    desk.triggers.owner = away  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        dry(desk, name)
