"""common/services/receive.py: events at triggers, over the stores in memory."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest

from common.adapters.memory.projects import MemoryProjectStore
from common.adapters.memory.upkeep import MemoryUpkeep
from common.domain import identifiers
from common.domain.errors import InvalidField, NotFound, Unavailable
from common.domain.identifiers import new_id
from common.domain.keys import RateLimit
from common.domain.project import FoundProject
from common.domain.triggers import COMMAND_REQUESTED, Channel, Inbound
from common.ports.keys import NewText
from common.ports.upkeep import Retention
from common.services.receive import MAX_MATCHES, Received
from tests.unit.desk import FROM_DATA, ORIGIN, SCRIPT, Desk


@pytest.fixture
def desk() -> Desk:
    return Desk()


_numbers = itertools.count()


def event(channel: Channel = Channel.HTTP, data: Any = None, **attributes: str) -> Inbound:
    plain = {"id": f"e{next(_numbers)}", "source": "/ci", "type": "t"}
    return Inbound(channel, plain | attributes, {"a": "x"} if data is None else data, b'{"a":"x"}')


def reason(received: Received) -> str | None:
    [result] = received.results
    return result.match.reason


def test_an_event_makes_a_command_of_the_owners(desk: Desk) -> None:
    """With its values, in the owner's name, and a label that says where it comes from."""
    made = desk.trigger()
    traced = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    done = desk.take(event(traceparent=traced))
    assert done.outcome == "submitted"
    [command] = desk.made
    assert command.spec["script"] == "echo 'x'"
    assert command.key_id == desk.owner.key_id
    assert command.labels == {"rdev/trigger": identifiers.show("trg", made.id)}
    assert command.traceparent == traced
    assert done.results[0].match.command_id == command.id
    assert desk.dead == []


def test_the_same_event_again_makes_nothing(desk: Desk) -> None:
    """However often, and in whatever order others come between."""
    desk.trigger()
    one, two = event(), event()
    for outcome, each in (("submitted", one), ("submitted", two), ("duplicate", one)) * 2:
        assert desk.take(each).outcome in (outcome, "duplicate")
    assert len(desk.made) == 2


def test_each_trigger_takes_an_event_once(desk: Desk) -> None:
    """A trigger that comes later has not seen it yet."""
    desk.trigger()
    first = event()
    desk.take(first)
    desk.trigger()
    done = desk.take(first)
    assert [r.duplicate for r in done.results] == [True, False]
    assert done.outcome == "submitted"
    assert len(desk.made) == 2


def test_an_event_that_nothing_is_for_is_a_dead_letter(desk: Desk) -> None:
    """Once, however often it comes."""
    desk.trigger(filter={"exact": {"type": "other"}})
    desk.trigger(enabled=False)
    desk.trigger(accept=frozenset({"github"}))
    lost = event()
    assert desk.take(lost).outcome == "no_trigger"
    desk.take(lost)
    [letter] = desk.dead
    assert (letter.reason, letter.event_id, letter.channel) == ("no_trigger", lost.id, "http")
    assert letter.data == lost.body


def test_an_old_event_is_stale(desk: Desk) -> None:
    """Nobody knows any more whether it was seen."""
    desk.trigger()
    old = event(time=(desk.now - timedelta(days=31)).isoformat())
    assert desk.take(old).outcome == "stale"
    assert desk.made == []
    assert desk.dead[0].reason == "stale"
    assert desk.take(old, again=True).outcome == "submitted"


def test_a_repetition_is_known_for_as_long_as_it_is_not_stale(desk: Desk) -> None:
    """Through 30 days of retention, at every day of them."""
    desk.trigger()
    at = event(time=desk.now.isoformat())
    desk.take(at)
    for _ in range(40):
        desk.now += timedelta(days=1)
        MemoryUpkeep(desk.state).drop_expired(Retention(commands_days=1000))
        assert desk.take(at).outcome in ("duplicate", "stale")
    assert len(desk.made) == 1


@pytest.mark.parametrize("again", [False, True])
def test_rdevs_own_events_start_nothing(desk: Desk, again: bool) -> None:
    """A command whose end started a command would never end; nor does replaying it."""
    desk.trigger()
    own = event(source="/rdev", type="ai.orchard9.rdev.command.succeeded.v1")
    assert desk.take(own, again=again).outcome == "loop"
    assert desk.made == []
    assert desk.dead[0].reason == "loop"


# -- rights ----------------------------------------------------------------------------------------


def change(desk: Desk, **fields: Any) -> None:
    desk.keys.update(desk.owner.key_id, fields, desk.owner, ORIGIN)


@pytest.mark.parametrize(
    ("narrow", "why"),
    [
        ({"scopes": ["commands:write:git", "triggers:write"]}, "forbidden"),
        ({"scopes": ["commands:write"]}, "forbidden"),
        ({"projects": ["other"]}, "not_found"),
        ({"expires_at": "2026-01-02T00:00:00+00:00"}, "key_expired"),
    ],
)
def test_a_trigger_may_do_what_its_owner_may_now(
    desk: Desk, narrow: dict[str, Any], why: str
) -> None:
    """A key that was narrowed narrows what it made; the refusal stands in the log."""
    desk.trigger()
    change(desk, **narrow)
    done = desk.take(event())
    assert (done.outcome, reason(done)) == ("refused", why)
    assert desk.made == []
    assert desk.dead[0].reason == "refused"
    assert why in desk.dead[0].detail


def test_a_revoked_owner_is_refused(desk: Desk) -> None:
    """From the next event on."""
    desk.trigger()
    desk.keys.revoke(desk.owner.key_id, {}, desk.owner, ORIGIN)
    assert reason(desk.take(event())) == "key_revoked"


def test_events_of_the_broker_need_the_scope_for_it(desk: Desk) -> None:
    """Anybody in the cluster sends them, so the owner must still be allowed to let them in."""
    desk.trigger()
    change(desk, scopes=["commands:write", "triggers:write"])
    assert reason(desk.take(event(Channel.BROKER))) == "forbidden"
    assert desk.take(event()).outcome == "submitted"


def test_an_owner_that_was_rotated_goes_on(desk: Desk) -> None:
    """Its new key is who the command belongs to."""
    desk.trigger()
    new = NewText(new_id(), "p", b"h", desk.now)
    desk.keys.rotate(desk.owner.key_id, new, 0, desk.owner, ORIGIN, None)
    desk.now += timedelta(seconds=1)
    assert desk.take(event()).outcome == "submitted"
    assert desk.made[0].key_id == new.id


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "data", "why"),
    [
        (SCRIPT, {"b": 1}, "value_missing"),
        (SCRIPT, {"a": []}, "value_not_text"),
        ({**SCRIPT, "project": "gone"}, {"a": 1}, "not_found"),
        ({"project": "demo", "kind": "git", "args": ["fetch", "{{ data.a }}"]},
         {"a": "ext::sh -c x"}, "invalid_field"),
        ({"project": "demo", "kind": "git", "args": ["show", "{{ data.a }}"]},
         {"a": "--output=x"}, "value_is_option"),
        (FROM_DATA, {"project": "demo", "kind": "shell"}, "invalid_field"),
        (FROM_DATA, {"project": "demo", "kind": "shell", "script": "a", "lease_token": 1},
         "invalid_field"),
        (FROM_DATA, {"project": "demo", "kind": "shell", "script": "a", "env": {"PATH": "x"}},
         "invalid_field"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_and_recorded(
    desk: Desk, command: dict[str, Any], data: Any, why: str
) -> None:
    """In the log and as a dead letter; nothing is run in its place."""
    desk.trigger(command)
    bad = event(data=data)
    done = desk.take(bad)
    assert (done.outcome, reason(done)) == ("refused", why)
    assert desk.made == []
    again = desk.take(bad)
    assert (again.outcome, again.results[0].duplicate) == ("duplicate", True)
    assert len(desk.dead) == 1


def test_a_trigger_has_a_limit(desk: Desk) -> None:
    """What comes beyond it is refused, and the next window is another."""
    desk.trigger(rate_limit=RateLimit(2, 60))
    outcomes = [desk.take(event()).outcome for _ in range(3)]
    assert outcomes == ["submitted", "submitted", "refused"]
    desk.now += timedelta(seconds=61)
    assert desk.take(event()).outcome == "submitted"


def test_one_refusal_does_not_keep_the_others(desk: Desk) -> None:
    """Each trigger is on its own, and the event is a letter about the one that refused."""
    desk.trigger({**SCRIPT, "project": "gone"})
    desk.trigger()
    done = desk.take(event())
    assert done.outcome == "submitted"
    assert [r.match.outcome for r in done.results] == ["refused", "submitted"]
    assert len(desk.dead) == 1


def test_a_replay_tries_again_what_was_refused(desk: Desk) -> None:
    """And only that: what ran does not run again."""
    desk.trigger()
    desk.trigger({**SCRIPT, "project": "late"})
    bad = event()
    desk.take(bad)
    projects = MemoryProjectStore(desk.state)
    projects.sync([FoundProject(name, f"/w/{name}") for name in ("demo", "late")], "test")
    done = desk.take(bad, again=True)
    assert [r.duplicate for r in done.results] == [True, False]
    assert sorted(c.project for c in desk.made) == ["demo", "late"]


def test_a_command_from_data_is_that_command(desk: Desk) -> None:
    """As POST /v1/commands would take it."""
    desk.trigger(FROM_DATA)
    wanted = {"project": "other", "kind": "git", "args": ["status"], "priority": "high"}
    done = desk.take(event(type=COMMAND_REQUESTED, data=wanted))
    assert done.outcome == "submitted"
    [command] = desk.made
    assert (command.project, command.kind, command.spec["args"]) == ("other", "git", ["status"])


def test_secret_parts_are_opened_for_the_command_only(desk: Desk) -> None:
    """Values of the environment are in no other place."""
    desk.trigger({**SCRIPT, "env": {"TOKEN": None}}, sealed_parts=b'sealed:{"env":{"TOKEN":"s3"}}')
    desk.take(event())
    [row] = desk.state.by_id()
    assert row.command.env_names == ("TOKEN",)
    assert row.sealed_env is not None
    assert b"s3" in row.sealed_env


# -- senders ---------------------------------------------------------------------------------------


def test_a_sender_reaches_only_what_its_key_sees(desk: Desk) -> None:
    """A trigger elsewhere is not there for it."""
    desk.trigger({**SCRIPT, "project": "other"})
    desk.trigger(FROM_DATA)
    sender = desk.key("events:write", projects=frozenset({"demo"}))
    assert desk.take(event(), sender=sender).outcome == "no_trigger"
    assert desk.take(event(), sender=desk.key("events:write")).outcome == "submitted"


def test_one_foreign_event_refuses_all_of_them(desk: Desk) -> None:
    """Before any is taken, in the words of a project that never was."""
    desk.trigger(FROM_DATA)
    sender = desk.key("events:write", projects=frozenset({"demo"}))
    mine = event(data={"project": "demo", "kind": "shell", "script": "a"}, type=COMMAND_REQUESTED)
    told = []
    for name in ("other", "nowhere"):
        foreign = {"project": name, "kind": "shell", "script": "a"}
        with pytest.raises(NotFound) as caught:
            desk.take(mine, event(type=COMMAND_REQUESTED, data=foreign), sender=sender)
        told.append(caught.value.detail.replace(name, "X"))
    assert told[0] == told[1]
    assert (desk.made, desk.dead) == ([], [])


def test_one_request_starts_so_many_commands_at_most(desk: Desk) -> None:
    """Nothing is done when it would be more."""
    for _ in range(3):
        desk.trigger()
    events = [event() for _ in range(MAX_MATCHES // 3 + 1)]
    with pytest.raises(InvalidField):
        desk.take(*events)
    assert desk.made == []


# -- trouble of ours -------------------------------------------------------------------------------


def test_trouble_of_ours_is_no_refusal(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is recorded, so that the next attempt finds the event as new as before."""
    desk.trigger()
    first = event()

    def away(*_: object) -> Any:
        raise Unavailable("the database does not answer")

    with monkeypatch.context() as broken:
        broken.setattr(desk.commands, "submit", away)
        with pytest.raises(Unavailable):
            desk.take(first)
    assert (desk.state.seen, desk.dead) == ({}, [])
    assert desk.take(first).outcome == "submitted"


class Killed(BaseException):
    """SIGKILL, as far as one thread of one process can feel it."""


@pytest.mark.parametrize("after", [False, True])
def test_killed_between_any_two_calls_an_event_still_happens_once(after: bool) -> None:
    """At the n-th call of any port, before or after its work: the repetition completes it."""
    points = 0
    for n in itertools.count(1):
        desk = Desk()
        for _ in range(2):
            desk.trigger()
        desk.trigger({**SCRIPT, "project": "gone"})
        calls = _kill_at(desk, n, after=after)
        first = event()
        try:
            desk.take(first)
        except Killed:
            points += 1
        calls.clear()
        assert desk.take(first).outcome in ("submitted", "refused", "duplicate")
        assert len(desk.made) == 2
        assert len(desk.dead) == 1
        seen = [m.outcome for m in desk.state.seen.values()]
        assert sorted(seen) == ["refused", "submitted", "submitted"]
        if points < n:
            break
    assert points >= 8


def _kill_at(desk: Desk, n: int, *, after: bool) -> list[int]:
    """Die at the n-th call of a store; clear the answer to live on."""
    armed, counted = [n], itertools.count(1)
    for store, names in (
        (desk.triggers, ("accepting", "seen", "owner", "refused")),
        (desk.commands, ("submit",)),
        (desk.letters, ("bury",)),
    ):
        for name in names:
            setattr(store, name, _dying(getattr(store, name), armed, counted, after=after))
    return armed


def _dying(real: Any, armed: list[int], counted: Any, *, after: bool) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        due = bool(armed) and next(counted) == armed[0]
        if due and not after:
            raise Killed
        result = real(*args, **kwargs)
        if due:
            raise Killed
        return result

    return call
