"""Ports: webhooks as their owners manage them, the queue of deliveries, and how one is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol
from uuid import UUID

from common.domain.keys import Caller
from common.domain.webhooks import Answer, Delivery, Endpoint, Message, Payload
from common.ports.commands import Idempotency, Origin

# A batch ends after BATCH_S; one slow answer more, and it is still within the lease.
LEASE_S: Final = 45.0
BATCH_S: Final = 15.0


@dataclass(frozen=True)
class CreatedEndpoint:
    """A stored endpoint; `replayed` when an earlier request with its Idempotency-Key made it."""

    endpoint: Endpoint
    replayed: bool


@dataclass(frozen=True)
class DeliveryFilter:
    """Which deliveries to list: newest first, below `before`. Times are those of the events."""

    states: Sequence[str] = ()
    types: Sequence[str] = ()
    since: datetime | None = None
    until: datetime | None = None
    before: UUID | None = None
    limit: int = 50


@dataclass(frozen=True)
class Range:
    """What happened in [since, until); with `everything`, what was delivered too."""

    since: datetime
    until: datetime
    everything: bool = False


@dataclass(frozen=True)
class Sent:
    """A delivery as it is shown alone: with the message, and with what was answered."""

    delivery: Delivery
    message: Message
    payload: Payload


class WebhookStore(Protocol):
    def create(
        self,
        endpoint: Endpoint,
        sealed_headers: bytes | None,
        sealed_secret: bytes,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None,
    ) -> CreatedEndpoint:
        """Raises Conflict when its key has as many as it may, and for Idempotency-Keys."""
        ...

    def get(self, endpoint_id: UUID) -> Endpoint | None: ...

    def update(
        self,
        endpoint_id: UUID,
        changes: dict[str, Any],
        sealed_headers: bytes | None,
        caller: Caller,
        origin: Origin,
    ) -> bool:
        """Change the fields given: those of Endpoint, and `enabled`; False: there is none.

        `sealed_headers` replaces the headers when `header_names` is among the changes.
        """
        ...

    def delete(self, endpoint_id: UUID, caller: Caller, origin: Origin) -> bool: ...

    def rotate(
        self,
        endpoint_id: UUID,
        sealed_secret: bytes,
        grace_s: int,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None,
    ) -> str:
        """A new secret; the older ones go on for `grace_s`: ok, replay or unknown."""
        ...

    def ping(self, endpoint_id: UUID, caller: Caller, origin: Origin) -> UUID | None:
        """A delivery of a ping, due at once; None when the endpoint is disabled."""
        ...

    def redeliver(
        self, endpoint_id: UUID, delivery_id: UUID, caller: Caller, origin: Origin
    ) -> bool:
        """Begin the schedule of a delivery anew; False when it is not this endpoint's."""
        ...

    def recover(self, endpoint_id: UUID, wanted: Range, caller: Caller, origin: Origin) -> int:
        """Send what was not delivered of a range, also what was missed while it was disabled.

        Answers how many deliveries those are.
        """
        ...

    def deliveries(self, endpoint_id: UUID, wanted: DeliveryFilter) -> list[Delivery]:
        """Newest first, their attempts oldest first and without what was answered."""
        ...

    def delivery(self, endpoint_id: UUID, delivery_id: UUID) -> Sent | None: ...

    def list(self, before: UUID | None, limit: int) -> list[Endpoint]:
        """Newest first."""
        ...


@dataclass(frozen=True)
class Due:
    """An endpoint with something to send in `in_s` seconds. `failing`: its last attempt failed."""

    endpoint_id: UUID
    in_s: float
    failing: bool


@dataclass(frozen=True)
class Claimed:
    """A delivery under a lease. `tries`: attempts that were made before in this schedule."""

    id: UUID
    token: int
    tries: int
    message: Message


@dataclass(frozen=True)
class Target:
    """Where to and with what to send; secrets newest first. `failures`: in a row until now."""

    url: str
    payload: Payload
    failures: int
    sealed_headers: bytes | None
    sealed_secrets: tuple[bytes, ...]


@dataclass(frozen=True)
class Made:
    """An attempt that was made `ago_s` seconds ago, and what follows from it.

    `retry_in_s` None: there is no other. `rest_s`: how long the endpoint is left alone.
    """

    claimed: Claimed
    answer: Answer
    ago_s: float
    retry_in_s: float | None
    rest_s: float


class DeliveryQueue(Protocol):
    def fan_out(self, limit: int) -> int:
        """Turn at most `limit` kept events into deliveries; answers how many events."""
        ...

    def due(self, horizon_s: float) -> list[Due]:
        """Endpoints with something to send within `horizon_s`, soonest first."""
        ...

    def claim(self, endpoint_id: UUID, limit: int) -> list[Claimed]:
        """Take due deliveries under a lease of LEASE_S; of a failing endpoint a single one."""
        ...

    def target(self, endpoint_id: UUID) -> Target | None: ...

    def record(self, endpoint_id: UUID, made: Sequence[Made]) -> UUID | None:
        """Write attempts down; a stale lease changes no delivery.

        Answers the outbox id of `webhook.disabled` when they disabled the endpoint: it said 410, or
        has failed for FAILING_FOR.
        """
        ...

    def release(self, claimed: Sequence[Claimed]) -> None:
        """Give back what was not sent."""
        ...


class Courier(Protocol):
    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """POST once, guarded, within TIMEOUT_S; never raises for what a receiver does."""
        ...

    def sign(self, secret: bytes, name: str, at: datetime, body: bytes) -> str:
        """One signature as Standard Webhooks writes it: `v1,<base64>`."""
        ...

    def check(self, url: str) -> None:
        """Raise InvalidField when it may not be connected to as things are now."""
        ...


class SenderBell(Protocol):
    def ring(self) -> None:
        """Tell the sender directly (not through the broker) to look. Never raises."""
        ...
