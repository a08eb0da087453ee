"""common/services/repair.py: one tick."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest

from common.domain.errors import Unavailable
from common.ports import signals
from common.ports.upkeep import Expired, Retention
from common.services.repair import PARTITION_DAYS, Repair
from common.services.wakeups import Wakeups
from tests.unit.fakes import FakeBell, FakeRelay, FakeSignals

JOBS = [
    "discover",
    "promote",
    "expire",
    "ring",
    "outbox",
    "webhooks",
    "seal",
    "partitions",
    "retention",
]


class FakeUpkeep:
    """Every job is counted; one may be somebody else's, one may break."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.mine = True
        self.broken: dict[str, Exception] = {}
        self.to_ring: list[str] = []
        self.due: list[tuple[UUID, str]] = []
        self.outcome: dict[str, Any] = {}

    @contextmanager
    def exclusive(self, job: str) -> Iterator[bool]:
        yield self.mine

    def do(self, name: str) -> None:
        if name in self.broken:
            raise self.broken[name]
        self.done.append(name)

    def projects_to_ring(self) -> list[str]:
        self.do("ring")
        return self.to_ring

    def promote_due(self) -> list[tuple[UUID, str]]:
        self.do("promote")
        return self.due

    def expire_queued(self, outcome: dict[str, Any]) -> list[Expired]:
        self.do("expire")
        self.outcome = outcome
        return [Expired(UUID(int=1), "demo", UUID(int=2))]

    def make_partitions(self, days_ahead: int) -> int:
        assert days_ahead == PARTITION_DAYS
        self.do("partitions")
        return 1

    def drop_expired(self, keep: Retention) -> dict[str, int]:
        self.do("retention")
        return {}


class World:
    def __init__(self) -> None:
        self.upkeep, self.bell, self.signals = FakeUpkeep(), FakeBell(), FakeSignals()
        relay = self.relay = FakeRelay()
        relay.leftovers = self._leftovers  # type: ignore[method-assign]
        self.repair = Repair(
            self.upkeep,  # type: ignore[arg-type]
            relay,  # type: ignore[arg-type]
            self.bell,
            Wakeups(self.signals),
            lambda: self.upkeep.do("discover"),
            Retention(),
            lambda: self.upkeep.do("seal"),
            lambda: self.upkeep.do("webhooks"),
        )

    def _leftovers(self) -> int:
        self.upkeep.do("outbox")
        return 2


@pytest.fixture
def world() -> World:
    return World()


def test_a_tick_does_every_job_once(world: World) -> None:
    """Nothing failed; what waited too long got its reason."""
    assert world.repair() == []
    assert world.upkeep.done == JOBS
    assert world.upkeep.outcome["reason"] == "queue"


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("error", [Unavailable("away"), RuntimeError("a bug")])
def test_a_job_that_fails_keeps_no_other_from_its_work(
    world: World, job: str, error: Exception
) -> None:
    """It is named, and all others are done."""
    world.upkeep.broken = {job: error}
    assert world.repair() == [job]
    assert world.upkeep.done == [name for name in JOBS if name != job]


def test_a_job_that_another_tick_does_is_left_to_it(world: World) -> None:
    """Two ticks at once are harmless."""
    world.upkeep.mine = False
    assert world.repair() == []
    assert world.upkeep.done == []


def test_what_waited_too_long_is_told_at_once(world: World) -> None:
    """Who follows it is woken, and its event leaves with this tick."""
    world.repair()
    assert world.relay.asked == [UUID(int=2)]
    assert (signals.OUTPUT, f"{UUID(int=1).hex} demo") in world.signals.said


def test_projects_with_work_are_rung(world: World) -> None:
    """Every one of them, straight at the runner."""
    world.upkeep.to_ring = [f"p{n}" for n in range(20)]
    world.repair()
    assert sorted(world.bell.rung) == sorted(world.upkeep.to_ring)


def test_what_is_due_wakes_streams_and_rings_once_a_project(world: World) -> None:
    """Two commands of one project: two wake-ups, one ring."""
    world.upkeep.due = [(UUID(int=1), "demo"), (UUID(int=2), "demo")]
    world.repair.promote()
    assert world.bell.rung == ["demo"]
    assert world.signals.said == [
        (signals.OUTPUT, f"{UUID(int=1).hex} demo"),
        (signals.OUTPUT, f"{UUID(int=2).hex} demo"),
    ]
