"""What every TriggerStore does: kept once, changed by version, seen once, in its owner's name."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from common.domain import triggers
from common.domain.errors import Conflict, InvalidField, NotFound
from common.domain.identifiers import new_id
from common.domain.keys import Caller, RateLimit
from common.domain.triggers import Match, Outcome, Trigger
from common.ports.commands import Filter, Firing, Idempotency
from common.ports.keys import NewText
from common.ports.upkeep import Retention
from tests.contract.conftest import CANCELLED, ORIGIN, World, now

DAY_S = 86_400
SECRET = b"sealed secret"


def wanted(**fields: Any) -> Trigger:
    """A trigger that is not stored yet."""
    plain: dict[str, Any] = {
        "id": new_id(),
        "name": "builds",
        "key_id": UUID(int=0),
        "filter": {"exact": {"type": "t"}},
        "command": {"project": "demo", "kind": "shell", "script": "true", "env": {}},
        "accept": frozenset({"http", "github"}),
        "rate_limit": RateLimit(60, 3600),
        "created_at": now(),
        "updated_at": now(),
    }
    return Trigger(**plain | fields)


def stored(world: World, caller: Caller, **fields: Any) -> Trigger:
    return world.triggers.create(wanted(**fields), SECRET, caller, ORIGIN, None).trigger


def firing(trigger: Trigger, event: str = "1", **fields: Any) -> Firing:
    return replace(Firing(event.encode(), trigger.id, event, "/s", "t"), **fields)


def code_of(world: World, caller: Caller, given: Firing) -> str:
    """Why a firing is refused."""
    with pytest.raises(Conflict) as caught:
        world.submit(caller, firing=given)
    return caught.value.code


# -- triggers --------------------------------------------------------------------------------------


def test_a_trigger_is_kept_as_it_was_made(world: World) -> None:
    """Everything it says comes back, and its owner is who made it."""
    _, caller = world.key()
    made = wanted(sealed_parts=b"sealed", enabled=False)
    created = world.triggers.create(made, SECRET, caller, ORIGIN, None).trigger
    expected = replace(
        made,
        key_id=caller.key_id,
        created_at=created.created_at,
        updated_at=created.updated_at,
    )
    assert world.triggers.get(made.id) == created == expected
    assert world.triggers.secrets(made.id) == [SECRET]
    assert world.triggers.get(new_id()) is None
    assert list(world.triggers.secrets(new_id())) == []


def test_a_creation_is_repeated_by_its_key(world: World) -> None:
    """The same again answers the first; another request with the same key is refused."""
    _, caller = world.key()
    first = world.triggers.create(wanted(), SECRET, caller, ORIGIN, Idempotency("r", "k", b"1"))
    again = world.triggers.create(wanted(), b"other", caller, ORIGIN, Idempotency("r", "k", b"1"))
    assert (first.replayed, again.replayed) == (False, True)
    assert again.trigger == first.trigger
    assert world.triggers.secrets(first.trigger.id) == [SECRET]
    with pytest.raises(InvalidField):
        world.triggers.create(wanted(), SECRET, caller, ORIGIN, Idempotency("r", "k", b"2"))
    world.triggers.delete(first.trigger.id, None, caller, ORIGIN)
    with pytest.raises(Conflict):
        world.triggers.create(wanted(), SECRET, caller, ORIGIN, Idempotency("r", "k", b"1"))


def test_there_is_a_most(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every event is compared with each of them."""
    for module in ("memory", "postgres"):
        monkeypatch.setattr(f"common.adapters.{module}.triggers.MAX_TRIGGERS", 2)
    assert triggers.MAX_TRIGGERS > 2
    _, caller = world.key()
    stored(world, caller)
    stored(world, caller)
    with pytest.raises(Conflict) as caught:
        stored(world, caller)
    assert caught.value.code == "too_many_triggers"


def test_triggers_are_listed_newest_first(world: World) -> None:
    """Below an id, so that pages do not overlap."""
    _, caller = world.key()
    made = [stored(world, caller).id for _ in range(3)]
    assert [t.id for t in world.triggers.list(None, 2)] == made[:0:-1]
    assert [t.id for t in world.triggers.list(made[1], 5)] == made[:1]


def test_only_those_that_take_it_are_asked(world: World) -> None:
    """Disabled ones and those of other channels are not."""
    _, caller = world.key()
    both = stored(world, caller)
    stored(world, caller, accept=frozenset({"github"}))
    stored(world, caller, enabled=False)
    assert [t.id for t in world.triggers.accepting("http")] == [both.id]
    assert list(world.triggers.accepting("broker")) == []


def test_a_change_names_the_version_it_changes(world: World) -> None:
    """What is left out stays; a version that is not there any more changes nothing."""
    _, caller = world.key()
    _, other = world.key()
    made = stored(world, caller, sealed_parts=b"old")
    changes: dict[str, Any] = {"name": "new", "enabled": False}
    assert world.triggers.update(made.id, 1, changes, None, other, ORIGIN) == "ok"
    kept = world.triggers.get(made.id)
    assert kept == replace(
        made, name="new", enabled=False, version=2, updated_at=kept.updated_at if kept else now()
    )
    assert world.triggers.update(made.id, 1, {"name": "late"}, None, caller, ORIGIN) == "stale"
    assert world.triggers.update(new_id(), 1, {"name": "x"}, None, caller, ORIGIN) == "unknown"
    all_of_it = {
        "key_id": str(other.key_id),
        "filter": {"prefix": {"source": "/"}},
        "command": {"from": "data", "projects": ["demo"], "kinds": ["git"]},
        "accept": ["broker"],
        "rate_limit": {"limit": 1, "window_s": 2},
    }
    assert world.triggers.update(made.id, 2, all_of_it, b"parts", other, ORIGIN) == "ok"
    changed = world.triggers.get(made.id)
    assert changed is not None
    assert (changed.key_id, changed.sealed_parts) == (other.key_id, b"parts")
    assert (changed.filter, changed.command) == (all_of_it["filter"], all_of_it["command"])
    assert (changed.accept, changed.rate_limit) == (frozenset({"broker"}), RateLimit(1, 2))


def test_a_deleted_trigger_takes_its_log_along(world: World) -> None:
    """It is gone for readers, for events, and for another deletion."""
    world.project()
    _, caller = world.key()
    made = stored(world, caller)
    world.submit(caller, firing=firing(made))
    assert world.triggers.delete(made.id, 2, caller, ORIGIN) == "stale"
    assert world.triggers.delete(made.id, 1, caller, ORIGIN) == "ok"
    assert world.triggers.delete(made.id, None, caller, ORIGIN) == "unknown"
    assert world.triggers.seen(b"1") is None
    assert code_of(world, caller, firing(made)) == "trigger_off"


def test_an_old_secret_counts_for_its_grace(world: World) -> None:
    """Then only the new one; a repeated rotation is the first one."""
    _, caller = world.key()
    made = stored(world, caller)
    key = Idempotency("rotate", "k", b"1")
    first = world.triggers.rotate(made.id, b"second", 60, caller, ORIGIN, key)
    again = world.triggers.rotate(made.id, b"third", 60, caller, ORIGIN, key)
    assert first is not None
    assert again is not None
    assert (first.replayed, again.replayed, first.trigger.version) == (False, True, 2)
    assert world.triggers.secrets(made.id) == [b"second", SECRET]
    world.pass_time(61)
    assert world.triggers.secrets(made.id) == [b"second"]
    assert world.triggers.rotate(new_id(), b"x", 60, caller, ORIGIN, None) is None


# -- events ----------------------------------------------------------------------------------------


def test_an_event_makes_its_command_once(world: World) -> None:
    """Command and what was seen are one; the second time nothing is made."""
    world.project()
    _, caller = world.key()
    made = stored(world, caller)
    command = world.submit(caller, firing=firing(made)).command
    assert code_of(world, caller, firing(made)) == "event_seen"
    assert code_of(world, caller, firing(made, again=True)) == "event_seen"
    assert [c.id for c in world.commands.list(Filter())] == [command.id]
    match = world.triggers.seen(b"1")
    assert match is not None
    assert match.at is not None
    assert match == Match(
        made.id, "1", "/s", "t", Outcome.SUBMITTED, command.id, number=match.number, at=match.at
    )


def test_eight_deliveries_at_once_make_one_command(world: World) -> None:
    """Whoever comes second waits for the first and sees what it did."""
    world.project()
    _, caller = world.key()
    made = stored(world, caller)
    codes: list[str] = []
    start = threading.Barrier(8)

    def deliver() -> None:
        start.wait()
        try:
            world.submit(caller, firing=firing(made))
        except Conflict as error:
            codes.append(error.code)

    threads = [threading.Thread(target=deliver) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == ["event_seen"] * 7
    assert len(world.commands.list(Filter())) == 1


def test_a_refused_command_leaves_nothing_seen(world: World) -> None:
    """No such project: the event is as new as before."""
    _, caller = world.key()
    made = stored(world, caller)
    with pytest.raises(NotFound):
        world.submit(caller, "nowhere", firing=firing(made))
    assert world.triggers.seen(b"1") is None


def test_a_refusal_stands_until_somebody_tries_again(world: World) -> None:
    """It keeps the event from running by itself; `again` takes it back, and success is final."""
    world.project()
    _, caller = world.key()
    made = stored(world, caller)
    no = Match(made.id, "1", "/s", "t", Outcome.REFUSED, reason="key_expired", detail="a\ud800")
    first = world.triggers.refused(b"1", no)
    assert (first.outcome, first.reason) == (Outcome.REFUSED, "key_expired")
    assert world.triggers.refused(b"1", replace(no, reason="other")).reason == "other"
    assert code_of(world, caller, firing(made)) == "event_seen"
    command = world.submit(caller, firing=firing(made, again=True)).command
    assert world.triggers.refused(b"1", no).command_id == command.id
    [match] = world.triggers.matches(made.id, None, None, 5)
    assert (match.outcome, match.reason, match.command_id) == ("submitted", None, command.id)


def test_a_refusal_at_a_trigger_that_is_gone_is_told_and_not_kept(world: World) -> None:
    """There is no log it could stand in."""
    no = Match(new_id(), "1", "/s", "t", Outcome.REFUSED, reason="trigger_off")
    assert world.triggers.refused(b"1", no) == no
    assert world.triggers.seen(b"1") is None


@pytest.mark.parametrize("limit", [2, 300])
def test_a_trigger_has_a_limit_of_its_own(world: World, limit: int) -> None:
    """The first beyond it is refused, and goes when the window has moved on."""
    world.project()
    _, caller = world.key()
    made = stored(world, caller, rate_limit=RateLimit(limit, 60))
    for number in range(limit):
        world.submit(caller, firing=firing(made, str(number)))
    assert code_of(world, caller, firing(made, "late")) == "trigger_limited"
    world.pass_time(62)
    world.submit(caller, firing=firing(made, "late"))


def test_a_disabled_trigger_fires_no_more(world: World) -> None:
    """Also when the event had found it enabled."""
    world.project()
    _, caller = world.key()
    made = stored(world, caller)
    world.triggers.update(made.id, 1, {"enabled": False}, None, caller, ORIGIN)
    assert code_of(world, caller, firing(made)) == "trigger_off"


def test_matches_are_a_log(world: World) -> None:
    """Newest first, by outcome, below a number, of one trigger."""
    world.project()
    _, caller = world.key()
    made, other = stored(world, caller), stored(world, caller)
    for number in range(3):
        world.submit(caller, firing=firing(made, str(number)))
    world.submit(caller, firing=firing(other, "x"))
    world.triggers.refused(b"r", Match(made.id, "r", "/s", "t", Outcome.REFUSED, reason="why"))
    found = world.triggers.matches(made.id, None, None, 10)
    assert [m.event_id for m in found] == ["r", "2", "1", "0"]
    below = world.triggers.matches(made.id, "submitted", found[1].number, 10)
    assert [m.event_id for m in below] == ["1", "0"]
    assert [m.event_id for m in world.triggers.matches(made.id, "refused", None, 10)] == ["r"]


def test_what_was_seen_is_kept_for_30_days(world: World) -> None:
    """As long as an event may come late."""
    world.project()
    _, caller = world.key()
    made = stored(world, caller)
    world.submit(caller, firing=firing(made))
    world.pass_time(30 * DAY_S - 60)
    assert world.upkeep.drop_expired(Retention())["seen_events"] == 0
    world.pass_time(120)
    assert world.upkeep.drop_expired(Retention())["seen_events"] == 1
    assert world.triggers.seen(b"1") is None


def test_the_newest_refusals_are_kept(world: World) -> None:
    """Nothing ran for them, so that many are enough; what ran is known for its 30 days."""
    world.project()
    _, caller = world.key()
    made = stored(world, caller)
    world.submit(caller, firing=firing(made))
    for number in range(3):
        world.pass_time(1)
        no = Match(made.id, str(number), "/s", "t", Outcome.REFUSED, reason="why")
        world.triggers.refused(b"r%d" % number, no)
    assert world.upkeep.drop_expired(Retention(most_refused=2))["seen_events"] == 1
    assert [m.event_id for m in world.triggers.matches(made.id, None, None, 9)] == ["2", "1", "1"]


# -- owners ----------------------------------------------------------------------------------------


def rotated(world: World, caller: Caller, grace_s: int = 60) -> UUID:
    new = NewText(new_id(), "rdev_x", new_id().bytes, now())
    world.keys.rotate(caller.key_id, new, grace_s, caller, ORIGIN, None)
    return new.id


def test_an_owner_is_who_the_key_is_now(world: World) -> None:
    """With the rights it has at that moment."""
    _, caller = world.key(projects=frozenset({"demo"}), max_concurrent=3)
    owner = world.triggers.owner(caller.key_id)
    assert (owner.status, owner.caller) == ("ok", caller)
    world.keys.update(caller.key_id, {"scopes": ["audit:read"]}, caller, ORIGIN)
    owner = world.triggers.owner(caller.key_id)
    assert owner.caller is not None
    assert owner.caller.scopes == frozenset({"audit:read"})
    assert world.triggers.owner(new_id()).status == "unknown"


def test_an_expired_owner_is_none(world: World) -> None:
    """From its moment on."""
    _, caller = world.key(expires_at=now() + timedelta(hours=1))
    assert world.triggers.owner(caller.key_id).status == "ok"
    world.pass_time(3601)
    assert world.triggers.owner(caller.key_id).status == "expired"


def test_a_rotated_owner_goes_on_as_its_new_key(world: World) -> None:
    """Through several rotations and past every grace; a revoked one on the way ends it."""
    _, caller = world.key()
    second = rotated(world, caller)
    owner = world.triggers.owner(caller.key_id)
    assert owner.caller is not None
    assert (owner.status, owner.caller.key_id) == ("ok", second)
    third = rotated(world, owner.caller)
    world.pass_time(120)
    owner = world.triggers.owner(caller.key_id)
    assert owner.caller is not None
    assert (owner.status, owner.caller.key_id) == ("ok", third)
    world.keys.revoke(second, CANCELLED, caller, ORIGIN)
    assert world.triggers.owner(caller.key_id).status == "revoked"


# -- the trail -------------------------------------------------------------------------------------


def test_every_change_is_in_the_audit_trail(world: World) -> None:
    """In the transaction of what it tells, without the command's text."""
    world.project()
    _, caller = world.key()
    made = stored(world, caller)
    world.triggers.update(made.id, 1, {"command": made.command}, None, caller, ORIGIN)
    world.triggers.rotate(made.id, b"x", 0, caller, ORIGIN, None)
    world.submit(caller, firing=firing(made))
    world.triggers.delete(made.id, None, caller, ORIGIN)
    from common.domain.audit import AuditFilter

    rows = world.audit.list(AuditFilter(limit=50))
    told = [r.action for r in rows if r.action.startswith("trigger.")]
    assert told == [
        f"trigger.{what}" for what in ("deleted", "fired", "rotated", "updated", "created")
    ]
    assert {r.project for r in rows if r.action.startswith("trigger.")} == {"demo"}
    assert "script" not in repr([r.detail for r in rows])
