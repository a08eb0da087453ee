"""What one follower of a channel holds: a position, and a future while it waits."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from common.services.tailing.ring import Ring


class Subscription(ABC):
    """Pull: `take` what the ring has, `fetch` from the database when `behind`, else `wait`.

    One task uses it; anyone in the loop may `wake` it. `done` is true once nothing can follow.
    """

    __slots__ = ("_ring", "_waiter", "closed")

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._waiter: asyncio.Future[None] | None = None
        self.closed = False

    @abstractmethod
    def take(self) -> bytes | None:
        """The next events out of the ring, joined; None when it cannot serve this position."""

    @property
    @abstractmethod
    def behind(self) -> bool:
        """Whether the next event must come from the database."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether the last event there will ever be was taken."""

    @abstractmethod
    async def fetch(self) -> bytes:
        """The next events from the database, joined; may be empty. Raises Unavailable."""

    @abstractmethod
    def _before_wait(self) -> None:
        """Make sure that somebody will wake it."""

    @abstractmethod
    def _leave(self) -> None:
        """Give the channel back."""

    def hello(self) -> bytes:
        """What to send before the first event."""
        return b""

    async def wait(self) -> None:
        """Return when there may be something to take, or when woken."""
        self._waiter = asyncio.get_running_loop().create_future()
        self._ring.waiting.add(self)
        self._before_wait()
        try:
            await self._waiter
        finally:
            self._ring.waiting.discard(self)
            self._waiter = None

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> bytes | None:
        """The next events, however long they take; None at the end."""
        while not self.closed:
            data = self.take()
            if data is None:
                if self.done:
                    return None
                if not self.behind:
                    await self.wait()
                    continue
                data = await self.fetch()
            if data:
                return data
        return None

    def close(self) -> None:
        """Leave the channel; calling it twice is harmless."""
        if not self.closed:
            self.closed = True
            self._leave()
            self.wake()
