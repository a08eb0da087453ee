"""The broker: takes events at its ingress and delivers each to the triggers whose filter matches.

It keeps events in memory: a SIGKILL loses those in flight, which costs latency only, because the
outbox and the tick send or repair what was lost. Deliveries run at once and in no promised order,
as on Knative's in-memory channel; an event waiting for its next attempt holds up no other.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from infra.local import events
from infra.local.delivery import Delivery, Sender
from infra.local.events import Event, EventError
from infra.local.faults import Faults
from infra.local.manifests import TriggerSpec
from infra.local.wire import HttpError, Reply, Request

log = logging.getLogger("rdev.broker")

MAX_EVENT_BYTES = 1024 * 1024  # Kafka's default, the smallest limit an event meets in a cluster
MAX_PENDING = 10_000  # deliveries that wait or run; beyond it the ingress answers 429
_MAX_HOPS = 255  # how often a reply may cause a reply, as the in-memory broker's TTL
_CONCURRENT = 100  # deliveries of one trigger under way at once


@dataclass
class Counts:
    """What the broker did since it started."""

    accepted: int = 0
    delivered: int = 0
    failed: int = 0


class Broker:
    """One broker with its triggers."""

    def __init__(
        self,
        triggers: Sequence[TriggerSpec],
        send: Sender,
        *,
        on_event: Callable[[Event], None] | None = None,
        faults: Faults | None = None,
    ) -> None:
        self.counts = Counts()
        self._on_event = on_event
        self._faults = faults
        self._tasks: set[asyncio.Task[None]] = set()
        self._routes = [
            (trigger, Delivery(trigger.subscriber, trigger.delivery, send, slots))
            for trigger in triggers
            for slots in [asyncio.Semaphore(_CONCURRENT)]
        ]

    @property
    def pending(self) -> int:
        return len(self._tasks)

    async def ingress(self, request: Request, reply: Reply) -> None:
        """Accept an event with 202; refuse what is none (400), too long (413) or too much (429)."""
        if request.method == "OPTIONS":
            reply.send(200, [(b"allow", b"POST, OPTIONS")], b"")
            return
        if request.method != "POST":
            raise HttpError(
                405, "method_not_allowed", "events are POSTed", {"Allow": "POST, OPTIONS"}
            )
        body = await request.body.read_all(MAX_EVENT_BYTES)
        try:
            event = events.parse(request.headers, body)
        except EventError as error:
            raise HttpError(400, "invalid_request", str(error)) from error
        if self.pending >= MAX_PENDING:
            detail = f"{MAX_PENDING} deliveries are pending"
            raise HttpError(429, "rate_limited", detail, {"Retry-After": "1"})
        self.publish(event)
        reply.send(202, [], b"")

    def publish(self, event: Event, hops: int = 0) -> None:
        """Deliver an event to every trigger that wants it, in the background."""
        self.counts.accepted += 1
        stamped = event.extended(knativearrivaltime=_now())
        if self._on_event is not None:
            self._on_event(stamped)
        for trigger, delivery in self._routes:
            if trigger.filter(_filterable(stamped)):
                for late_s in self._faults.fates() if self._faults else (0.0,):
                    self._run(delivery, stamped, hops, late_s)

    async def close(self) -> None:
        """Drop what is pending: the outbox and the tick will see to it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _run(self, delivery: Delivery, event: Event, hops: int, late_s: float) -> None:
        work = self._deliver(delivery, event, hops, late_s)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, delivery: Delivery, event: Event, hops: int, late_s: float) -> None:
        if late_s:
            await asyncio.sleep(late_s)
        try:
            outcome = await delivery.deliver(event)
        except Exception:
            log.exception("delivering event %s failed in the broker", event.attributes["id"])
            raise
        if not outcome.acknowledged:
            self.counts.failed += 1
            return
        self.counts.delivered += 1
        if outcome.reply is None:
            return
        if hops >= _MAX_HOPS:
            log.error("event %s: %s replies in a row, dropped", event.attributes["id"], hops)
            return
        self.publish(outcome.reply, hops + 1)


def _filterable(event: Event) -> Mapping[str, str]:
    """Filters see the content type under its attribute's name."""
    if event.content_type is None:
        return event.attributes
    return {**event.attributes, "datacontenttype": event.content_type}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
