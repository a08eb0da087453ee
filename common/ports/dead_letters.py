"""Port: events that could not be handled, kept for people to see and to replay."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol
from uuid import UUID

from common.domain.keys import Caller
from common.ports.commands import Origin

UNREADABLE: Final = "unreadable"  # a reason, or part of one


@dataclass(frozen=True)
class DeadLetter:
    """An event that could not be handled. `size`: bytes of its data, of which `data` may be a part.

    `channel`: how it came, `delivery` for one that the broker could not deliver. `project`: where
    it would have run something, as far as rdev knows.
    """

    id: UUID
    event_id: str | None
    source: str | None
    type: str | None
    subject: str | None
    reason: str
    detail: str
    attributes: dict[str, str]
    data: bytes = field(repr=False)
    size: int = 0
    channel: str = "delivery"
    trigger_id: UUID | None = None
    project: str | None = None
    created_at: datetime | None = None
    replayed_at: datetime | None = None

    @property
    def whole(self) -> bool:
        """Whether there is all of it that a replay needs."""
        read = bool(self.event_id and self.source and self.type) and UNREADABLE not in self.reason
        return read and self.size == len(self.data)


@dataclass(frozen=True)
class LetterFilter:
    """Which dead letters to list: newest first, below `before`. `projects` None means all."""

    projects: frozenset[str] | None = None
    reason: str | None = None
    type: str | None = None
    source: str | None = None
    replayed: bool | None = None
    before: UUID | None = None
    limit: int = 50


class DeadLetters(Protocol):
    def bury(self, letter: DeadLetter) -> None:
        """Record a dead letter; the same id twice is one row, with the newest reason."""
        ...

    def get(self, letter_id: UUID) -> DeadLetter | None: ...

    def list(self, wanted: LetterFilter) -> list[DeadLetter]: ...

    def replayed(self, letter_id: UUID, outcome: str, caller: Caller, origin: Origin) -> bool:
        """Note that somebody replayed it; False when it is gone."""
        ...
