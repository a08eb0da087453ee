"""Port: the queue as the runner sees it: claim, lease, append, finish.

Every write carries the fencing token of its lease; a stale token changes nothing and raises
LeaseLost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID

from common.domain.accounting import SessionTotal
from common.domain.agent import AgentState
from common.domain.command import Command, State
from common.domain.events import NewEvent
from common.domain.project import Project

LEASE_S: Final = 15.0
HEARTBEAT_S: Final = 3.0


class LeaseLost(Exception):
    """Somebody else follows this command now: stop, write nothing."""


@dataclass(frozen=True)
class Claim:
    """A command under this runner's lease. `offsets`: bytes already stored per stream."""

    command: Command
    project: Project
    token: int
    sealed_env: bytes | None
    pod_uid: str | None
    offsets: dict[str, int]
    cancel_mode: str | None = None
    cancel_reason: str | None = None


@dataclass(frozen=True)
class Held:
    """A lease that was renewed, with the cancel request there may be."""

    command_id: UUID
    cancel_mode: str | None
    cancel_reason: str | None


class Queue(Protocol):
    def claim(self, project: str, worker: int) -> Claim | None:
        """The next command of a project, now `claimed` for `worker`, or None."""
        ...

    def adopt(self, worker: int, limit: int) -> list[Claim]:
        """Take over at most `limit` live commands whose lease is dead."""
        ...

    def heartbeat(self, leases: Sequence[tuple[UUID, int]]) -> list[Held]:
        """Renew (command, token) leases; those missing in the answer are lost."""
        ...

    def release(self, leases: Sequence[tuple[UUID, int]]) -> None:
        """Give leases up at once, so that another runner may adopt the commands."""
        ...

    def append(self, command_id: UUID, token: int, events: Sequence[NewEvent]) -> str | None:
        """Append events; answers the cancel mode there may be. Raises LeaseLost."""
        ...

    def held(self, command_id: UUID, token: int) -> Claim:
        """The command and its stored offsets as they are now. Raises LeaseLost."""
        ...

    def agent_state(self, command_id: UUID) -> AgentState:
        """What is stored of claude's lines, for a follower that goes on with them."""
        ...

    def session_total(self, command_id: UUID) -> SessionTotal | None:
        """What the session that a command goes on with had cost, as its last command told it."""
        ...

    def mark_running(self, command_id: UUID, token: int) -> UUID:
        """claimed → running (or stays so): the outbox id of its event. Raises LeaseLost."""
        ...

    def finish(
        self,
        command_id: UUID,
        token: int,
        state: State,
        outcome: dict[str, Any],
        said: Sequence[NewEvent] = (),
    ) -> UUID | None:
        """End the command: the outbox id of its event, None when it had ended. Raises LeaseLost.

        `said`: small events without a stream, stored right before the end or not at all.
        """
        ...

    def stored_digest(self, command_id: UUID, stream: str) -> str:
        """SHA-256 (hex) of the bytes stored for a stream."""
        ...
