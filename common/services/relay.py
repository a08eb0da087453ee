"""Use case: events leave the house. Rows first; publishing them is a courtesy that may fail.

After a commit the same process publishes its own rows in the background. What it could not publish
stays in the outbox for whoever publishes next, and for on_tick. A response never waits for a
broker.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from uuid import UUID

from common.domain.errors import Unavailable
from common.ports.outbox import Outbox, OutgoingEvent, Publisher
from common.services import telemetry
from common.services.background import Background

FAILURES_BEFORE_REST = 5
REST_S = 10.0
LEFTOVERS = 50
MOMENT_S = 0.2

log = telemetry.logger("rdev.relay")


class Relay:
    """Publishes outbox rows from one background thread, started on first use."""

    def __init__(self, outbox: Outbox, publisher: Publisher) -> None:
        self._outbox = outbox
        self._publisher = publisher
        self._later = Background("relay")
        self._failures = 0
        self._rests_until = 0.0

    def soon(self, *ids: UUID | None) -> None:
        """Publish these rows in the background; returns at once."""
        wanted = [i for i in ids if i is not None]
        if wanted:
            self._later(lambda: self._own(wanted))

    def presently(self, *ids: UUID | None) -> None:
        """Publish these rows in a moment: nobody acts on them, and a first output byte is due."""
        timer = threading.Timer(MOMENT_S, self.soon, ids)
        timer.daemon = True
        timer.start()

    def close(self, timeout_s: float = 2.0) -> None:
        """Publish what is waiting, then stop."""
        self._later.close(timeout_s)

    def leftovers(self) -> int:
        """Publish what others left behind; answers how many went. Raises Unavailable."""
        return self._publish(self._outbox.take_left(LEFTOVERS))

    def _own(self, ids: list[UUID]) -> None:
        if self._resting:
            return
        try:
            if self._publish(self._outbox.take(ids)) and self._later.idle:
                self.leftovers()
        except Unavailable as error:
            log.warning("outbox unreadable", err_type=type(error).__name__, detail=error.detail)

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
