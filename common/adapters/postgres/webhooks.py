"""WebhookStore and DeliveryQueue on PostgreSQL."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from common.adapters.postgres import rows
from common.adapters.postgres.connection import Row
from common.adapters.postgres.parameters import jsonb, printable
from common.adapters.postgres.pool import Database
from common.domain.errors import Conflict
from common.domain.identifiers import new_id
from common.domain.keys import Caller
from common.domain.webhooks import (
    FAILING_FOR,
    Attempt,
    Delivery,
    DeliveryState,
    Endpoint,
    Message,
    Payload,
)
from common.ports.commands import Idempotency, Origin
from common.ports.webhooks import (
    LEASE_S,
    Claimed,
    CreatedEndpoint,
    DeliveryFilter,
    Due,
    Made,
    Range,
    Sent,
    Target,
)


class PgWebhookStore:
    """Endpoints and their deliveries, as their owners see and change them."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def create(
        self,
        endpoint: Endpoint,
        sealed_headers: bytes | None,
        sealed_secret: bytes,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None,
    ) -> CreatedEndpoint:
        answer = self._db.one(
            "webhook_create",
            webhook=_as_json(endpoint),
            headers=sealed_headers,
            secret=sealed_secret,
            audit=rows.audit(caller, origin),
            idempotency=rows.idempotency(idempotency),
        )
        assert answer is not None
        rows.refuse_idempotency(answer["status"])
        if answer["status"] == "too_many":
            raise Conflict("this key has as many webhooks as it may; delete one that nobody needs")
        stored = self.get(answer["webhook_id"])
        if stored is None:  # a replay of one that was deleted meanwhile
            raise Conflict("the webhook of this Idempotency-Key was deleted")
        return CreatedEndpoint(stored, replayed=answer["status"] == "replay")

    def get(self, endpoint_id: UUID) -> Endpoint | None:
        row = self._db.one("webhook_get", id=endpoint_id)
        return _endpoint(row) if row else None

    def update(
        self,
        endpoint_id: UUID,
        changes: dict[str, Any],
        sealed_headers: bytes | None,
        caller: Caller,
        origin: Origin,
    ) -> bool:
        return self._known(
            "webhook_update",
            id=endpoint_id,
            changes=jsonb({name: _plain(value) for name, value in changes.items()}),
            headers=sealed_headers,
            audit=rows.audit(caller, origin),
        )

    def delete(self, endpoint_id: UUID, caller: Caller, origin: Origin) -> bool:
        return self._known("webhook_delete", id=endpoint_id, audit=rows.audit(caller, origin))

    def rotate(
        self,
        endpoint_id: UUID,
        sealed_secret: bytes,
        grace_s: int,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None,
    ) -> str:
        answer = self._db.one(
            "webhook_rotate",
            id=endpoint_id,
            secret=sealed_secret,
            grace_s=grace_s,
            audit=rows.audit(caller, origin),
            idempotency=rows.idempotency(idempotency),
        )
        assert answer is not None
        rows.refuse_idempotency(answer["status"])
        return str(answer["status"])

    def ping(self, endpoint_id: UUID, caller: Caller, origin: Origin) -> UUID | None:
        answer = self._db.one(
            "webhook_ping",
            id=endpoint_id,
            event=new_id(),
            delivery=new_id(),
            audit=rows.audit(caller, origin),
        )
        assert answer is not None
        delivery: UUID | None = answer["delivery_id"]
        return delivery

    def redeliver(
        self, endpoint_id: UUID, delivery_id: UUID, caller: Caller, origin: Origin
    ) -> bool:
        return self._known(
            "webhook_redeliver",
            id=endpoint_id,
            delivery=delivery_id,
            audit=rows.audit(caller, origin),
        )

    def recover(self, endpoint_id: UUID, wanted: Range, caller: Caller, origin: Origin) -> int:
        answer = self._db.one(
            "webhook_recover",
            id=endpoint_id,
            since=wanted.since,
            until=wanted.until,
            everything=wanted.everything,
            audit=rows.audit(caller, origin),
        )
        assert answer is not None
        return int(answer["recovered"])

    def deliveries(self, endpoint_id: UUID, wanted: DeliveryFilter) -> list[Delivery]:
        found = self._db.run(
            "delivery_list",
            endpoint=endpoint_id,
            before=wanted.before or rows.HIGHEST_ID,
            states=list(wanted.states),
            event_types=list(wanted.types),
            since=wanted.since,
            until=wanted.until,
            limit=wanted.limit,
        )
        attempts = self._attempts([row["id"] for row in found], response=False)
        return [_delivery(row, attempts.get(row["id"], ())) for row in found]

    def delivery(self, endpoint_id: UUID, delivery_id: UUID) -> Sent | None:
        row = self._db.one("delivery_get", id=delivery_id, endpoint=endpoint_id)
        if row is None:
            return None
        attempts = self._attempts([delivery_id], response=True).get(delivery_id, ())
        message = Message(
            row["event_id"], row["event_type"], row["event_at"], row["data"], row["facts"]
        )
        return Sent(_delivery(row, attempts), message, Payload(row["payload"]))

    def list(self, before: UUID | None, limit: int) -> list[Endpoint]:
        found = self._db.run("webhook_list", before=before or rows.HIGHEST_ID, limit=limit)
        return [_endpoint(row) for row in found]

    def _attempts(self, ids: Sequence[UUID], *, response: bool) -> dict[UUID, tuple[Attempt, ...]]:
        found: dict[UUID, tuple[Attempt, ...]] = {}
        if ids:
            for row in self._db.run("delivery_attempts", ids=list(ids), response=response):
                found[row["delivery_id"]] = (*found.get(row["delivery_id"], ()), _attempt(row))
        return found

    def _known(self, query: str, **parameters: Any) -> bool:
        answer = self._db.one(query, **parameters)
        return bool(answer and answer["known"])


class PgDeliveryQueue:
    """Deliveries as those who send see them."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def fan_out(self, limit: int) -> int:
        return int(self._db.run("webhook_fan_out", limit=limit)[0]["events"])

    def due(self, horizon_s: float) -> list[Due]:
        return [
            Due(row["endpoint_id"], row["in_s"], row["failing"])
            for row in self._db.run("webhooks_due", horizon_s=horizon_s)
        ]

    def claim(self, endpoint_id: UUID, limit: int) -> list[Claimed]:
        found = self._db.run("deliveries_claim", endpoint=endpoint_id, limit=limit, lease_s=LEASE_S)
        return [
            Claimed(
                row["id"],
                row["token"],
                row["tries"],
                Message(row["event_id"], row["type"], row["at"], row["data"], row["facts"]),
            )
            for row in found
        ]

    def target(self, endpoint_id: UUID) -> Target | None:
        row = self._db.one("webhook_target", id=endpoint_id)
        if row is None:
            return None
        return Target(
            row["url"],
            Payload(row["payload"]),
            row["failures"],
            row["headers_sealed"],
            tuple(row["secrets"]),
        )

    def record(self, endpoint_id: UUID, made: Sequence[Made]) -> UUID | None:
        answer = self._db.one(
            "attempts_record",
            endpoint=endpoint_id,
            attempts=jsonb([_made(one) for one in made]),
            failing_for_s=FAILING_FOR.total_seconds(),
            event=new_id(),
        )
        assert answer is not None
        event: UUID | None = answer["disabled"]
        return event

    def release(self, claimed: Sequence[Claimed]) -> None:
        if claimed:
            self._db.run(
                "deliveries_release",
                ids=[one.id for one in claimed],
                tokens=[one.token for one in claimed],
            )


def _endpoint(row: Row) -> Endpoint:
    return Endpoint(
        id=row["id"],
        key_id=row["key_id"],
        url=row["url"],
        payload=Payload(row["payload"]),
        created_at=row["created_at"],
        description=row["description"],
        event_types=_set(row["event_types"]),
        projects=_set(row["projects"]),
        header_names=tuple(row["header_names"]),
        disabled_at=row["disabled_at"],
        disabled_reason=row["disabled_reason"],
        failing_since=row["failing_since"],
    )


def _set(values: Sequence[str] | None) -> frozenset[str] | None:
    return None if values is None else frozenset(values)


def _as_json(endpoint: Endpoint) -> str:
    return jsonb(
        {
            "id": str(endpoint.id),
            "url": endpoint.url,
            "description": endpoint.description,
            "event_types": _plain(endpoint.event_types),
            "projects": _plain(endpoint.projects),
            "payload": str(endpoint.payload),
            "header_names": list(endpoint.header_names),
        }
    )


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, frozenset) else value


def _delivery(row: Row, attempts: tuple[Attempt, ...]) -> Delivery:
    return Delivery(
        row["id"],
        row["endpoint_id"],
        row["event_id"],
        row["event_type"],
        row["project"],
        DeliveryState(row["state"]),
        row["created_at"],
        row["next_at"],
        attempts,
    )


def _attempt(row: Row) -> Attempt:
    return Attempt(
        row["at"], row["status"], row["duration_ms"], row["error"], row["response"] or b""
    )


def _made(one: Made) -> dict[str, Any]:
    answer = one.answer
    return {
        "id": str(one.claimed.id),
        "token": one.claimed.token,
        "ago_s": one.ago_s,
        "status": answer.status,
        "duration_ms": answer.duration_ms,
        "error": printable(answer.error) if answer.error is not None else None,
        "response": base64.b64encode(answer.head).decode(),
        "retry_in_s": one.retry_in_s,
        "rest_s": one.rest_s,
        "gone": answer.gone,
    }
