"""Use case: work that is due soon is kept in the process that made it.

A tick comes once a minute in a cluster, so whoever schedules a command for the next 90 s promotes
it itself when the time comes. If the process dies before, on_tick does it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime

from common.services import telemetry

KEEP_S = 90.0
log = telemetry.logger("rdev.timers")


class Timers:
    """Calls `promote` when something scheduled in this process becomes due."""

    def __init__(self, promote: Callable[[], object]) -> None:
        self._promote = promote

    def due_at(self, at: datetime) -> None:
        """Promote at `at`, if that is within 90 s; else on_tick will."""
        wait = (at - datetime.now(UTC)).total_seconds()
        if wait <= KEEP_S:
            # A little late rather than early: the database's clock decides what is due.
            timer = threading.Timer(max(0.0, wait) + 0.02, self._fire)
            timer.daemon = True
            timer.start()

    def _fire(self) -> None:
        try:
            self._promote()
        except Exception as error:  # a thread's last stop: on_tick repairs, but it must be seen
            log.warning("promotion failed, the tick will repeat it", exc_info=error)
