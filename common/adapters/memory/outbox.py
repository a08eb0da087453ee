"""Outbox in dicts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from common.adapters.memory.state import MemoryState
from common.ports.outbox import OutgoingEvent


class MemoryOutbox:
    """Events on their way out."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    def take(self, ids: Sequence[UUID]) -> list[OutgoingEvent]:
        with self._state.lock:
            wanted = set(ids)
            return [row.event for id_, row in self._state.outbox.items() if id_ in wanted]

    def take_left(self, limit: int) -> list[OutgoingEvent]:
        with self._state.lock:
            now = self._state.clock()
            due = [row for row in self._state.outbox.values() if row.next_at <= now]
            due.sort(key=lambda row: row.next_at)
            for row in due[:limit]:
                row.next_at = now + timedelta(seconds=5)
            return [row.event for row in sorted(due[:limit], key=lambda row: row.created_at)]

    def sent(self, ids: Sequence[UUID]) -> None:
        with self._state.lock:
            for event_id in ids:
                self._state.outbox.pop(event_id, None)
