"""Approvals on PostgreSQL: each change is one call of one SQL function, so one transaction."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from common.adapters.postgres import rows
from common.adapters.postgres.connection import Row
from common.adapters.postgres.pool import Database
from common.domain.approval import Approval, ApprovalState, Asked
from common.domain.keys import Caller
from common.ports.approvals import Inbox, Piece
from common.ports.commands import Origin
from common.ports.queue import LeaseLost


class PgApprovals:
    """Requests, decisions, and what is sent."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def list(self, command_id: UUID) -> list[Approval]:
        return [_approval(row) for row in self._db.run("approval_list", id=command_id)]

    def find(self, command_id: UUID, tool_use_id: str) -> Approval | None:
        row = self._db.one("approval_find", id=command_id, tool_use_id=tool_use_id)
        return _approval(row) if row else None

    def decide(
        self,
        asked: Approval,
        state: ApprovalState,
        message: str | None,
        reply: bytes,
        caller: Caller,
        origin: Origin,
    ) -> bool:
        answer = self._db.one(
            "approval_decide",
            id=asked.command_id,
            request_id=asked.request_id,
            state=str(state),
            message=message,
            reply=reply,
            audit=rows.audit(caller, origin),
        )
        return bool(answer and answer["done"])

    def ask(self, command_id: UUID, token: int, asked: Asked, wait_s: int) -> None:
        self._held(
            "approval_ask",
            id=command_id,
            token=token,
            request_id=asked.request_id,
            tool_use_id=asked.tool_use_id,
            tool_name=asked.tool_name,
            input=asked.input,
            wait_s=wait_s,
        )

    def answer(self, command_id: UUID, token: int, request_id: str, reply: bytes) -> None:
        asked = {"id": command_id, "token": token, "request_id": request_id}
        self._held("approval_answer", **asked, reply=reply)

    def expire(self, command_id: UUID, token: int, request_id: str, reply: bytes) -> None:
        asked = {"id": command_id, "token": token, "request_id": request_id}
        self._held("approval_expire", **asked, reply=reply)

    def inbox(self, command_id: UUID) -> Inbox:
        pending = self._db.run("approval_pending", id=command_id)
        pieces = self._db.run("input_pieces", id=command_id)
        return Inbox(
            [Piece(row["n"], row["size"], row["data"]) for row in pieces],
            [row["request_id"] for row in pending if row["left_s"] <= 0],
            min((row["left_s"] for row in pending if row["left_s"] > 0), default=None),
        )

    def sent(self, command_id: UUID, number: int) -> None:
        self._db.run("input_sent", id=command_id, number=number)

    def _held(self, query: str, **parameters: Any) -> None:
        answer = self._db.one(query, **parameters)
        if not (answer and answer["held"]):
            raise LeaseLost


def _approval(row: Row) -> Approval:
    return Approval(**row | {"state": ApprovalState(row["state"])})
