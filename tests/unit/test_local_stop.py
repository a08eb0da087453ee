"""infra/local/cluster.py: how long running commands have when rdev stops."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest

from infra.local import cluster
from infra.local.wire import HttpError


class Runner:
    """A runner function on a clock of the test's; starting it takes `start_s`."""

    def __init__(self, start_s: float, *, broken: bool = False) -> None:
        self.closed: list[tuple[float, signal.Signals]] = []
        self._start_s = start_s
        self._broken = broken

    async def ensure_one(self) -> None:
        await asyncio.sleep(self._start_s)
        if self._broken:
            raise HttpError(503, "not_ready", "cannot start")

    async def close(self, grace_s: float, number: signal.Signals) -> None:
        self.closed.append((round(grace_s, 3), number))


class Skipping(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to what is due next instead of waiting for it."""

    skipped_s = 0.0

    def time(self) -> float:
        return self.skipped_s

    def _run_once(self) -> None:
        scheduled: list[Any] = self._scheduled  # type: ignore[attr-defined]
        if scheduled and not self._ready:  # type: ignore[attr-defined]
            self.skipped_s = max(self.skipped_s, scheduled[0].when())
        super()._run_once()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("runner", "left_s"),
    [(Runner(0.0), 4.0), (Runner(1.5), 2.5), (Runner(1.0, broken=True), 3.0), (Runner(60.0), 2.0)],
    ids=["runs", "has to start", "cannot start", "starts too slowly"],
)
def test_the_runner_gets_all_time_that_is_left(runner: Runner, left_s: float) -> None:
    """What waiting for a runner did not take is for its commands, and half of it is in any case."""
    with asyncio.Runner(loop_factory=Skipping) as loop:
        loop.run(cluster._end_commands(runner, 4.0))  # type: ignore[arg-type]
    assert runner.closed == [(left_s, signal.SIGUSR1)]
