"""Approvals in dicts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from common.adapters.memory.state import CommandRow, MemoryState
from common.domain import approval
from common.domain.approval import Approval, ApprovalState, Asked
from common.domain.events import APPROVAL, NewEvent, dumps
from common.domain.identifiers import COMMAND, show
from common.domain.keys import Caller
from common.ports.approvals import Inbox, Piece
from common.ports.commands import Origin
from common.ports.queue import LeaseLost


class MemoryApprovals:
    """Requests, decisions, and what is sent."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    def find(self, command_id: UUID, tool_use_id: str) -> Approval | None:
        found = [a for a in self.list(command_id) if a.tool_use_id == tool_use_id]
        pending = [a for a in found if a.state is ApprovalState.PENDING]
        best = pending or found
        return best[-1] if best else None

    def decide(
        self,
        asked: Approval,
        state: ApprovalState,
        message: str | None,
        reply: bytes,
        caller: Caller,
        origin: Origin,
    ) -> bool:
        with self._state.lock:
            row = self._state.commands[asked.command_id]
            now = row.approvals.get(asked.request_id)
            if (
                now is None
                or now.state is not ApprovalState.PENDING
                or now.expires_at <= self._state.clock()
            ):
                return False
            self._decided(row, replace(now, state=state, message=message, key_id=caller.key_id))
            _queue(row, asked.request_id, reply)
            target, project = show(COMMAND, asked.command_id), row.command.project
            self._state.record(caller, origin, f"approval.{state}", target, project)
            return True

    def ask(self, command_id: UUID, token: int, asked: Asked, wait_s: int) -> None:
        with self._state.lock:
            row = self._holder(command_id, token)
            if asked.request_id in row.approvals:
                return
            now = self._state.clock()
            made = Approval(
                command_id,
                asked.request_id,
                asked.tool_use_id,
                asked.tool_name,
                asked.input,
                ApprovalState.PENDING,
                message=None,
                key_id=None,
                requested_at=now,
                expires_at=now + timedelta(seconds=wait_s),
                decided_at=None,
            )
            self._keep(row, made)

    def answer(self, command_id: UUID, token: int, request_id: str, reply: bytes) -> None:
        with self._state.lock:
            _queue(self._holder(command_id, token), request_id, reply)

    def expire(self, command_id: UUID, token: int, request_id: str, reply: bytes) -> None:
        with self._state.lock:
            row = self._holder(command_id, token)
            asked = row.approvals[request_id]
            overdue = asked.expires_at <= self._state.clock()
            if asked.state is ApprovalState.PENDING and overdue:
                self._decided(row, replace(asked, state=ApprovalState.EXPIRED))
                _queue(row, request_id, reply)

    def inbox(self, command_id: UUID) -> Inbox:
        with self._state.lock:
            row, now = self._state.commands[command_id], self._state.clock()
            left = {
                a.request_id: (a.expires_at - now).total_seconds()
                for a in row.approvals.values()
                if a.state is ApprovalState.PENDING
            }
            return Inbox(
                [
                    Piece(n, len(data), None if n in row.sent else data)
                    for n, data in enumerate(row.inputs.values(), 1)
                ],
                [request_id for request_id, seconds in left.items() if seconds <= 0],
                min((seconds for seconds in left.values() if seconds > 0), default=None),
            )

    def sent(self, command_id: UUID, number: int) -> None:
        with self._state.lock:
            self._state.commands[command_id].sent.add(number)

    def list(self, command_id: UUID) -> list[Approval]:
        with self._state.lock:
            row = self._state.commands.get(command_id)
            return list(row.approvals.values()) if row else []

    def _decided(self, row: CommandRow, asked: Approval) -> None:
        self._keep(row, replace(asked, decided_at=self._state.clock()))

    def _keep(self, row: CommandRow, asked: Approval) -> None:
        row.approvals[asked.request_id] = asked
        told = NewEvent(APPROVAL, dumps(approval.event(asked)))
        self._state.append(row, told, self._state.transaction())

    def _holder(self, command_id: UUID, token: int) -> CommandRow:
        row = self._state.commands.get(command_id)
        if row is None or row.token != token or row.lease_until is None:
            raise LeaseLost
        return row


def _queue(row: CommandRow, request_id: str, reply: bytes) -> None:
    row.inputs.setdefault(request_id, reply)
