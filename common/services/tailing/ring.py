"""The newest encoded events of one channel, shared by all who follow it.

There is no queue per follower: each holds only a position and takes what comes after it. Who falls
behind the ring reads the database again, so nothing is ever dropped and a slow reader holds no
memory here. Positions count events: the ring holds `first` to `head`, and `head` is the newest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

BATCH_EVENTS: Final = 64  # one send of 64 small events costs little more than one of one (measured)
BATCH_BYTES: Final = 256 * 1024  # and a stalled send should not hold more than this


_EMPTY: Final[deque[bytes]] = deque(maxlen=0)  # a deque of its own weighs 0.7 KB: not while idle


class Waiter(Protocol):
    def wake(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Encoded events up to position `upto`, joined. `last` is the last of them."""

    data: bytes
    upto: int
    last: bytes


class Ring:
    """Bounded by bytes; loop-bound: every method runs in the event loop's thread."""

    __slots__ = ("_batch", "_batch_after", "_bytes", "_items", "head", "waiting")

    def __init__(self, head: int) -> None:
        self.head = head
        self.waiting: set[Waiter] = set()
        self._items = _EMPTY
        self._bytes = 0
        self._batch: Batch | None = None
        self._batch_after = -1

    @property
    def first(self) -> int:
        """The oldest position it holds; `head + 1` when it is empty."""
        return self.head - len(self._items) + 1

    @property
    def size(self) -> int:
        """Bytes it holds."""
        return self._bytes

    def lost(self, after: int) -> bool:
        """Whether the event after this position has been here and is gone."""
        return after + 1 < self.first

    def extend(self, items: Iterable[bytes], limit: int) -> None:
        """Add the next events, let the oldest go beyond `limit` bytes, and wake who waits."""
        if self._items is _EMPTY:
            self._items = deque()
        for item in items:
            self._items.append(item)
            self._bytes += len(item)
            self.head += 1
        while self._bytes > limit:
            self._bytes -= len(self._items.popleft())
        self._batch = None
        self.wake_all()

    def jump(self, head: int) -> None:
        """Forget everything and go on after `head`."""
        self._items = _EMPTY
        self._bytes = 0
        self._batch = None
        self.head = head

    def take(self, after: int) -> Batch | None:
        """The events after a position, up to 64 at once; None when it has none of them."""
        if after >= self.head or self.lost(after):
            return None
        if self._batch is None or self._batch_after != after:
            self._batch = self._cut(after)
            self._batch_after = after
        return self._batch

    def _cut(self, after: int) -> Batch:
        start = after + 1 - self.first
        picked: list[bytes] = []
        size = 0
        for index in range(start, min(start + BATCH_EVENTS, len(self._items))):
            item = self._items[index]
            if picked and size + len(item) > BATCH_BYTES:
                break
            picked.append(item)
            size += len(item)
        return Batch(b"".join(picked), after + len(picked), picked[-1])

    def position_of(self, prefix: bytes) -> int | None:
        """The position of the newest event that starts with `prefix`."""
        for back, item in enumerate(reversed(self._items)):
            if item.startswith(prefix):
                return self.head - back
        return None

    def wake_all(self) -> None:
        for waiter in tuple(self.waiting):
            waiter.wake()
