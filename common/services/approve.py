"""Use case: see what claude asks for, and allow or deny it.

The decision is stored with what claude is told; the runner that follows the command sends it, and
if that runner dies, the one that adopts the command does.
"""

from __future__ import annotations

from common.domain import approval
from common.domain.approval import Approval, ApprovalState
from common.domain.command import Command
from common.domain.errors import Conflict, NotFound
from common.domain.keys import Caller
from common.ports.approvals import Approvals
from common.ports.commands import Origin
from common.services.read_commands import ReadCommands
from common.services.wakeups import Wakeups


class Approve:
    """The permission requests of one command."""

    def __init__(self, reader: ReadCommands, store: Approvals, wakeups: Wakeups) -> None:
        self._reader = reader
        self._store = store
        self._wakeups = wakeups

    def list(self, text: str, caller: Caller) -> list[Approval]:
        """In the order in which claude asked. Raises NotFound."""
        return self._store.list(self._reader.one(text, caller).id)

    def allow(
        self, text: str, tool_use_id: str, message: str | None, caller: Caller, origin: Origin
    ) -> Approval:
        """claude may use the tool. Raises NotFound, Conflict when it was decided before."""
        command, asked = self._pending(text, tool_use_id, caller)
        reply = approval.allow(asked.request_id, asked.input or b"{}")
        return self._decide(command, asked, ApprovalState.ALLOWED, message, reply, caller, origin)

    def deny(
        self, text: str, tool_use_id: str, message: str | None, caller: Caller, origin: Origin
    ) -> Approval:
        """claude may not, and is told `message`. Raises as `allow` does."""
        command, asked = self._pending(text, tool_use_id, caller)
        reply = approval.deny(asked.request_id, message)
        return self._decide(command, asked, ApprovalState.DENIED, message, reply, caller, origin)

    def _pending(self, text: str, tool_use_id: str, caller: Caller) -> tuple[Command, Approval]:
        command = self._reader.one(text, caller)
        known = approval.is_id(tool_use_id)
        asked = self._store.find(command.id, tool_use_id) if known else None
        if asked is None:
            raise NotFound(f"{text} asks for no {tool_use_id[:80]!r}")
        if asked.state is not ApprovalState.PENDING:
            raise Conflict(f"it is {asked.state} already")
        return command, asked

    def _decide(
        self,
        command: Command,
        asked: Approval,
        state: ApprovalState,
        message: str | None,
        reply: bytes,
        caller: Caller,
        origin: Origin,
    ) -> Approval:
        if not self._store.decide(asked, state, message, reply, caller, origin):
            raise Conflict("somebody was faster, or its time is over")
        self._wakeups.state(command.id, command.project)
        self._wakeups.control(command.id)
        now = self._store.list(command.id)
        return next(one for one in now if one.request_id == asked.request_id)
