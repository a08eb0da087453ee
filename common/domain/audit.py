"""The record of who did what: its entries, what can be asked of it, and the chain that seals it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from common.domain.identifiers import numbered


@dataclass(frozen=True)
class AuditEntry:
    """Who did what to what, or was refused. `number` is its place in the log."""

    number: int
    at: datetime
    key_id: UUID | None
    action: str
    target: str
    project: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    request_id: str | None = None
    client_ip: str | None = None
    peer_ip: str | None = None

    @property
    def id(self) -> UUID:
        """The number in the form of all ids."""
        return numbered(self.number)


@dataclass(frozen=True)
class NewEntry:
    """An entry that is no part of a change's transaction: a refusal, a change elsewhere."""

    at: datetime
    key_id: UUID | None
    action: str
    target: str
    project: str | None
    detail: dict[str, Any]
    request_id: str | None
    client_ip: str | None
    peer_ip: str | None


@dataclass(frozen=True)
class AuditFilter:
    """Which entries, newest first, below `before`. `projects` None means all."""

    projects: frozenset[str] | None = None
    key_id: UUID | None = None
    action: str | None = None
    target: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: UUID | None = None
    limit: int = 50


@dataclass(frozen=True)
class Link:
    """A place in the chain. Whoever keeps one elsewhere can tell later that nothing was cut off."""

    seq: int
    hash: bytes


@dataclass(frozen=True)
class Checked:
    """Links that were looked at, and the first entry that is not what was sealed, if any."""

    count: int
    link: Link
    broken: int | None = None
    reason: str | None = None
