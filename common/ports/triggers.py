"""Port: triggers, what came to them, and in whose name they act."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from common.domain.keys import Caller
from common.domain.triggers import Match, Owner, Trigger
from common.ports.commands import Idempotency, Origin


@dataclass(frozen=True)
class CreatedTrigger:
    """A stored trigger; `replayed` when an earlier request with the same Idempotency-Key did it."""

    trigger: Trigger
    replayed: bool


class TriggerStore(Protocol):
    def create(
        self,
        trigger: Trigger,
        sealed_secret: bytes,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None,
    ) -> CreatedTrigger:
        """Raises Conflict (`too_many_triggers`)."""
        ...

    def get(self, trigger_id: UUID) -> Trigger | None: ...

    def list(self, before: UUID | None, limit: int) -> list[Trigger]:
        """Newest first."""
        ...

    def update(
        self,
        trigger_id: UUID,
        version: int,
        changes: dict[str, Any],
        sealed_parts: bytes | None,
        caller: Caller,
        origin: Origin,
    ) -> str:
        """Change the fields given, shaped as JSON: ok, stale (another version) or unknown.

        `sealed_parts` goes with a changed `command`.
        """
        ...

    def delete(self, trigger_id: UUID, version: int | None, caller: Caller, origin: Origin) -> str:
        """ok, stale or unknown; what came to it goes too."""
        ...

    def rotate(
        self,
        trigger_id: UUID,
        sealed_secret: bytes,
        grace_s: int,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None,
    ) -> CreatedTrigger | None:
        """A new secret; the old one counts for `grace_s` more. None: there is no such trigger."""
        ...

    def secrets(self, trigger_id: UUID) -> Sequence[bytes]:
        """The sealed secrets that count now, newest first."""
        ...

    def accepting(self, channel: str) -> Sequence[Trigger]:
        """Enabled triggers that take events from there, oldest first."""
        ...

    def owner(self, key_id: UUID) -> Owner:
        """Whose rights that key stands for now: its own, or those of what rotation made of it.

        Revoked as soon as any of them is; expired when the last one is.
        """
        ...

    def seen(self, seen: bytes) -> Match | None: ...

    def refused(self, seen: bytes, match: Match) -> Match:
        """Record a refusal, unless the event was seen before; answers what stands there then."""
        ...

    def matches(
        self, trigger_id: UUID, outcome: str | None, before: int | None, limit: int
    ) -> Sequence[Match]:
        """Newest first."""
        ...
