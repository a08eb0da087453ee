"""common/services/runner.py: what one process takes on, holds and hands over."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest

from common.domain.command import State
from common.domain.errors import Unavailable
from common.ports import signals
from common.ports.queue import Claim
from common.services import runner as module
from common.services.runner import Runner
from tests.unit import fakes
from tests.unit.fakes import FakeBell, FakeQueue, FakeSignals, Row


class FakeFollower:
    """Follows until the test ends it, or somebody stops it."""

    def __init__(self, claim: Claim, queue: FakeQueue) -> None:
        self.command = claim.command
        self.token = claim.token
        self.cancels: list[tuple[str, str]] = []
        self.told = 0
        self.stopped = False
        self.tidied = 0
        self.error: Exception | None = None
        self.ends_on_cancel = False
        self._queue = queue
        self._over = threading.Event()

    def news(self) -> None:
        self.told += 1

    def follow(self) -> bool:
        assert self._over.wait(20)
        if self.error is not None:
            raise self.error
        if not self.stopped:
            self._queue.finish(
                self.command.id, self.token, State.FAILED, {"reason": "exit_nonzero"}
            )
        return not self.stopped

    def tidy(self) -> None:
        self.tidied += 1

    def end(self) -> None:
        self._over.set()

    def stop(self) -> None:
        self.stopped = True
        self._over.set()

    def cancel(self, mode: str, reason: str) -> None:
        self.cancels.append((mode, reason))
        if self.ends_on_cancel:
            self._over.set()


class World:
    def __init__(self, room: int = 3) -> None:
        self.queue = FakeQueue()
        self.signals = FakeSignals()
        self.bell = FakeBell()
        self.followers: list[FakeFollower] = []
        self.changes = 0
        self._told = threading.Condition()
        self.runner = Runner(self.queue, self.signals, self.bell, self._follower, room)  # type: ignore[arg-type]
        self.runner.on_change = self._count

    def _count(self) -> None:
        with self._told:
            self.changes += 1
            self._told.notify_all()

    def _follower(self, claim: Claim) -> FakeFollower:
        self.followers.append(FakeFollower(claim, self.queue))
        return self.followers[-1]

    def add(self, count: int = 1, project: str = "demo") -> list[Row]:
        return [self.queue.add(fakes.command(project=project)) for _ in range(count)]

    def wait(self, holds: Callable[[], bool]) -> None:
        """Until `holds`, looked at whenever what is followed has changed."""
        with self._told:
            assert self._told.wait_for(holds, timeout=20)

    def follower_of(self, row: Row) -> FakeFollower:
        return next(f for f in reversed(self.followers) if f.command.id == row.command.id)

    def running(self) -> list[FakeFollower]:
        return [f for f in self.followers if not f._over.is_set()]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.005)
    monkeypatch.setattr(module, "SHUTDOWN_S", 0.05)
    made = World()
    yield made
    made.runner._stopping.set()
    for follower in made.followers:
        follower.stop()
    if made.runner._beat is not None:
        made.runner._beat.join(20)
        assert not made.runner._beat.is_alive()


# -- claiming ------------------------------------------------------------------------------------


def test_a_ring_claims_what_there_is(world: World) -> None:
    """Every queued command of the project, and none of another."""
    rows = world.add(2)
    [other] = world.add(1, "other")
    assert world.runner.ring("demo") == 2
    assert set(world.runner.following) == {row.command.id for row in rows}
    assert other.command.state is State.QUEUED


def test_a_ring_without_a_project_only_adopts(world: World) -> None:
    """A doorbell that names nothing is still a reason to look for the dead."""
    [waiting] = world.add()
    [live] = world.add(1, "other")
    world.queue.claim("other", 1)
    world.queue.kill_lease(live)
    assert world.runner.ring(None) == 1
    assert world.runner.following == [live.command.id]
    assert waiting.command.state is State.QUEUED


def test_a_ring_adopts_whatever_the_project(world: World) -> None:
    """A dead lease anywhere is taken over first."""
    [live] = world.add(1, "other")
    world.queue.claim("other", 1)
    world.queue.kill_lease(live)
    world.add(1)
    assert world.runner.ring("demo") == 2
    assert live.token == 2


def test_no_more_is_taken_on_than_there_is_room(world: World) -> None:
    """The rest waits, and another process is rung for it."""
    world.add(5)
    assert world.runner.ring("demo") == 3
    assert len(world.runner.following) == 3
    assert world.bell.wait(1) == ["demo"]


def test_a_full_runner_adopts_nothing(world: World) -> None:
    """Adopting honours the room too."""
    rows = world.add(4)
    world.runner.ring("demo")
    world.queue.claim("demo", 2)
    world.queue.kill_lease(rows[3])
    assert world.runner.ring(None) == 0


def test_a_full_runner_does_not_ring_without_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own ring comes back to it; it answers with no other within a second."""
    world.add(5)
    for _ in range(10):
        world.runner.ring("demo")
    assert world.bell.wait(1) == ["demo"]
    monkeypatch.setattr(module, "BELL_S", 0.0)
    world.runner.ring("demo")
    assert world.bell.wait(2) == ["demo", "demo"]


def test_room_that_comes_is_used_at_once(world: World) -> None:
    """When one ends, the next of its project is claimed without anybody ringing."""
    rows = world.add(4)
    world.runner.ring("demo")
    world.follower_of(rows[0]).end()
    world.wait(lambda: rows[3].command.id in world.runner._followers)
    world.queue.wait_ended(rows[0])


def test_a_hungry_project_gets_the_room_of_another(world: World) -> None:
    """A project that found no room is looked at when any command ends."""
    rows = world.add(3)
    world.runner.ring("demo")
    [hungry] = world.add(1, "other")
    world.runner.ring("other")
    assert world.bell.wait(1)
    world.follower_of(rows[1]).end()
    world.wait(lambda: hungry.command.id in world.runner._followers)
    assert "other" not in world.runner._hungry or world.runner._free() == 0


def test_a_hungry_project_is_not_forgotten_when_the_database_was_away(world: World) -> None:
    """Room came while nothing could be claimed: the next heartbeat looks again."""
    rows = world.add(3)
    world.runner.ring("demo")
    [hungry] = world.add(1, "other")
    world.runner.ring("other")
    claim, away = world.queue.claim, [True]

    def sometimes(project: str, worker: int) -> Claim | None:
        if away[0]:
            raise Unavailable("away")
        return claim(project, worker)

    world.queue.claim = sometimes  # type: ignore[method-assign]
    world.follower_of(rows[1]).end()
    world.wait(lambda: len(world.runner._followers) == 2)
    away[0] = False
    world.runner._beat_once(adopt=True)
    world.wait(lambda: hungry.command.id in world.runner._followers)


def test_a_ring_says_when_the_database_is_away(world: World) -> None:
    """The delivery fails, so that the broker repeats it."""

    def away(*_args: object) -> Any:
        raise Unavailable("away")

    world.queue.adopt = away  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        world.runner.ring("demo")


def test_changes_are_told(world: World) -> None:
    """Whoever keeps the process visible hears of every command that comes and goes."""
    [row] = world.add()
    world.runner.ring("demo")
    assert world.changes == 1
    world.follower_of(row).end()
    world.wait(lambda: not world.runner._followers)
    world.wait(lambda: world.changes == 2)


def test_a_follower_that_crashes_is_let_go(world: World) -> None:
    """Its place is free again and its lease runs out; the runner goes on."""
    rows = world.add(4)
    world.runner.ring("demo")
    crashing = world.follower_of(rows[0])
    crashing.error = RuntimeError("a bug")
    crashing.end()
    world.wait(lambda: rows[3].command.id in world.runner._followers)
    assert not rows[0].command.ended


# -- leases --------------------------------------------------------------------------------------


def test_a_heartbeat_renews_passes_cancels_on_and_stops_what_is_lost(world: World) -> None:
    """Three followers: one goes on, one is cancelled, one is somebody else's now."""
    rows = world.add(3)
    world.runner.ring("demo")
    kept, cancelled, lost = (world.follower_of(row) for row in rows)
    world.queue.request_cancel(rows[1], "force", "user")
    world.queue.kill_lease(rows[2])
    world.queue.adopt(99, 1)
    world.runner._beat_once(adopt=False)
    assert (kept.stopped, kept.cancels) == (False, [])
    assert cancelled.cancels == [("force", "user")]
    assert lost.stopped
    world.wait(lambda: len(world.runner._followers) == 2)


def test_own_commands_are_adopted_anew_when_their_leases_ran_out(world: World) -> None:
    """After a long outage: the old follower stops, and its end does not remove the new one."""
    [row] = world.add()
    world.runner.ring("demo")
    old = world.follower_of(row)
    world.queue.kill_lease(row)
    assert world.runner.ring(None) == 1
    assert old.stopped
    new = world.follower_of(row)
    assert new is not old
    assert new.token == 2
    world.wait(lambda: world.runner._followers.get(row.command.id) is new)
    world.runner._beat_once(adopt=False)
    assert not new.stopped
    new.end()
    world.queue.wait_ended(row)


def test_heartbeats_outlive_trouble(world: World) -> None:
    """A database that is away, or a bug, does not end the heartbeat."""
    world.add()
    world.runner.ring("demo")
    beaten, errors = threading.Event(), iter([Unavailable("away"), RuntimeError("bug")])
    heartbeat = world.queue.heartbeat

    def shaky(leases: Any) -> Any:
        error = next(errors, None)
        if error is not None:
            raise error
        beaten.set()
        return heartbeat(leases)

    world.queue.heartbeat = shaky  # type: ignore[method-assign]
    world.runner.start()
    assert beaten.wait(20)


def test_heartbeats_adopt(world: World) -> None:
    """Without any event at all, the dead are found at the next beat."""
    [row] = world.add()
    world.queue.claim("demo", 5)
    world.queue.kill_lease(row)
    world.runner.start()
    world.wait(lambda: row.command.id in world.runner._followers)


def test_a_worker_says_that_it_is_alive(world: World) -> None:
    """It listens for cancels and holds the lock with its number."""
    world.runner.start()
    assert world.signals.listening.worker == world.runner.worker
    assert world.runner.worker < 1 << 63


@pytest.mark.parametrize("payload", ["mine", "", "other"])
def test_a_cancel_that_is_heard_is_asked_for_at_once(world: World, payload: str) -> None:
    """Its own commands only, and after a reconnection all of them; a decision likewise."""
    [row] = world.add()
    world.runner.ring("demo")
    world.queue.request_cancel(row)
    text = {"mine": row.command.id.hex, "": "", "other": UUID(int=1).hex}[payload]
    world.runner._heard(signals.CONTROL, text)
    expected = [] if payload == "other" else [("graceful", "user")]
    assert world.follower_of(row).cancels == expected
    assert world.follower_of(row).told == len(expected)


def test_a_cancel_that_is_heard_while_the_database_is_away_waits(world: World) -> None:
    """The listening thread goes on."""
    [row] = world.add()
    world.runner.ring("demo")

    def away(_leases: object) -> Any:
        raise Unavailable("away")

    world.queue.heartbeat = away  # type: ignore[method-assign]
    world.runner._heard(signals.CONTROL, row.command.id.hex)
    assert world.follower_of(row).cancels == []
    assert world.follower_of(row).told == 1, "a decision needs no lease"


# -- the end of the process ----------------------------------------------------------------------


def test_a_stopping_runner_gives_its_leases_up(world: World) -> None:
    """Followers stop, runs go on, leases are free at once, and somebody is to be rung."""
    rows = world.add(2)
    world.runner.start()
    world.runner.ring("demo")
    assert world.runner.stop() == ["demo"]
    assert sorted(world.queue.released) == sorted((row.command.id, 1) for row in rows)
    assert world.signals.listening.closed
    assert all(not row.command.ended for row in rows)
    assert world.runner.following == []


def test_a_stopping_runner_names_hungry_projects_too(world: World) -> None:
    """What waited for its room waits for somebody else's now."""
    world.add(3)
    world.runner.ring("demo")
    world.add(1, "other")
    world.runner.ring("other")
    assert world.runner.stop() == ["demo", "other"]


def test_a_stopping_runner_takes_nothing_on(world: World) -> None:
    """A doorbell during the drain is answered, and nothing is claimed."""
    world.runner.stop()
    [row] = world.add()
    assert world.runner.ring("demo") == 0
    assert row.command.state is State.QUEUED


def test_leases_that_cannot_be_released_run_out(world: World) -> None:
    """The database is away while the process stops: it stops all the same."""
    world.add()
    world.runner.ring("demo")

    def away(_leases: object) -> None:
        raise Unavailable("away")

    world.queue.release = away  # type: ignore[method-assign]
    assert world.runner.stop() == ["demo"]


def test_a_stop_of_an_idle_runner_is_nothing(world: World) -> None:
    """No followers, no rings."""
    assert world.runner.stop() == []


@pytest.mark.parametrize("away", [False, True])
def test_cancel_all_ends_everything_that_runs_here(world: World, away: bool) -> None:
    """Marked in the database and killed; killed also when the database is away."""
    rows = world.add(3)
    world.runner.ring("demo")
    marked: list[UUID] = []
    for follower in world.followers:
        follower.ends_on_cancel = True

    def cancel(command_id: UUID) -> None:
        if away:
            raise Unavailable("away")
        marked.append(command_id)

    assert world.runner.cancel_all(cancel) is True
    assert {f.cancels[0] for f in world.followers} == {("shutdown", "shutdown")}
    assert marked == ([] if away else [row.command.id for row in rows])


def test_cancel_all_says_when_something_lives_on(world: World) -> None:
    """It waits for a bounded time."""
    world.add()
    world.runner.ring("demo")
    assert world.runner.cancel_all(lambda _id: None) is False


def test_cancel_all_claims_nothing_more(world: World) -> None:
    """What ends makes room, and the room stays empty."""
    rows = world.add(4)
    world.runner.ring("demo")
    for follower in world.followers:
        follower.ends_on_cancel = True
    world.runner.cancel_all(lambda _id: None)
    assert rows[3].command.state is State.QUEUED


def test_a_workspace_is_tidied_at_most_once_an_hour(world: World) -> None:
    """The first command that ends in a project asks for it, the next ones do not."""
    rows = world.add(2)
    world.runner.ring("demo")
    followers = [world.follower_of(row) for row in rows]
    for follower in followers:
        world.runner._tidy(follower)  # type: ignore[arg-type]
    assert [f.tidied for f in followers] == [1, 0]
