"""KeyStore on PostgreSQL: authorising a request is one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any, Final
from uuid import UUID

from common.adapters.postgres import rows
from common.adapters.postgres.connection import Row
from common.adapters.postgres.parameters import jsonb
from common.adapters.postgres.pool import Database
from common.domain.identifiers import new_id
from common.domain.keys import ApiKey, Caller
from common.ports.commands import Idempotency, Origin
from common.ports.keys import CreatedKey, Grant, NewText

_END_AT_ONCE: Final = 200  # waiting commands of a revoked key that end in one transaction


class PgKeyStore:
    """API keys, and the one call that authorises."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def authorise(
        self, key_hash: bytes, scopes: Sequence[str], ip: str | None, *, counts: bool
    ) -> Grant:
        row = self._db.one(
            "authorise", hash=key_hash, scopes=list(scopes), ip=_address(ip), counts=counts
        )
        if row is None or row["status"] == "unknown":
            return Grant("unknown", None)
        return Grant(row["status"], rows.to_caller(row), row["remaining"], row["reset_s"])

    def create(
        self,
        key: ApiKey,
        key_hash: bytes,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None,
    ) -> CreatedKey:
        event = new_id()
        answer = self._db.one(
            "key_create",
            key=_as_json(key),
            hash=key_hash,
            event=event,
            audit=rows.audit(caller, origin),
            idempotency=rows.idempotency(idempotency),
        )
        assert answer is not None
        rows.refuse_idempotency(answer["status"])
        stored = self.get(answer["key_id"])
        assert stored is not None  # keys are never deleted
        return CreatedKey(stored, replayed=answer["status"] == "replay", event=event)

    def ensure_admin(self, key: ApiKey, key_hash: bytes) -> None:
        self._db.run(
            "key_ensure",
            id=key.id,
            name=key.name,
            prefix=key.prefix,
            hash=key_hash,
            scopes=sorted(key.scopes),
            created_at=key.created_at,
        )

    def get(self, key_id: UUID) -> ApiKey | None:
        row = self._db.one("key_get", id=key_id)
        return _key(row) if row else None

    def update(self, key_id: UUID, changes: dict[str, Any], caller: Caller, origin: Origin) -> str:
        answer = self._db.one(
            "key_update", id=key_id, changes=jsonb(changes), audit=rows.audit(caller, origin)
        )
        assert answer is not None
        return str(answer["status"])

    def rotate(
        self,
        key_id: UUID,
        new: NewText,
        grace_s: int,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None,
    ) -> CreatedKey | str:
        wanted = {
            "id": str(new.id),
            "prefix": new.prefix,
            "created_at": new.created_at.isoformat(),
        }
        event = new_id()
        answer = self._db.one(
            "key_rotate",
            id=key_id,
            event=event,
            new=jsonb(wanted),
            hash=new.hash,
            grace_s=grace_s,
            audit=rows.audit(caller, origin),
            idempotency=rows.idempotency(idempotency),
        )
        assert answer is not None
        rows.refuse_idempotency(answer["status"])
        if answer["status"] not in ("ok", "replay"):
            return str(answer["status"])
        stored = self.get(answer["key_id"])
        assert stored is not None  # keys are never deleted
        return CreatedKey(stored, replayed=answer["status"] == "replay", event=event)

    def revoke(
        self, key_id: UUID, outcome: dict[str, Any], caller: Caller, origin: Origin
    ) -> UUID | None:
        event = new_id()
        answer = self._db.one(
            "key_revoke", id=key_id, event=event, audit=rows.audit(caller, origin)
        )
        if not (answer and answer["known"]):
            return None
        while self._end_waiting(key_id, outcome):
            pass
        return event

    def _end_waiting(self, key_id: UUID, outcome: dict[str, Any]) -> int:
        answer = self._db.one("end_waiting", key=key_id, outcome=jsonb(outcome), limit=_END_AT_ONCE)
        return int(answer["ended"]) if answer else 0

    def list(self, before: UUID | None, limit: int) -> list[ApiKey]:
        found = self._db.run("key_list", before=before or rows.HIGHEST_ID, limit=limit)
        return [_key(row) for row in found]


def _address(ip: str | None) -> str | None:
    """An address PostgreSQL understands; anything else counts as unknown."""
    if ip is None:
        return None
    try:
        return str(ip_address(ip.partition("%")[0]))
    except ValueError:
        return None


def _key(row: Row) -> ApiKey:
    return ApiKey(
        id=row["id"],
        name=row["name"],
        prefix=row["prefix"],
        scopes=frozenset(row["scopes"]),
        projects=rows.to_set(row["projects"]),
        allowed_ips=tuple(row["allowed_ips"]),
        rate_limit=rows.to_rate(row),
        max_concurrent=row["max_concurrent"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
        replaced_by=row["replaced_by"],
    )


def _as_json(key: ApiKey) -> str:
    rate = key.rate_limit
    return jsonb(
        {
            "id": str(key.id),
            "name": key.name,
            "prefix": key.prefix,
            "scopes": sorted(key.scopes),
            "projects": None if key.projects is None else sorted(key.projects),
            "allowed_ips": list(key.allowed_ips),
            "rate_limit": rate.limit if rate else None,
            "rate_window_s": rate.window_s if rate else None,
            "max_concurrent": key.max_concurrent,
            "created_at": key.created_at.isoformat(),
            "expires_at": key.expires_at.isoformat() if key.expires_at else None,
        }
    )
