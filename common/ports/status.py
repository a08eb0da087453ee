"""Port: what the system says of itself, from SQL truth only."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True)
class Dependency:
    """A breaker's row: `state` closed, open or half_open."""

    name: str
    state: str
    failures: int
    checked_at: datetime
    detail: str | None = None


@dataclass(frozen=True)
class Numbers:
    """Gauges for /metrics."""

    commands: dict[tuple[str, str], int]  # (kind, state) → count
    queue_depth: dict[str, int]  # priority label → waiting
    oldest_age_s: float  # of the longest waiting command, 0 when none waits
    outbox_pending: int
    outbox_oldest_age_s: float
    dead_letters: dict[str, int] = field(default_factory=dict)  # reason → not replayed yet


class SystemStatus(Protocol):
    code_version: int  # the schema this code was written for

    def ping(self) -> None:
        """One round trip to the database. Raises Unavailable."""
        ...

    def schema_version(self) -> tuple[int, int]:
        """(version, min_compatible) of the database's schema. Raises Unavailable."""
        ...

    def dependencies(self) -> list[Dependency]: ...

    def numbers(self) -> Numbers: ...
