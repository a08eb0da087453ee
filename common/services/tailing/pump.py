"""The loop that runs a channel group's rounds: at once when rung, else when the next one is due.

A round that fails (the database is away) is logged and tried again after a growing pause, whatever
rings meanwhile: followers wait, and lose nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from common.services import telemetry

_log = telemetry.logger("rdev.tailing")

_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 4.0  # below the 5 s within which streams go on after a database restart


class Pump:
    """`round_` answers in how many seconds the next round is due; None: only when rung."""

    def __init__(self, name: str, round_: Callable[[], Awaitable[float | None]]) -> None:
        self._name = name
        self._round = round_
        self._rung = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failures = 0
        self._next_at = float("inf")

    def plan(self, at: float) -> None:
        """Run a round at this time of the loop's clock, or earlier."""
        if at < self._next_at:
            self.ring()

    def ring(self) -> None:
        """Run a round as soon as possible; starts the loop when it does not run yet."""
        self._rung.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name=self._name)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        pause: float | None = None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._rung.wait()
            self._rung.clear()
            self._next_at = float("-inf")  # a round is under way and will plan the next itself
            pause = await self._one_round()
            now = asyncio.get_running_loop().time()
            self._next_at = float("inf") if pause is None else now + pause

    async def _one_round(self) -> float | None:
        try:
            pause = await self._round()
        except Exception:
            await self._back_off()
            return 0.0
        self._failures = 0
        return pause

    async def _back_off(self) -> None:
        pause = min(_FIRST_PAUSE_S * 2.0**self._failures, _LONGEST_PAUSE_S)
        self._failures += 1
        _log.warning("reading news failed", of=self._name, again_in_s=pause, exc_info=True)
        await asyncio.sleep(pause)
