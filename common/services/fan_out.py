"""Use case: what happened becomes deliveries, one for every endpoint that wants to hear of it.

The event that rings here is not read: it says "look", and what is looked at are the rows that the
change left in its own transaction. A forged event finds nothing, and on_tick finds what a lost one
left lying.
"""

from __future__ import annotations

from typing import Final

from common.ports.webhooks import DeliveryQueue, SenderBell
from common.services import telemetry

AT_ONCE: Final = 200


class FanOut:
    def __init__(self, queue: DeliveryQueue, bell: SenderBell) -> None:
        self._queue = queue
        self._bell = bell

    def __call__(self) -> int:
        """Make deliveries of what is left, and tell the sender; answers how many events."""
        done = self._all()
        if done:
            self._bell.ring()
        return done

    def repair(self) -> None:
        """For on_tick: also what is due, and nobody sends."""
        left = self._all()
        telemetry.tick_rescued.add(left, {"cause": "fan_out"})
        if left or self._queue.due(0.0):
            self._bell.ring()

    def _all(self) -> int:
        total = 0
        while done := self._queue.fan_out(AT_ONCE):
            total += done
        return total
