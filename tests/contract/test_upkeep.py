"""What every Upkeep does: repairs that are safe to repeat, each found from the rows alone."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from common.domain.command import State, Timeouts
from common.domain.errors import InvalidField
from common.domain.identifiers import new_id
from common.ports.commands import Filter, Idempotency
from common.ports.queue import LEASE_S
from common.ports.upkeep import Retention
from tests.contract.conftest import CANCELLED, DONE, ORIGIN, WORKER, World, now

TIMED_OUT = {"reason": "queue"}
DAY_S = 86_400


def id_of(days_ago: float) -> UUID:
    """A UUIDv7 as it was made that long ago."""
    milliseconds = int((now() - timedelta(days=days_ago)).timestamp() * 1000)
    return UUID(int=(milliseconds << 80) | (new_id().int & ((1 << 80) - 1)))


# -- one at a time ---------------------------------------------------------------------------------


def test_a_job_is_done_by_one_at_a_time(world: World) -> None:
    """The second to ask is told no; other jobs and later runs are free."""
    with world.upkeep.exclusive("a") as first:
        with world.upkeep.exclusive("a") as second, world.upkeep.exclusive("b") as other:
            assert (first, second, other) == (True, False, True)
        with world.upkeep.exclusive("a") as third:
            assert not third
    with world.upkeep.exclusive("a") as again:
        assert again


def test_a_job_that_fails_lets_go(world: World) -> None:
    """An exception inside ends the job's hold as well."""
    with pytest.raises(RuntimeError), world.upkeep.exclusive("a"):
        raise RuntimeError
    with world.upkeep.exclusive("a") as again:
        assert again


# -- ringing ---------------------------------------------------------------------------------------


def test_projects_with_claimable_work_are_rung(world: World) -> None:
    """Work that waits, and room for it: the runner should look there."""
    world.project(limit=1)
    world.project("idle")
    _, caller = world.key()
    assert world.upkeep.projects_to_ring() == []
    world.submit(caller)
    assert world.upkeep.projects_to_ring() == ["demo"]
    world.pause("demo", True)
    assert world.upkeep.projects_to_ring() == []
    world.pause("demo", False)
    world.alive(WORKER)
    world.claimed()
    world.submit(caller)
    assert world.upkeep.projects_to_ring() == []


def test_projects_with_a_dead_lease_are_rung(world: World) -> None:
    """A live command nobody follows is work too, also when the project is paused or full."""
    world.project(limit=1)
    world.alive(WORKER)
    _, caller = world.key()
    claim = world.running(caller)
    assert world.upkeep.projects_to_ring() == []
    world.pause("demo", True)
    world.pass_time(LEASE_S + 1)
    assert world.upkeep.projects_to_ring() == ["demo"]
    world.queue.heartbeat([(claim.command.id, claim.token)])
    assert world.upkeep.projects_to_ring() == []


# -- time ------------------------------------------------------------------------------------------


def test_what_is_due_is_promoted_once(world: World) -> None:
    """scheduled → queued with its event and doorbell, not before its time and not twice."""
    world.project()
    _, caller = world.key()
    later = world.submit(caller, run_at=now() + timedelta(minutes=10)).command
    far = world.submit(caller, run_at=now() + timedelta(days=1)).command
    assert world.upkeep.promote_due() == []
    world.pass_time(601)
    world.outbox.sent([e.id for e in world.outbox.take_left(100)])
    assert world.upkeep.promote_due() == [(later.id, "demo")]
    assert world.upkeep.promote_due() == []
    assert [e.type for e in world.events.page(later.id, 0, 1000).events] == ["state", "state"]
    world.pass_time(6)
    assert [e.type for e in world.outbox.take_left(10)] == ["ai.orchard9.rdev.command.queued.v1"]
    assert world.claimed().command.id == later.id
    still = world.commands.get(far.id)
    assert still is not None
    assert still.state is State.SCHEDULED


def test_what_waited_too_long_ends(world: World) -> None:
    """timed_out with the outcome given; the time of a scheduled command counts from run_at."""
    world.project()
    _, caller = world.key()
    brief = Timeouts(queue_s=60)
    late = world.submit(caller, timeouts=brief).command.id
    patient = world.submit(caller, timeouts=Timeouts(queue_s=None)).command.id
    later = world.submit(caller, timeouts=brief, run_at=now() + timedelta(seconds=90)).command.id
    assert world.upkeep.expire_queued(TIMED_OUT) == []
    world.pass_time(100)
    world.upkeep.promote_due()
    (expired,) = world.upkeep.expire_queued(TIMED_OUT)
    assert (expired.command_id, expired.project) == (late, "demo")
    (told,) = world.outbox.take([expired.event])
    assert told.type == "ai.orchard9.rdev.command.timed_out.v1"
    assert world.upkeep.expire_queued(TIMED_OUT) == []
    ended = world.commands.get(late)
    assert ended is not None
    assert (ended.state, ended.outcome) == (State.TIMED_OUT, TIMED_OUT)
    world.pass_time(60)
    assert [e.command_id for e in world.upkeep.expire_queued(TIMED_OUT)] == [later]
    assert [c.id for c in world.commands.list(Filter(states=("queued",)))] == [patient]


def test_what_was_claimed_never_times_out_here(world: World) -> None:
    """A command that was ever claimed ends only through the workspace."""
    world.project()
    _, caller = world.key()
    world.submit(caller, timeouts=Timeouts(queue_s=60))
    claim = world.claimed()
    world.pass_time(120)
    assert world.upkeep.expire_queued(TIMED_OUT) == []
    assert world.queue.held(claim.command.id, claim.token).command.state is State.CLAIMED


# -- retention -------------------------------------------------------------------------------------


def test_old_output_goes_and_the_command_stays(world: World) -> None:
    """After 14 days the events are gone, which readers are told; the command is there."""
    world.project()
    _, caller = world.key()
    old = world.running(caller, id=id_of(20))
    world.finish(old)
    fresh = world.running(caller)
    dropped = world.upkeep.drop_expired(Retention())
    assert dropped["commands"] == 0
    page = world.events.page(old.command.id, 0, 1000)
    assert (page.events, page.first, page.last) == ([], None, 3)
    assert world.commands.output_size(old.command.id, "merged") == (0, True)
    assert world.commands.get(old.command.id) is not None
    assert world.events.page(fresh.command.id, 0, 1000).first == 1


def test_a_command_that_still_runs_keeps_its_output(world: World) -> None:
    """However old it is, what has not ended loses nothing."""
    world.project()
    _, caller = world.key()
    claim = world.running(caller, id=id_of(20))
    world.upkeep.drop_expired(Retention())
    assert world.events.page(claim.command.id, 0, 1000).first == 1
    world.finish(claim)
    world.upkeep.drop_expired(Retention())
    assert world.events.page(claim.command.id, 0, 1000).first is None


def test_old_commands_go(world: World) -> None:
    """Ended more than 90 days ago: gone; the youngest and the unfinished stay."""
    world.project()
    _, caller = world.key()
    old, long = (world.running(caller, id=id_of(100)) for _ in range(2))
    world.finish(old)
    recent = world.running(caller)
    world.finish(recent)
    world.pass_time(91 * DAY_S)
    late = world.running(caller)
    world.finish(late)
    dropped = world.upkeep.drop_expired(Retention(commands_days=90))
    gone = [c for c in (old, recent) if world.commands.get(c.command.id) is None]
    assert old in gone
    assert dropped["commands"] == len(gone)
    assert world.commands.get(long.command.id) is not None
    assert world.commands.get(late.command.id) is not None


def test_idempotency_keys_are_forgotten_after_a_day(world: World) -> None:
    """Within 24 h another body is a mismatch, after it the key is free again."""
    world.project()
    _, caller = world.key()
    world.submit(caller, idempotency=Idempotency("r", "k", b"1"))
    world.pass_time(DAY_S - 60)
    assert world.upkeep.drop_expired(Retention())["idempotency"] == 0
    with pytest.raises(InvalidField):
        world.submit(caller, idempotency=Idempotency("r", "k", b"2"))
    world.pass_time(120)
    assert world.upkeep.drop_expired(Retention())["idempotency"] == 1
    assert not world.submit(caller, idempotency=Idempotency("r", "k", b"2")).replayed


def test_the_audit_trail_is_kept_for_400_days(world: World) -> None:
    """Each change left a row; they go when their time is over, and not before."""
    world.project()
    _, caller = world.key()
    made = world.submit(caller).command
    world.commands.reprioritise(made.id, 1, ORIGIN, caller)
    world.commands.cancel(made.id, "graceful", "user", CANCELLED, ORIGIN, caller)
    world.keys.revoke(caller.key_id, CANCELLED, caller, ORIGIN)
    world.pass_time(399 * DAY_S)
    assert world.upkeep.drop_expired(Retention())["audit_log"] == 0
    world.pass_time(2 * DAY_S)
    assert world.upkeep.drop_expired(Retention())["audit_log"] == 5


def test_partitions_can_be_made_again_and_again(world: World) -> None:
    """Making what is there makes nothing."""
    world.upkeep.make_partitions(7)
    assert world.upkeep.make_partitions(7) == 0


# -- an empty store --------------------------------------------------------------------------------


def test_repairs_find_nothing_in_an_empty_store(world: World) -> None:
    """Every job is harmless where there is nothing to do."""
    assert world.upkeep.projects_to_ring() == []
    assert world.upkeep.promote_due() == []
    assert world.upkeep.expire_queued(DONE) == []
    assert set(world.upkeep.drop_expired(Retention()).values()) == {0}
