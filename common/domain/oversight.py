"""What people who look after rdev ask: what waits where, and what was used by whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from common.domain.command import Priority


@dataclass(frozen=True)
class Depth:
    """Of one priority: how many wait, how long the oldest has, and how many run."""

    queued: int = 0
    running: int = 0
    oldest_s: float | None = None


@dataclass(frozen=True)
class ProjectQueue:
    """The queue of one project."""

    project: str
    paused_at: datetime | None = None
    depths: dict[Priority, Depth] = field(default_factory=dict)

    @property
    def queued(self) -> int:
        return sum(depth.queued for depth in self.depths.values())

    @property
    def running(self) -> int:
        return sum(depth.running for depth in self.depths.values())

    @property
    def oldest_s(self) -> float | None:
        """Seconds that the oldest of all has waited."""
        ages = [depth.oldest_s for depth in self.depths.values() if depth.oldest_s is not None]
        return max(ages, default=None)


@dataclass(frozen=True)
class UsageFilter:
    """Ended commands, by when they ended. `projects` None means all."""

    since: datetime
    until: datetime
    by: frozenset[str]
    projects: frozenset[str] | None = None
    key_id: UUID | None = None
    model: str | None = None
    limit: int = 5000


@dataclass(frozen=True)
class Usage:
    """Sums over ended commands; a dimension that was not asked for is None."""

    project: str | None
    key_id: UUID | None
    model: str | None
    day: str | None
    commands: int
    seconds: float
    cost_usd: float
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_creation_tokens: int
