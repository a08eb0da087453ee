"""Work that nobody waits for: done in order, by one thread, started on first use."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from common.services import telemetry

log = telemetry.logger("rdev.background")


class Background:
    """Call it with what shall be done; what that raises is logged, and the next is done."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._waiting: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def __call__(self, work: Callable[[], object]) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
        self._waiting.put(work)

    @property
    def idle(self) -> bool:
        """Nothing waits behind what is being done."""
        return self._waiting.empty()

    def close(self, timeout_s: float = 2.0) -> None:
        """Do what waits, then end."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._waiting.put(None)
            thread.join(timeout_s)

    def _run(self) -> None:
        while (work := self._waiting.get()) is not None:
            try:
                work()
            except Exception as error:  # the thread must outlive a bug: others wait behind it
                log.error("background work failed", work=self._name, exc_info=error)
