"""TriggerStore in dicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from common.adapters.memory.state import MemoryState, TriggerRow, copied, storable
from common.domain.errors import Conflict
from common.domain.identifiers import TRIGGER, show
from common.domain.keys import Caller, RateLimit
from common.domain.triggers import MAX_TRIGGERS, Match, Outcome, Owner, Trigger
from common.ports.commands import Idempotency, Origin
from common.ports.triggers import CreatedTrigger


class MemoryTriggerStore:
    """Triggers, what came to them, and in whose name they act."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    def create(
        self,
        trigger: Trigger,
        sealed_secret: bytes,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None,
    ) -> CreatedTrigger:
        with self._state.lock:
            first = self._state.replayed(caller, idempotency)
            if first is not None:
                return CreatedTrigger(self._kept(first), replayed=True)
            if len(self._state.triggers) >= MAX_TRIGGERS:
                detail = f"there are {MAX_TRIGGERS} triggers already"
                raise Conflict(detail, code="too_many_triggers")
            storable(trigger.name)
            now = self._state.clock()
            stored = replace(
                trigger,
                key_id=caller.key_id,
                filter=copied(trigger.filter),
                command=copied(trigger.command),
                created_at=now,
                updated_at=now,
            )
            self._state.triggers[trigger.id] = TriggerRow(stored, sealed_secret)
            self._record(caller, origin, "trigger.created", stored)
            self._state.remember(caller, idempotency, trigger.id)
            return CreatedTrigger(stored, replayed=False)

    def get(self, trigger_id: UUID) -> Trigger | None:
        with self._state.lock:
            row = self._state.triggers.get(trigger_id)
            return row.trigger if row else None

    def list(self, before: UUID | None, limit: int) -> list[Trigger]:
        with self._state.lock:
            ids = sorted(self._state.triggers, reverse=True)
            wanted = [i for i in ids if before is None or i < before]
            return [self._state.triggers[i].trigger for i in wanted[:limit]]

    def update(
        self,
        trigger_id: UUID,
        version: int,
        changes: dict[str, Any],
        sealed_parts: bytes | None,
        caller: Caller,
        origin: Origin,
    ) -> str:
        with self._state.lock:
            row = self._state.triggers.get(trigger_id)
            if row is None or row.trigger.version != version:
                return "unknown" if row is None else "stale"
            fields = copied(changes)
            if "accept" in fields:
                fields["accept"] = frozenset(fields["accept"])
            if "rate_limit" in fields:
                fields["rate_limit"] = RateLimit(**fields["rate_limit"])
            if "key_id" in fields:
                fields["key_id"] = UUID(fields["key_id"])
            if "command" in fields:
                fields["sealed_parts"] = sealed_parts
            row.trigger = self._changed(row, **fields)
            self._record(caller, origin, "trigger.updated", row.trigger)
            return "ok"

    def delete(self, trigger_id: UUID, version: int | None, caller: Caller, origin: Origin) -> str:
        with self._state.lock:
            row = self._state.triggers.get(trigger_id)
            if row is None or version not in (None, row.trigger.version):
                return "unknown" if row is None else "stale"
            del self._state.triggers[trigger_id]
            old = [k for k, match in self._state.seen.items() if match.trigger_id == trigger_id]
            for seen in old:
                del self._state.seen[seen]
            self._record(caller, origin, "trigger.deleted", row.trigger)
            return "ok"

    def rotate(
        self,
        trigger_id: UUID,
        sealed_secret: bytes,
        grace_s: int,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None,
    ) -> CreatedTrigger | None:
        with self._state.lock:
            first = self._state.replayed(caller, idempotency)
            row = self._state.triggers.get(trigger_id)
            if first is not None or row is None:
                return CreatedTrigger(row.trigger, replayed=True) if row else None
            row.before, row.secret = row.secret, sealed_secret
            row.before_until = self._state.clock() + timedelta(seconds=grace_s)
            row.trigger = self._changed(row)
            self._record(caller, origin, "trigger.rotated", row.trigger)
            self._state.remember(caller, idempotency, trigger_id)
            return CreatedTrigger(row.trigger, replayed=False)

    def secrets(self, trigger_id: UUID) -> Sequence[bytes]:
        with self._state.lock:
            row = self._state.triggers.get(trigger_id)
            if row is None:
                return ()
            old = row.before_until is not None and row.before_until > self._state.clock()
            return [row.secret, row.before] if old and row.before else [row.secret]

    def accepting(self, channel: str) -> Sequence[Trigger]:
        with self._state.lock:
            found = [self._state.triggers[i].trigger for i in sorted(self._state.triggers)]
            return [t for t in found if t.enabled and channel in t.accept]

    def owner(self, key_id: UUID) -> Owner:
        with self._state.lock:
            row, status = self._state.keys.get(key_id), "ok"
            while row is not None:
                if row.key.revoked_at is not None:
                    status = "revoked"
                if row.key.replaced_by is None:
                    break
                row = self._state.keys.get(row.key.replaced_by)
            if row is None:
                return Owner("unknown")
            ends = row.key.expires_at
            if status == "ok" and ends is not None and ends <= self._state.clock():
                status = "expired"
            return Owner(status, row.caller)

    def seen(self, seen: bytes) -> Match | None:
        with self._state.lock:
            return self._state.seen.get(seen)

    def refused(self, seen: bytes, match: Match) -> Match:
        with self._state.lock:
            before = self._state.seen.get(seen)
            if before is not None and before.outcome is Outcome.REFUSED:
                changed = replace(before, reason=match.reason, detail=match.detail)
                self._state.seen[seen] = changed
            elif before is None and match.trigger_id in self._state.triggers:
                self._state.see(seen, replace(match, outcome=Outcome.REFUSED))
            return self._state.seen.get(seen, match)

    def matches(
        self, trigger_id: UUID, outcome: str | None, before: int | None, limit: int
    ) -> Sequence[Match]:
        with self._state.lock:
            found = [
                match
                for match in self._state.seen.values()
                if match.trigger_id == trigger_id
                and outcome in (None, match.outcome)
                and (before is None or match.number < before)
            ]
            return sorted(found, key=lambda match: -match.number)[:limit]

    def _kept(self, trigger_id: UUID) -> Trigger:
        row = self._state.triggers.get(trigger_id)
        if row is None:
            raise Conflict("the trigger this Idempotency-Key made was deleted")
        return row.trigger

    def _changed(self, row: TriggerRow, **fields: Any) -> Trigger:
        version = row.trigger.version + 1
        return replace(row.trigger, version=version, updated_at=self._state.clock(), **fields)

    def _record(self, caller: Caller, origin: Origin, action: str, trigger: Trigger) -> None:
        only = next(iter(trigger.projects)) if len(trigger.projects) == 1 else None
        self._state.record(caller, origin, action, show(TRIGGER, trigger.id), only)
