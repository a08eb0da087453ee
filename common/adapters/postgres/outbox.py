"""Outbox on PostgreSQL: rows until the broker has accepted them."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from common.adapters.postgres.connection import Row
from common.adapters.postgres.pool import Database
from common.ports.outbox import OutgoingEvent


class PgOutbox:
    """Events on their way out."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def take(self, ids: Sequence[UUID]) -> list[OutgoingEvent]:
        return [_event(row) for row in self._db.run("outbox_take", ids=list(ids))]

    def take_left(self, limit: int) -> list[OutgoingEvent]:
        return [_event(row) for row in self._db.run("outbox_take_left", limit=limit)]

    def sent(self, ids: Sequence[UUID]) -> None:
        if ids:
            self._db.run("outbox_sent", ids=list(ids))


def _event(row: Row) -> OutgoingEvent:
    return OutgoingEvent(
        row["id"], row["type"], row["subject"], row["data"], row["traceparent"], row["webhooks"]
    )
