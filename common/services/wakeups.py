"""Use case: tell streams that a command has news, but not more often than it helps.

NOTIFY takes a database-wide lock at commit, so output wakes at most once per 100 ms and command and
20 times a second per process; the first output and every state change wake at once. What is left
out is found by the poll behind the wake-up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

from common.ports import signals
from common.ports.signals import Signals

PER_COMMAND_S: Final = 0.1
PER_PROCESS: Final = 20


def _at_once(work: Callable[[], object]) -> None:
    work()


class Wakeups:
    """Throttled notifications of one process; `later` sends them without anybody waiting."""

    def __init__(
        self, sender: Signals, later: Callable[[Callable[[], object]], object] = _at_once
    ) -> None:
        self._signals = sender
        self._later = later
        self._last: dict[UUID, float] = {}
        self._tokens = float(PER_PROCESS)
        self._refilled = time.monotonic()
        self._lock = threading.Lock()

    def news(self, command_id: UUID, project: str) -> None:
        """A command has new output."""
        if self._may(command_id):
            self.state(command_id, project)

    def state(self, command_id: UUID, project: str) -> None:
        """A command changed its state: always said."""
        payload = f"{command_id.hex} {project}"
        self._later(lambda: self._signals.notify(signals.OUTPUT, payload))

    def control(self, command_id: UUID) -> None:
        """A cancel or a decision: the runner that follows the command listens."""
        self._later(lambda: self._signals.notify(signals.CONTROL, command_id.hex))

    def forget(self, command_id: UUID) -> None:
        """A command has ended."""
        with self._lock:
            self._last.pop(command_id, None)

    def _may(self, command_id: UUID) -> bool:
        now = time.monotonic()
        with self._lock:
            self._tokens = min(PER_PROCESS, self._tokens + (now - self._refilled) * PER_PROCESS)
            self._refilled = now
            last = self._last.get(command_id)  # the first output is always said
            if last is not None and (now - last < PER_COMMAND_S or self._tokens < 1):
                return False
            self._tokens -= 1
            self._last[command_id] = now
            return True
