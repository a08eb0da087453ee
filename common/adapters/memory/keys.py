"""KeyStore in dicts, with the same exact sliding window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Any, Final
from uuid import UUID

from common.adapters.memory.state import KeyRow, MemoryState, storable
from common.domain.command import WAITING, State
from common.domain.identifiers import KEY, new_id, show
from common.domain.keys import ApiKey, Caller, RateLimit
from common.ports.commands import Idempotency, Origin
from common.ports.keys import CreatedKey, Grant, NewText


class MemoryKeyStore:
    """API keys, and the one call that authorises."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    def authorise(
        self, key_hash: bytes, scopes: Sequence[str], ip: str | None, *, counts: bool
    ) -> Grant:
        with self._state.lock:
            row = next((r for r in self._state.keys.values() if r.hash == key_hash), None)
            if row is None:
                return Grant("unknown", None)
            now = self._state.clock()
            status = _refusal(row.key, scopes, ip, now)
            if status is not None:
                return Grant(status, row.caller, None, 0.0)
            return self._rated(row, now, counts=counts)

    def create(
        self,
        key: ApiKey,
        key_hash: bytes,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None,
    ) -> CreatedKey:
        with self._state.lock:
            first = self._state.replayed(caller, idempotency)
            if first is not None:
                return CreatedKey(self._state.keys[first].key, replayed=True)
            storable(key.name, *key.scopes, *(key.projects or ()))
            self._state.keys[key.id] = KeyRow(key, key_hash)
            self._state.record(caller, origin, "key.created", show(KEY, key.id))
            self._state.remember(caller, idempotency, key.id)
            event = self._state.announce_key("created", key.id)
            return CreatedKey(key, replayed=False, event=event)

    def ensure_admin(self, key: ApiKey, key_hash: bytes) -> None:
        with self._state.lock:
            same = [r.key.id for r in self._state.keys.values() if r.hash == key_hash]
            given = replace(key, id=same[0] if same else key.id, revoked_at=None, expires_at=None)
            self._state.keys[given.id] = KeyRow(given, key_hash, unlimited=True)

    def get(self, key_id: UUID) -> ApiKey | None:
        with self._state.lock:
            row = self._state.keys.get(key_id)
            return row.key if row else None

    def update(self, key_id: UUID, changes: dict[str, Any], caller: Caller, origin: Origin) -> str:
        with self._state.lock:
            row = self._state.keys.get(key_id)
            if row is None or row.key.revoked_at is not None:
                return "unknown" if row is None else "revoked"
            row.key = replace(row.key, **{n: _FIELDS[n](v) for n, v in changes.items()})
            self._state.record(caller, origin, "key.updated", show(KEY, key_id))
            return "ok"

    def rotate(
        self,
        key_id: UUID,
        new: NewText,
        grace_s: int,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None,
    ) -> CreatedKey | str:
        with self._state.lock:
            first = self._state.replayed(caller, idempotency)
            if first is not None:
                return CreatedKey(self._state.keys[first].key, replayed=True)
            row = self._state.keys.get(key_id)
            if row is None or row.key.revoked_at or row.key.replaced_by:
                return _why_not(row)
            mine = self._state.keys.get(caller.key_id)
            key = replace(
                row.key,
                id=new.id,
                prefix=new.prefix,
                created_at=new.created_at,
                last_used_at=None,
            )
            unlimited = row.unlimited and mine is not None and mine.unlimited
            self._state.keys[new.id] = KeyRow(key, new.hash, unlimited)
            end = self._state.clock() + timedelta(seconds=grace_s)
            ends = min(end, row.key.expires_at) if row.key.expires_at else end
            row.key = replace(row.key, replaced_by=new.id, expires_at=ends)
            self._state.record(caller, origin, "key.rotated", show(KEY, key_id))
            self._state.remember(caller, idempotency, new.id)
            for webhook in self._state.webhooks.values():
                if webhook.endpoint.key_id == key_id:
                    webhook.endpoint = replace(webhook.endpoint, key_id=new.id)
            event = self._state.announce_key("created", new.id)
            return CreatedKey(key, replayed=False, event=event)

    def revoke(
        self, key_id: UUID, outcome: dict[str, Any], caller: Caller, origin: Origin
    ) -> UUID | None:
        with self._state.lock:
            row = self._state.keys.get(key_id)
            if row is None:
                return None
            event = new_id()
            if row.key.revoked_at is None:
                row.key = replace(row.key, revoked_at=self._state.clock())
                self._state.record(caller, origin, "key.revoked", show(KEY, key_id))
                event = self._state.announce_key("revoked", key_id)
                for webhook in self._state.webhooks.values():
                    if webhook.endpoint.key_id == key_id:
                        self._state.disable_webhook(webhook, "key_revoked")
            for command in self._state.by_id():
                if command.command.key_id == key_id and command.command.state in WAITING:
                    self._state.end(command, State.CANCELLED, outcome, new_id())
            return event

    def list(self, before: UUID | None, limit: int) -> list[ApiKey]:
        with self._state.lock:
            ids = sorted(
                (i for i in self._state.keys if before is None or i < before), reverse=True
            )
            return [self._state.keys[key_id].key for key_id in ids[:limit]]

    def _rated(self, row: KeyRow, now: datetime, *, counts: bool) -> Grant:
        rate, remaining, reset_s = row.key.rate_limit, None, 0.0
        status = "ok"
        if rate is not None:
            window = timedelta(seconds=rate.window_s)
            row.hits = [hit for hit in row.hits if hit >= now - window][: rate.limit]
            if counts and len(row.hits) >= rate.limit:
                status = "limited"
            elif counts:
                row.hits.insert(0, now)
            remaining = rate.limit - len(row.hits)
            if row.hits:
                reset_s = (row.hits[-1] + window - now).total_seconds()
        if status == "ok":
            self._used(row, now)
        return Grant(status, row.caller, remaining, reset_s)

    @staticmethod
    def _used(row: KeyRow, now: datetime) -> None:
        last = row.key.last_used_at
        if last is None or last < now - timedelta(minutes=1):
            row.key = replace(row.key, last_used_at=now)


def _why_not(row: KeyRow | None) -> str:
    if row is None:
        return "unknown"
    return "revoked" if row.key.revoked_at else "replaced"


_FIELDS: Final[dict[str, Callable[[Any], Any]]] = {
    "name": str,
    "scopes": frozenset,
    "projects": lambda names: None if names is None else frozenset(names),
    "allowed_ips": tuple,
    "rate_limit": lambda rate: RateLimit(**rate),
    "max_concurrent": lambda most: most,
    "expires_at": lambda text: None if text is None else datetime.fromisoformat(text),
}


def _refusal(key: ApiKey, scopes: Sequence[str], ip: str | None, now: datetime) -> str | None:
    if key.revoked_at is not None and key.revoked_at <= now:
        return "revoked"
    if key.expires_at is not None and key.expires_at <= now:
        return "expired"
    if key.allowed_ips and not _is_inside(ip, key.allowed_ips):
        return "ip"
    if scopes and key.scopes.isdisjoint(scopes):
        return "scope"
    return None


def _is_inside(ip: str | None, networks: Sequence[str]) -> bool:
    try:
        address = ip_address((ip or "").partition("%")[0])
    except ValueError:
        return False
    return any(address in ip_network(network) for network in networks)
