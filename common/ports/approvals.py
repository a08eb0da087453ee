"""Port: permission requests of claude, from its question to the bytes that answer it.

What claude is told is stored before it is sent, in an order that is fixed here: whoever follows the
command sends the same bytes at the same offsets, and so each of them once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from common.domain.approval import Approval, ApprovalState, Asked
from common.domain.keys import Caller
from common.ports.commands import Origin


@dataclass(frozen=True)
class Piece:
    """Bytes for a command's stdin. `data` None: they were sent before."""

    number: int
    size: int
    data: bytes | None


@dataclass(frozen=True)
class Inbox:
    """What a follower has to do. `overdue`: requests nobody answered in time.

    `next_s`: seconds until the next one is overdue, None when none is pending.
    """

    pieces: list[Piece]
    overdue: list[str]
    next_s: float | None


class Approvals(Protocol):
    def list(self, command_id: UUID) -> list[Approval]:
        """In the order in which claude asked."""
        ...

    def find(self, command_id: UUID, tool_use_id: str) -> Approval | None:
        """The pending request about a tool use, else the newest one."""
        ...

    def decide(
        self,
        asked: Approval,
        state: ApprovalState,
        message: str | None,
        reply: bytes,
        caller: Caller,
        origin: Origin,
    ) -> bool:
        """Store decision, event, reply and audit row in one transaction; False: it was decided."""
        ...

    def ask(self, command_id: UUID, token: int, asked: Asked, wait_s: int) -> None:
        """Store a request and its event, once however often it is read. Raises LeaseLost."""
        ...

    def answer(self, command_id: UUID, token: int, request_id: str, reply: bytes) -> None:
        """Answer a request that nobody is asked about, once. Raises LeaseLost."""
        ...

    def expire(self, command_id: UUID, token: int, request_id: str, reply: bytes) -> None:
        """Deny a request that is overdue; one that was decided stays so. Raises LeaseLost."""
        ...

    def inbox(self, command_id: UUID) -> Inbox: ...

    def sent(self, command_id: UUID, number: int) -> None:
        """A piece has reached the workspace."""
        ...
