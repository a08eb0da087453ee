"""TriggerStore on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from common.adapters.postgres import rows
from common.adapters.postgres.connection import Row
from common.adapters.postgres.parameters import jsonb, printable
from common.adapters.postgres.pool import Database
from common.domain.errors import Conflict
from common.domain.keys import Caller, RateLimit
from common.domain.triggers import MAX_TRIGGERS, Match, Outcome, Owner, Trigger
from common.ports.commands import Firing, Idempotency, Origin
from common.ports.triggers import CreatedTrigger


class PgTriggerStore:
    """Triggers, what came to them, and in whose name they act."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def create(
        self,
        trigger: Trigger,
        sealed_secret: bytes,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None,
    ) -> CreatedTrigger:
        answer = self._db.one(
            "trigger_create",
            trigger=_as_json(trigger),
            parts=trigger.sealed_parts,
            secret=sealed_secret,
            most=MAX_TRIGGERS,
            audit=rows.audit(caller, origin),
            idempotency=rows.idempotency(idempotency),
        )
        assert answer is not None
        rows.refuse_idempotency(answer["status"])
        if answer["status"] == "too_many":
            raise Conflict(f"there are {MAX_TRIGGERS} triggers already", code="too_many_triggers")
        stored = self.get(answer["trigger_id"])
        if stored is None:
            raise Conflict("the trigger this Idempotency-Key made was deleted")
        return CreatedTrigger(stored, replayed=answer["status"] == "replay")

    def get(self, trigger_id: UUID) -> Trigger | None:
        row = self._db.one("trigger_get", id=trigger_id)
        return _trigger(row) if row else None

    def list(self, before: UUID | None, limit: int) -> list[Trigger]:
        found = self._db.run("trigger_list", before=before or rows.HIGHEST_ID, limit=limit)
        return [_trigger(row) for row in found]

    def update(
        self,
        trigger_id: UUID,
        version: int,
        changes: dict[str, Any],
        sealed_parts: bytes | None,
        caller: Caller,
        origin: Origin,
    ) -> str:
        answer = self._db.one(
            "trigger_update",
            id=trigger_id,
            version=version,
            changes=jsonb(changes),
            parts=sealed_parts,
            audit=rows.audit(caller, origin),
        )
        assert answer is not None
        return str(answer["status"])

    def delete(self, trigger_id: UUID, version: int | None, caller: Caller, origin: Origin) -> str:
        answer = self._db.one(
            "trigger_delete", id=trigger_id, version=version, audit=rows.audit(caller, origin)
        )
        assert answer is not None
        return str(answer["status"])

    def rotate(
        self,
        trigger_id: UUID,
        sealed_secret: bytes,
        grace_s: int,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None,
    ) -> CreatedTrigger | None:
        answer = self._db.one(
            "trigger_rotate",
            id=trigger_id,
            secret=sealed_secret,
            grace_s=grace_s,
            audit=rows.audit(caller, origin),
            idempotency=rows.idempotency(idempotency),
        )
        assert answer is not None
        rows.refuse_idempotency(answer["status"])
        stored = self.get(trigger_id)
        return CreatedTrigger(stored, replayed=answer["status"] == "replay") if stored else None

    def secrets(self, trigger_id: UUID) -> Sequence[bytes]:
        row = self._db.one("trigger_secrets", id=trigger_id)
        if row is None:
            return ()
        return [s for s in (row["secret"], row["secret_before"]) if s is not None]

    def accepting(self, channel: str) -> Sequence[Trigger]:
        return [_trigger(row) for row in self._db.run("trigger_accepting", channel=channel)]

    def owner(self, key_id: UUID) -> Owner:
        row = self._db.one("trigger_owner", key=key_id)
        assert row is not None
        return Owner(row["status"], None if row["key_id"] is None else rows.to_caller(row))

    def seen(self, seen: bytes) -> Match | None:
        row = self._db.one("event_seen", seen=seen)
        return _match(row) if row else None

    def refused(self, seen: bytes, match: Match) -> Match:
        firing = Firing(seen, match.trigger_id, match.event_id, match.source, match.type)
        row = self._db.one(
            "event_refuse",
            firing=rows.firing(firing),
            reason=match.reason,
            detail=printable(match.detail),
        )
        return _match(row) if row else match

    def matches(
        self, trigger_id: UUID, outcome: str | None, before: int | None, limit: int
    ) -> Sequence[Match]:
        found = self._db.run(
            "event_matches", id=trigger_id, outcome=outcome, before=before, limit=limit
        )
        return [_match(row) for row in found]


def _as_json(trigger: Trigger) -> str:
    return jsonb(
        {
            "id": str(trigger.id),
            "name": trigger.name,
            "filter": trigger.filter,
            "command": trigger.command,
            "accept": sorted(trigger.accept),
            "enabled": trigger.enabled,
            "rate_limit": {
                "limit": trigger.rate_limit.limit,
                "window_s": trigger.rate_limit.window_s,
            },
        }
    )


def _trigger(row: Row) -> Trigger:
    return Trigger(
        id=row["id"],
        name=row["name"],
        key_id=row["key_id"],
        filter=row["filter"],
        command=row["command"],
        accept=frozenset(row["accept"]),
        rate_limit=RateLimit(row["rate_limit"], row["rate_window_s"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        enabled=row["enabled"],
        version=row["version"],
        sealed_parts=row["parts_sealed"],
    )


def _match(row: Row) -> Match:
    return Match(
        trigger_id=row["trigger_id"],
        event_id=row["event_id"],
        source=row["source"],
        type=row["type"],
        outcome=Outcome(row["outcome"]),
        command_id=row["command_id"],
        reason=row["reason"],
        detail=row["detail"],
        number=row["number"],
        at=row["at"],
    )
