"""Port: wake-ups between processes. They only save time: a poll stands behind each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

OUTPUT: Final = "rdev_output"  # payload "<command hex> <project>": it has new events
CONTROL: Final = "rdev_control"  # payload "<command hex>": a cancel, a decision


class Signals(Protocol):
    def notify(self, channel: str, payload: str) -> None:
        """Wake who listens; never raises, a lost wake-up costs a poll."""
        ...

    def listen(self, channels: tuple[str, ...], heard: Callable[[str, str], None]) -> Listening:
        """Call `heard(channel, payload)` from a thread of its own until closed.

        Reconnects by itself; after each (re)connection it calls `heard(channel, "")` once per
        channel, since anything may have been missed.
        """
        ...


class Listening(Protocol):
    def hold(self, worker: int) -> None:
        """Hold the session's lock that says this worker is alive, also after a reconnect."""
        ...

    def close(self) -> None: ...
