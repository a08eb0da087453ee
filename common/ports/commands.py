"""Port: commands as callers create, read and change them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from common.domain.command import Command, NewCommand
from common.domain.keys import Caller


@dataclass(frozen=True)
class Origin:
    """Where a request came from, for the audit trail."""

    request_id: str
    client_ip: str | None = None
    peer_ip: str | None = None


@dataclass(frozen=True)
class Idempotency:
    """An Idempotency-Key on one route, with the SHA-256 of what was asked."""

    route: str
    key: str
    request_hash: bytes


@dataclass(frozen=True)
class Firing:
    """What is stored with a command that an event caused, so that it causes it once.

    `seen` is what the event is at that trigger. `again`: an earlier refusal no longer counts.
    """

    seen: bytes
    trigger: UUID
    event_id: str
    source: str
    type: str
    again: bool = False


@dataclass(frozen=True)
class Submitted:
    """What a submit left behind. `replayed`: an earlier request did. `doorbell`: its outbox row.

    The command is as it was when it was created, so that a replay answers the same.
    """

    command: Command
    replayed: bool
    doorbell: UUID | None


@dataclass(frozen=True)
class Filter:
    """Which commands to list: newest first, below `before`. `projects` None means all."""

    projects: frozenset[str] | None = None
    states: Sequence[str] = ()
    kinds: Sequence[str] = ()
    labels: tuple[tuple[str, str], ...] = ()
    before: UUID | None = None
    limit: int = 50


@dataclass(frozen=True)
class Cancelled:
    """`ended`: it was over before. `lease_dead`: nobody follows it, ring the runner."""

    ended: bool
    lease_dead: bool
    event: UUID | None


@dataclass(frozen=True)
class Segment:
    """One piece of stored output."""

    seq: int
    stream: str
    offset: int
    data: bytes


class CommandStore(Protocol):
    def submit(
        self,
        command: NewCommand,
        sealed_env: bytes | None,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None = None,
        firing: Firing | None = None,
    ) -> Submitted:
        """Store command, event 1, outbox row, audit row and idempotency in one transaction.

        With `firing`, what was seen is in it too, and the trigger's limit counts it.

        Raises NotFound (no such project), Forbidden (kind not allowed there), ConcurrencyLimited,
        Conflict (`session_busy`, `idempotency_in_flight`; for a firing `event_seen`, `trigger_off`,
        `trigger_limited`), InvalidField (`idempotency_mismatch`).
        """
        ...

    def get(self, command_id: UUID) -> Command | None: ...

    def get_many(self, command_ids: Sequence[UUID]) -> list[Command]: ...

    def cancel(
        self,
        command_id: UUID,
        mode: str,
        reason: str,
        outcome: dict[str, Any],
        origin: Origin,
        caller: Caller | None,
    ) -> Cancelled:
        """Cancel: ends a command that was never claimed with `outcome`, marks one that was.

        `caller` is None when rdev itself cancels. Raises NotFound.
        """
        ...

    def reprioritise(self, command_id: UUID, priority: int, origin: Origin, caller: Caller) -> bool:
        """Change the priority while it waits; False when it no longer does."""
        ...

    def output(self, command_id: UUID, stream: str, offset: int, max_bytes: int) -> list[Segment]:
        """Stored output of one stream from a byte offset on, about `max_bytes` of it."""
        ...

    def output_size(self, command_id: UUID, stream: str) -> tuple[int, bool]:
        """Stored bytes of a stream, and whether the events behind them have expired."""
        ...

    def list(self, wanted: Filter) -> list[Command]: ...
