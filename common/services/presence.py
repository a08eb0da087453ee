"""Use case: be seen while commands are followed, or the autoscaler takes this process for idle.

For every followed command one plain request to the own Service is kept open (`POST /follow`). It
keeps the number of instances right, not this particular one: hand-over protects the work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from uuid import UUID


class Presence:
    """Keeps `hold()` running once per followed command; `hold` returns when its request ended."""

    def __init__(
        self, hold: Callable[[], Awaitable[None]], following: Callable[[], list[UUID]]
    ) -> None:
        self._hold = hold
        self._following = following
        self._held: dict[UUID, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def changed(self) -> None:
        """What is followed has changed; from any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended, and with it what it was told for
                self._loop.call_soon_threadsafe(self._changed.set)

    async def run(self) -> None:
        """Until cancelled."""
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                self._adjust()
                await self._changed.wait()
                self._changed.clear()
        finally:
            for task in self._held.values():
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*self._held.values(), return_exceptions=True)

    def _adjust(self) -> None:
        now = set(self._following())
        for gone in self._held.keys() - now:
            self._held.pop(gone).cancel()
        for new in now - self._held.keys():
            self._held[new] = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            await self._hold()
