"""EventReader in dicts. Commits are in order here, so a horizon alone is a whole position."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from uuid import UUID

from common.adapters.memory.state import MemoryState, StoredEvent
from common.domain.command import Command
from common.domain.events import AGENT, MAX_EVENT_BYTES, OUTPUT, Event
from common.ports.events import Page, Position, ProjectPage

_HIDDEN = frozenset({OUTPUT, AGENT})


class MemoryEventReader:
    """Events of one command, of many, or of a project."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    def page(self, command_id: UUID, after: int, max_bytes: int) -> Page:
        with self._state.lock:
            row = self._state.commands.get(command_id)
            if row is None:
                return Page([], None, 0)
            stored = [s.event for s in row.events]
            later = [event for event in stored if event.seq > after]
            first = stored[0].seq if stored else None
            return Page(list(_about(later, max_bytes)), first, row.next_seq - 1)

    def news(self, heads: Sequence[tuple[UUID, int]], max_bytes: int) -> list[Event]:
        share = max(max_bytes // max(len(heads), 1), MAX_EVENT_BYTES)
        with self._state.lock:
            return [e for id_, seq in sorted(heads) for e in self.page(id_, seq, share).events]

    def project_now(self, project: str) -> Position:
        with self._state.lock:
            return Position(self._state.next_xid, {})

    def project_news(
        self, project: str, position: Position, *, output: bool, limit: int
    ) -> ProjectPage:
        with self._state.lock:
            fresh = [
                stored
                for row in self._state.by_id()
                if row.command.project == project
                for stored in row.events
                if stored.xid >= position.horizon
                and stored.event.seq > position.seen.get(row.command.id, 0)
            ]
            fresh.sort(key=lambda s: (s.xid, s.event.command_id, s.event.seq))
            window = fresh[:limit]
            more = len(fresh) > limit
            shown = [s.event for s in window if output or s.event.type not in _HIDDEN]
            shown.sort(key=lambda e: (e.command_id, e.seq))
            return ProjectPage(shown, self._after(position, window, more=more), more)

    def commands(self, ids: Sequence[UUID]) -> dict[UUID, Command]:
        with self._state.lock:
            known = [self._state.commands[id_] for id_ in ids if id_ in self._state.commands]
            return {row.command.id: self._state.shown(row) for row in known}

    def _after(self, old: Position, window: Sequence[StoredEvent], *, more: bool) -> Position:
        if not more:
            return Position(self._state.next_xid, {})
        horizon = window[-1].xid
        seen = {s.event.command_id: s.event.seq for s in window if s.xid >= horizon}
        if horizon == old.horizon:
            seen = old.seen | seen
        return Position(horizon, seen)


def _about(events: Iterable[Event], max_bytes: int) -> Iterator[Event]:
    """Events until `max_bytes` are reached; the one that reaches them is the last."""
    taken = 0
    for event in events:
        if taken >= max_bytes:
            return
        yield event
        taken += len(event.data)
