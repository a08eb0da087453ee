"""The sources: ticks in place of PingSource's schedule, each POSTed straight to its sink.

A PingSource cannot tick faster than once a minute, a laptop should not wait so long. As there,
ticks that could not be sent are not made up for; the next one comes soon.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from infra.local.delivery import Delivery, Outcome, Sender
from infra.local.events import Event
from infra.local.manifests import DeliverySpec, PingSpec

log = logging.getLogger("rdev.sources")

# While nothing runs at all a tick has little to repair, and would be all that a laptop does.
_WHEN_QUIET = 12  # 5 s become the minute of a cluster, which nothing may expect to be less
TYPE = "dev.knative.sources.ping"
# The adapter of a PingSource retries five times.
_RETRIES = DeliverySpec(retry=5, backoff_policy="exponential", backoff_s=0.05, timeout_s=30.0)


class Ticker:
    """Sends every source's event: now, each `interval_s` after, and when `tick_now` is called."""

    def __init__(
        self,
        sources: Sequence[PingSpec],
        send: Sender,
        interval_s: float,
        quiet: Callable[[], bool] = lambda: False,
    ) -> None:
        one_at_a_time = asyncio.Semaphore(1)
        self._sinks = [
            (source, Delivery(source.sink, _RETRIES, send, one_at_a_time)) for source in sources
        ]
        self._interval_s = interval_s
        self._quiet = quiet
        self._began = 0.0
        self._asked = asyncio.Event()
        self.first = asyncio.get_running_loop().create_future()

    def tick_now(self) -> None:
        """Do not wait for the interval: something happened that a tick repairs."""
        self._asked.set()

    def activity(self) -> None:
        """Something runs again: end a pause that was long only because nothing did."""
        if asyncio.get_running_loop().time() - self._began >= self._interval_s:
            self._asked.set()

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            self._asked.clear()
            self._began = asyncio.get_running_loop().time()
            outcomes = await self.tick()
            if not self.first.done():
                self.first.set_result(outcomes)
            try:
                pause_s = self._interval_s * (_WHEN_QUIET if self._quiet() else 1)
                await asyncio.wait_for(self._asked.wait(), pause_s)
            except TimeoutError:
                continue

    async def tick(self) -> list[Outcome]:
        """Send each source's event once and return how that went."""
        outcomes = []
        for source, delivery in self._sinks:
            outcome = await delivery.deliver(_event(source))
            if not outcome.acknowledged:
                said = outcome.body.decode(errors="replace")
                log.warning("%s: its sink answered %s: %s", source.name, outcome.status, said)
            outcomes.append(outcome)
        return outcomes


def _event(source: PingSpec) -> Event:
    attributes = {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": source.source,
        "type": TYPE,
        "time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        **source.extensions,
    }
    return Event(attributes, source.data, source.content_type)
