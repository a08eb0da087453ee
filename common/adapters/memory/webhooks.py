"""WebhookStore and DeliveryQueue in dicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from common.adapters.memory.state import DeliveryRow, HeardRow, MemoryState, WebhookRow, storable
from common.domain.errors import Conflict
from common.domain.identifiers import WEBHOOK, new_id, show
from common.domain.keys import Caller
from common.domain.webhooks import (
    FAILING_FOR,
    PING,
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

MOST: Final = 100  # endpoints of one key
_OPEN: Final = (DeliveryState.PENDING, DeliveryState.FAILED)


class MemoryWebhookStore:
    """Endpoints and their deliveries, as their owners see and change them."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    def create(
        self,
        endpoint: Endpoint,
        sealed_headers: bytes | None,
        sealed_secret: bytes,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None,
    ) -> CreatedEndpoint:
        with self._state.lock:
            first = self._state.replayed(caller, idempotency)
            if first is not None:
                stored = self.get(first)
                if stored is None:
                    raise Conflict("the webhook of this Idempotency-Key was deleted")
                return CreatedEndpoint(stored, replayed=True)
            mine = [r for r in self._live() if r.endpoint.key_id == caller.key_id]
            if len(mine) >= MOST:
                raise Conflict("this key has as many webhooks as it may; delete one")
            storable(endpoint.url, endpoint.description)
            made = replace(endpoint, key_id=caller.key_id, created_at=self._state.clock())
            self._state.webhooks[made.id] = WebhookRow(
                made, sealed_headers, [(sealed_secret, None)]
            )
            self._record(caller, origin, "created", made.id)
            self._state.remember(caller, idempotency, made.id)
            return CreatedEndpoint(made, replayed=False)

    def get(self, endpoint_id: UUID) -> Endpoint | None:
        with self._state.lock:
            row = self._row(endpoint_id)
            return row.endpoint if row else None

    def update(
        self,
        endpoint_id: UUID,
        changes: dict[str, Any],
        sealed_headers: bytes | None,
        caller: Caller,
        origin: Origin,
    ) -> bool:
        with self._state.lock:
            row = self._row(endpoint_id)
            if row is None:
                return False
            fields = {n: _STORED.get(n, _same)(v) for n, v in changes.items() if n != "enabled"}
            row.endpoint = replace(row.endpoint, **fields)
            if "header_names" in changes:
                row.sealed_headers = sealed_headers
            self._enable(row, enabled=changes.get("enabled"))
            self._record(caller, origin, "updated", endpoint_id)
            return True

    def _enable(self, row: WebhookRow, *, enabled: bool | None) -> None:
        if enabled:
            row.failures, row.rests_until = 0, None
            row.endpoint = replace(
                row.endpoint, disabled_at=None, disabled_reason=None, failing_since=None
            )
        elif enabled is False and row.endpoint.disabled_at is None:
            row.endpoint = replace(
                row.endpoint, disabled_at=self._state.clock(), disabled_reason="user"
            )

    def delete(self, endpoint_id: UUID, caller: Caller, origin: Origin) -> bool:
        with self._state.lock:
            row = self._row(endpoint_id)
            if row is None:
                return False
            row.deleted_at, row.sealed_headers, row.secrets = self._state.clock(), None, []
            self._record(caller, origin, "deleted", endpoint_id)
            return True

    def rotate(
        self,
        endpoint_id: UUID,
        sealed_secret: bytes,
        grace_s: int,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None,
    ) -> str:
        with self._state.lock:
            if self._state.replayed(caller, idempotency) is not None:
                return "replay"
            row = self._row(endpoint_id)
            if row is None:
                return "unknown"
            now = self._state.clock()
            end = now + timedelta(seconds=grace_s)
            kept = [(s, min(at or end, end)) for s, at in row.secrets if at is None or at > now]
            row.secrets = [(sealed_secret, None), *kept]
            self._record(caller, origin, "rotated", endpoint_id)
            self._state.remember(caller, idempotency, endpoint_id)
            return "ok"

    def ping(self, endpoint_id: UUID, caller: Caller, origin: Origin) -> UUID | None:
        with self._state.lock:
            row = self._row(endpoint_id)
            if row is None or row.endpoint.disabled_at is not None:
                return None
            now = self._state.clock()
            message = Message(new_id(), PING, now, {"id": show(WEBHOOK, endpoint_id)})
            self._state.heard[message.id] = HeardRow(message, None, fanned=True)
            made = _add(self._state, endpoint_id, message.id)
            self._record(caller, origin, "pinged", endpoint_id)
            return made.id

    def redeliver(
        self, endpoint_id: UUID, delivery_id: UUID, caller: Caller, origin: Origin
    ) -> bool:
        with self._state.lock:
            row = self._state.deliveries.get(delivery_id)
            if row is None or row.endpoint_id != endpoint_id:
                return False
            self._again(row)
            self._record(caller, origin, "redelivered", endpoint_id)
            return True

    def recover(self, endpoint_id: UUID, wanted: Range, caller: Caller, origin: Origin) -> int:
        with self._state.lock:
            inside = [
                r for r in self._state.heard.values() if wanted.since <= r.message.at < wanted.until
            ]
            there = {
                r.event_id: r
                for r in self._state.deliveries.values()
                if r.endpoint_id == endpoint_id
            }
            endpoint = self._state.webhooks[endpoint_id]
            count = 0
            for heard in inside:
                row = there.get(heard.message.id)
                if row is None and heard.fanned and hears(self._state, endpoint, heard):
                    _add(self._state, endpoint_id, heard.message.id)
                    count += 1
                elif row is not None and (
                    row.state in (DeliveryState.FAILED, DeliveryState.DEAD)
                    or (wanted.everything and row.state is DeliveryState.DELIVERED)
                ):
                    self._again(row)
                    count += 1
            self._record(caller, origin, "recovered", endpoint_id)
            return count

    def deliveries(self, endpoint_id: UUID, wanted: DeliveryFilter) -> list[Delivery]:
        with self._state.lock:
            found = [
                self._shown(row, response=False)
                for row in sorted(self._state.deliveries.values(), key=lambda r: r.id, reverse=True)
                if row.endpoint_id == endpoint_id
                and (wanted.before is None or row.id < wanted.before)
                and self._inside(row, wanted)
            ]
            return [d for d in found if not wanted.states or d.state in wanted.states][
                : wanted.limit
            ]

    def delivery(self, endpoint_id: UUID, delivery_id: UUID) -> Sent | None:
        with self._state.lock:
            row = self._state.deliveries.get(delivery_id)
            owner = self._row(endpoint_id)
            if row is None or owner is None or row.endpoint_id != endpoint_id:
                return None
            message = self._state.heard[row.event_id].message
            return Sent(self._shown(row, response=True), message, owner.endpoint.payload)

    def list(self, before: UUID | None, limit: int) -> list[Endpoint]:
        with self._state.lock:
            ids = sorted(
                (r.endpoint.id for r in self._live() if before is None or r.endpoint.id < before),
                reverse=True,
            )
            return [self._state.webhooks[i].endpoint for i in ids[:limit]]

    def _live(self) -> Sequence[WebhookRow]:
        return [row for row in self._state.webhooks.values() if row.deleted_at is None]

    def _row(self, endpoint_id: UUID) -> WebhookRow | None:
        row = self._state.webhooks.get(endpoint_id)
        return row if row is not None and row.deleted_at is None else None

    def _again(self, row: DeliveryRow) -> None:
        now = self._state.clock()
        row.state, row.tries = DeliveryState.PENDING, 0
        row.next_at = max(now, row.lease_until or now)

    def _inside(self, row: DeliveryRow, wanted: DeliveryFilter) -> bool:
        message = self._state.heard[row.event_id].message
        return (
            (not wanted.types or message.type in wanted.types)
            and (wanted.since is None or message.at >= wanted.since)
            and (wanted.until is None or message.at < wanted.until)
        )

    def _shown(self, row: DeliveryRow, *, response: bool) -> Delivery:
        heard = self._state.heard[row.event_id]
        disabled = self._state.webhooks[row.endpoint_id].endpoint.disabled_at is not None
        state = DeliveryState.DEAD if disabled and row.state in _OPEN else row.state
        return Delivery(
            row.id,
            row.endpoint_id,
            row.event_id,
            heard.message.type,
            heard.project,
            state,
            row.created_at,
            row.next_at if state in _OPEN else None,
            tuple(a if response else replace(a, response=b"") for a in row.attempts),
        )

    def _record(self, caller: Caller, origin: Origin, what: str, endpoint_id: UUID) -> None:
        self._state.record(caller, origin, f"webhook.{what}", show(WEBHOOK, endpoint_id))


class MemoryDeliveryQueue:
    """Deliveries as those who send see them."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    def fan_out(self, limit: int) -> int:
        with self._state.lock:
            left = sorted(
                (r for r in self._state.heard.values() if not r.fanned), key=lambda r: r.message.at
            )[:limit]
            for heard in left:
                heard.fanned = True
                for row in self._state.webhooks.values():
                    one = row.endpoint
                    fresh = one.disabled_at is None and heard.message.at >= one.created_at
                    if fresh and hears(self._state, row, heard):
                        _add(self._state, one.id, heard.message.id)
            return len(left)

    def due(self, horizon_s: float) -> list[Due]:
        with self._state.lock:
            now = self._state.clock()
            found = []
            for row in self._state.webhooks.values():
                waiting = [r.next_at for r in self._open(row.endpoint.id)]
                if row.endpoint.disabled_at or row.deleted_at or not waiting:
                    continue
                at = max(min(waiting), row.rests_until or min(waiting))
                in_s = (at - now).total_seconds()
                if in_s <= horizon_s:
                    found.append(Due(row.endpoint.id, in_s, row.failures > 0))
            return sorted(found, key=lambda due: due.in_s)

    def claim(self, endpoint_id: UUID, limit: int) -> list[Claimed]:
        with self._state.lock:
            now = self._state.clock()
            row = self._state.webhooks.get(endpoint_id)
            if row is None or row.deleted_at or row.endpoint.disabled_at:
                return []
            if row.rests_until is not None and row.rests_until > now:
                return []
            due = sorted(
                (r for r in self._open(endpoint_id) if r.next_at <= now), key=lambda r: r.next_at
            )[: 1 if row.failures else limit]
            end = now + timedelta(seconds=LEASE_S)
            for one in due:
                one.token += 1
                one.lease_until = one.next_at = end
            if due and row.failures:
                row.rests_until = end
            claimed = [
                Claimed(r.id, r.token, r.tries, self._state.heard[r.event_id].message) for r in due
            ]
            return sorted(claimed, key=lambda c: (c.message.at, c.id))

    def target(self, endpoint_id: UUID) -> Target | None:
        with self._state.lock:
            row = self._state.webhooks.get(endpoint_id)
            if row is None or row.deleted_at:
                return None
            now = self._state.clock()
            secrets = tuple(s for s, end in row.secrets if end is None or end > now)
            endpoint = row.endpoint
            return Target(endpoint.url, endpoint.payload, row.failures, row.sealed_headers, secrets)

    def record(self, endpoint_id: UUID, made: Sequence[Made]) -> UUID | None:
        with self._state.lock:
            row, now = self._state.webhooks[endpoint_id], self._state.clock()
            for one in made:
                self._note(row, one, now)
            if any(one.answer.gone for one in made):
                return self._state.disable_webhook(row, "gone")
            since = row.endpoint.failing_since
            if since is not None and since < now - FAILING_FOR:
                return self._state.disable_webhook(row, "failing")
            return None

    def _note(self, row: WebhookRow, one: Made, now: datetime) -> None:
        answer = one.answer
        delivery = self._state.deliveries.get(one.claimed.id)
        if delivery is None:
            return
        at = now - timedelta(seconds=one.ago_s)
        delivery.attempts.append(
            Attempt(at, answer.status, answer.duration_ms, answer.error, answer.head)
        )
        if delivery.token == one.claimed.token:
            delivery.tries += 1
            delivery.lease_until = None
            delivery.state = (
                DeliveryState.DELIVERED
                if answer.delivered
                else DeliveryState.DEAD
                if one.retry_in_s is None
                else DeliveryState.FAILED
            )
            delivery.next_at = now + timedelta(seconds=one.retry_in_s or 0)
        if answer.delivered:
            row.failures, row.rests_until = 0, None
            row.endpoint = replace(row.endpoint, failing_since=None)
        else:
            row.failures += 1
            row.rests_until = now + timedelta(seconds=one.rest_s) if one.rest_s else None
            row.endpoint = replace(row.endpoint, failing_since=row.endpoint.failing_since or now)

    def release(self, claimed: Sequence[Claimed]) -> None:
        with self._state.lock:
            for one in claimed:
                row = self._state.deliveries.get(one.id)
                if row is not None and row.token == one.token:
                    row.lease_until, row.next_at = None, self._state.clock()

    def _open(self, endpoint_id: UUID) -> list[DeliveryRow]:
        return [
            r
            for r in self._state.deliveries.values()
            if r.endpoint_id == endpoint_id and r.state in _OPEN
        ]


def hears(state: MemoryState, row: WebhookRow, heard: HeardRow) -> bool:
    """Whether an endpoint is to hear an event: what its key may not know of, it does not."""
    endpoint, type_, key = row.endpoint, heard.message.type, state.keys[row.endpoint.key_id].key
    projects = [p for p in (endpoint.projects, key.projects) if p is not None]
    return (
        row.deleted_at is None
        and type_ != PING
        and (endpoint.event_types is None or type_ in endpoint.event_types)
        and all(heard.project in names for names in projects)
        and key.revoked_at is None
        and (key.expires_at is None or key.expires_at > state.clock())
        and "webhooks:write" in key.scopes
        and (not type_.startswith("key.") or "keys:admin" in key.scopes)
    )


def _add(state: MemoryState, endpoint_id: UUID, event_id: UUID) -> DeliveryRow:
    now = state.clock()
    row = DeliveryRow(new_id(), endpoint_id, event_id, now, now)
    state.deliveries[row.id] = row
    return row


def _same(value: Any) -> Any:
    return value


_STORED: Final[dict[str, Any]] = {"header_names": tuple, "payload": Payload}
