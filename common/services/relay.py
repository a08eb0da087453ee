"""Use case: events leave the house. Rows first; publishing them is a courtesy that may fail.

After a commit the same process publishes its own rows in the background. What it could not publish
stays in the outbox for whoever publishes next, and for on_tick. A response never waits for a
broker.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from uuid import UUID

from common.domain.errors import Unavailable
from common.ports.outbox import Outbox, OutgoingEvent, Publisher
from common.services import telemetry

FAILURES_BEFORE_REST = 5
REST_S = 10.0
LEFTOVERS = 50

log = telemetry.logger("rdev.relay")


class Relay:
    """Publishes outbox rows from one background thread, started on first use."""

    def __init__(self, outbox: Outbox, publisher: Publisher) -> None:
        self._outbox = outbox
        self._publisher = publisher
        self._waiting: queue.SimpleQueue[list[UUID] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._start_lock = threading.Lock()
        self._failures = 0
        self._rests_until = 0.0

    def soon(self, *ids: UUID | None) -> None:
        """Publish these rows in the background; returns at once."""
        wanted = [i for i in ids if i is not None]
        if not wanted:
            return
        with self._start_lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
                self._thread.start()
        self._waiting.put(wanted)

    def close(self, timeout_s: float = 2.0) -> None:
        """Publish what is waiting, then stop."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join(timeout_s)
            self._thread = None

    def leftovers(self) -> int:
        """Publish what others left behind; answers how many went. Raises Unavailable."""
        return self._publish(self._outbox.take_left(LEFTOVERS))

    def _run(self) -> None:
        while (ids := self._waiting.get()) is not None:
            if self._resting:
                continue
            try:
                if self._publish(self._outbox.take(ids)) and self._waiting.empty():
                    self.leftovers()
            except Unavailable as error:
                log.warning("outbox unreadable", err_type=type(error).__name__, detail=error.detail)
            except Exception as error:  # the thread must outlive a bug: nobody would start another
                log.error("relay failed", exc_info=error)

    def _publish(self, events: Sequence[OutgoingEvent]) -> int:
        """A broker that does not answer takes 1 s an event: after 5 failures the others stay."""
        sent = []
        for event in events:
            if self._one(event):
                sent.append(event.id)
            elif self._resting:
                break
        if sent:
            self._outbox.sent(sent)
        return len(sent)

    @property
    def _resting(self) -> bool:
        return time.monotonic() < self._rests_until

    def _one(self, event: OutgoingEvent) -> bool:
        try:
            self._publisher.publish(event)
        except Unavailable as error:
            self._failures += 1
            if self._failures >= FAILURES_BEFORE_REST:
                self._failures = 0
                self._rests_until = time.monotonic() + REST_S
            log.warning("event not published", event_id=str(event.id), detail=error.detail)
            return False
        self._failures = 0
        return True
