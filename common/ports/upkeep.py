"""Port: what on_tick repairs in the database. Each call is safe to repeat and to run at once."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID


@dataclass(frozen=True)
class Retention:
    """Days, except where the name says hours."""

    output_days: int = 14
    commands_days: int = 90
    audit_days: int = 400
    idempotency_hours: int = 24
    dead_letters_days: int = 30
    deliveries_days: int = 90
    seen_events_days: int = 30  # never less than what makes an event stale
    most_refused: int = 10_000  # dead letters, and refusals seen: anybody may cause them


@dataclass(frozen=True)
class Expired:
    """A command that waited too long, and the outbox row that says so."""

    command_id: UUID
    project: str
    event: UUID


class Upkeep(Protocol):
    def exclusive(self, job: str) -> AbstractContextManager[bool]:
        """Under the job's own lock: True for one process at a time, False for the others."""
        ...

    def projects_to_ring(self) -> list[str]: ...

    def promote_due(self) -> list[tuple[UUID, str]]:
        """scheduled → queued for what is due; answers (command, project)."""
        ...

    def expire_queued(self, outcome: dict[str, Any]) -> list[Expired]:
        """End what waited too long; `outcome` becomes theirs."""
        ...

    def make_partitions(self, days_ahead: int) -> int: ...

    def drop_expired(self, keep: Retention) -> dict[str, int]:
        """Delete what is past its retention; answers how many per table."""
        ...
