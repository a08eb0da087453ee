"""What happens to one event on its way to one subscriber: send, retry, dead letter.

The rules are those of Knative's dispatcher (`pkg/kncloudevents` of knative/eventing): retried are
404, 408, 409, 429, 5xx and whatever has no answer; a 2xx with a body that is no event is a failure;
everything else is final.
`knativeerrordata` is base64 and cut at 1024 bytes.
"""

import asyncio
import base64
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Protocol

from infra.local import events
from infra.local.events import Event, EventError
from infra.local.manifests import DeliverySpec, Destination
from infra.local.wire import Headers

log = logging.getLogger("rdev.broker")

# Knative's in-memory channel sets none; Kafka's dispatcher waits this long.
DEFAULT_TIMEOUT_S = 600.0
_ERROR_DATA_MAX = 1024
_RETRIED = frozenset({404, 408, 409, 429})
_RETRY_AFTER = frozenset({429, 503})
_NO_ANSWER = 500  # what the dispatcher writes into knativeerrorcode when there was no answer
_BAD_REPLY = 502  # what the broker's filter makes of a reply that is no event


@dataclass(frozen=True)
class Response:
    """A subscriber's whole answer."""

    status: int
    headers: Headers
    body: bytes


class Sender(Protocol):
    """POSTs an event; raises OSError or TimeoutError when there is no answer."""

    async def __call__(
        self, destination: Destination, headers: Headers, body: bytes, timeout_s: float
    ) -> Response: ...


@dataclass(frozen=True)
class Outcome:
    """How a delivery ended: with an acknowledgement (and perhaps a reply), or with an error."""

    status: int
    acknowledged: bool
    retried_after_s: float | None = None  # what Retry-After asked for
    body: bytes = b""
    reply: Event | None = None

    @property
    def retryable(self) -> bool:
        return not self.acknowledged and (self.status in _RETRIED or self.status >= 500)


class Delivery:
    """Delivers events to one subscriber as its `spec.delivery` says."""

    def __init__(
        self,
        destination: Destination,
        spec: DeliverySpec,
        send: Sender,
        slots: asyncio.Semaphore,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._destination = destination
        self._spec = spec
        self._send = send
        self._slots = slots
        self._sleep = sleep

    async def deliver(self, event: Event) -> Outcome:
        """Send an event until it is taken, refused or out of retries; then dead-letter it."""
        outcome = await self._attempts(self._destination, event)
        if outcome.acknowledged or self._spec.dead_letter is None:
            return outcome
        letter = event.extended(
            knativeerrordest=str(self._destination),
            knativeerrorcode=str(outcome.status),
            knativeerrordata=base64.b64encode(outcome.body).decode()[:_ERROR_DATA_MAX],
        )
        buried = await self._attempts(self._spec.dead_letter, letter)
        if not buried.acknowledged:
            log.error(
                "event %s is lost: %s answered %s, the dead letter sink %s",
                event.attributes["id"],
                self._destination,
                outcome.status,
                buried.status,
            )
        return outcome

    async def _attempts(self, destination: Destination, event: Event) -> Outcome:
        for attempt in range(self._spec.retry + 1):
            async with self._slots:  # a delivery that waits for its next attempt holds none
                outcome = await self._attempt(destination, event)
            if not outcome.retryable or attempt == self._spec.retry:
                break
            await self._sleep(self.pause_s(attempt, outcome))
        return outcome

    async def _attempt(self, destination: Destination, event: Event) -> Outcome:
        headers = [(b"prefer", b"reply"), (b"kn-namespace", b"rdev"), *event.to_binary()]
        timeout_s = self._spec.timeout_s or DEFAULT_TIMEOUT_S
        try:
            response = await self._send(destination, headers, event.data, timeout_s)
        except (OSError, TimeoutError) as error:
            reason = f"dispatch error: {error or type(error).__name__}"
            return Outcome(_NO_ANSWER, acknowledged=False, body=reason.encode())
        return judge(response)

    def pause_s(self, attempt: int, outcome: Outcome) -> float:
        """Return how long to wait after failed attempt number `attempt`, counted from 0."""
        spec = self._spec
        factor = 2**attempt if spec.backoff_policy == "exponential" else attempt
        backoff_s = spec.backoff_s * factor
        asked_s = outcome.retried_after_s or 0.0
        if spec.retry_after_max_s is not None:
            asked_s = min(asked_s, spec.retry_after_max_s)
        return max(backoff_s, asked_s)


def judge(response: Response) -> Outcome:
    """Read a subscriber's answer as Knative does."""
    status = response.status
    if not 200 <= status < 300:
        asked_s = _retry_after_s(response.headers) if status in _RETRY_AFTER else None
        return Outcome(status, acknowledged=False, retried_after_s=asked_s, body=response.body)
    if not response.body and not events.is_event(response.headers):
        return Outcome(status, acknowledged=True)
    try:
        reply = events.parse(response.headers, response.body)
    except EventError:
        return Outcome(_BAD_REPLY, acknowledged=False, body=response.body)
    # Only a 200 carries a reply; an event in a 202 is accepted and goes nowhere.
    return Outcome(status, acknowledged=True, reply=reply if status == 200 else None)


def _retry_after_s(headers: Headers) -> float | None:
    """Read Retry-After: seconds, or a date."""
    text = dict(headers).get(b"retry-after", b"").decode("latin-1").strip()
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None
