"""Events in memory with the database's visibility: what a stream test reads from and writes to.

Writers are transactions that may commit in any order; a reader sees what has committed. `horizon`
is Postgres's: the oldest transaction still open. A sleep-free stand-in for `EventReader`, `Signals`
and `RunnerBell` in the tests of streams and in their benchmark.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from common.domain.command import Command, Kind, Priority, State
from common.domain.events import AGENT, END, OUTPUT, STATE, Event
from common.domain.identifiers import new_id
from common.ports.events import Page, Position, ProjectPage
from common.ports.signals import OUTPUT as OUTPUT_SIGNAL

AT = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


@dataclass
class _Row:
    event: Event
    project: str
    xid: int


@dataclass
class _Stored:
    command: Command
    rows: list[_Row] = field(default_factory=list)
    next_seq: int = 1


class Transaction:
    """Holds its rows back until `commit`; numbers them at once, as the run row's lock does."""

    def __init__(self, store: StreamStore, xid: int) -> None:
        self._store = store
        self.xid = xid
        self._changes: list[Callable[[], None]] = []

    def append(self, command_id: UUID, type_: str, data: bytes, **output: Any) -> None:
        self._changes.append(lambda: self._store._put(self.xid, command_id, type_, data, output))

    def set(self, command_id: UUID, **fields: Any) -> None:
        self._changes.append(lambda: self._store._set(command_id, fields))

    def commit(self) -> None:
        with self._store._lock:
            for change in self._changes:
                change()
            self._store._open.discard(self.xid)


class StreamStore:
    """`fail` is raised by every read while it is set; `reads` counts them by name."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._stored: dict[UUID, _Stored] = {}
        self._next_xid = 1000
        self._open: set[int] = set()
        self._heard: list[Callable[[str, str], None]] = []
        self.quiet = False
        self.fail: Exception | None = None
        self.reads: dict[str, int] = {}
        self.rung: list[str] = []
        self.before_read: Callable[[str], object] | None = None
        self.on_ring: Callable[[str], object] | None = None

    # Writing -------------------------------------------------------------------------------------

    def begin(self) -> Transaction:
        with self._lock:
            self._next_xid += 1
            self._open.add(self._next_xid)
            return Transaction(self, self._next_xid)

    def create(self, project: str = "demo", state: State = State.RUNNING) -> UUID:
        """A command with its first event."""
        command = Command(
            id=new_id(),
            project=project,
            key_id=UUID(int=1),
            kind=Kind.SHELL,
            spec={},
            priority=Priority.NORMAL,
            state=state,
            created_at=AT,
        )
        with self._lock:
            self._stored[command.id] = _Stored(command)
        self.append(command.id, STATE, json.dumps({"state": "queued"}).encode())
        return command.id

    def append(self, command_id: UUID, type_: str, data: bytes, **output: Any) -> None:
        transaction = self.begin()
        transaction.append(command_id, type_, data, **output)
        transaction.commit()
        self.notify_of(command_id)

    def print(self, command_id: UUID, data: bytes, offset: int = 0) -> None:
        self.append(command_id, OUTPUT, data, stream="merged", offset=offset)

    def end(self, command_id: UUID, state: State = State.SUCCEEDED) -> None:
        """State and `end` in one transaction."""
        transaction = self.begin()
        transaction.append(command_id, END, b"")
        transaction.set(command_id, state=state, outcome={"reason": "exit_zero"}, finished_at=AT)
        transaction.commit()
        self.notify_of(command_id)

    def change(self, command_id: UUID, **fields: Any) -> None:
        with self._lock:
            self._set(command_id, fields)

    def expire(self, command_id: UUID, upto: int | None = None) -> None:
        """Retention takes the events up to a seq, or all."""
        with self._lock:
            stored = self._stored[command_id]
            stored.rows = [] if upto is None else [r for r in stored.rows if r.event.seq > upto]

    def last(self, command_id: UUID) -> int:
        with self._lock:
            return self._stored[command_id].next_seq - 1

    def _put(self, xid: int, command_id: UUID, type_: str, data: bytes, output: Any) -> None:
        stored = self._stored[command_id]
        event = Event(command_id, stored.next_seq, AT, type_, data, **output)
        stored.rows.append(_Row(event, stored.command.project, xid))
        stored.next_seq += 1

    def _set(self, command_id: UUID, fields: dict[str, Any]) -> None:
        stored = self._stored[command_id]
        stored.command = replace(stored.command, **fields)

    # EventReader ---------------------------------------------------------------------------------

    def _reading(self, name: str) -> None:
        self.reads[name] = self.reads.get(name, 0) + 1
        if self.before_read is not None:
            self.before_read(name)
        if self.fail is not None:
            raise self.fail

    def page(self, command_id: UUID, after: int, max_bytes: int) -> Page:
        self._reading("page")
        with self._lock:
            stored = self._stored[command_id]
            rows = stored.rows
            first = rows[0].event.seq if rows else None
            start = max(0, after + 1 - first) if first is not None else 0
            events = _up_to([r.event for r in rows[start : start + 5000]], max_bytes)
            return Page(events, first, stored.next_seq - 1)

    def news(self, heads: Sequence[tuple[UUID, int]], max_bytes: int) -> list[Event]:
        self._reading("news")
        with self._lock:
            found: list[Event] = []
            for command_id, head in sorted(heads):
                rows = self._stored[command_id].rows
                start = max(0, head + 1 - rows[0].event.seq) if rows else 0
                new = [r.event for r in rows[start:]]
                found += _up_to(new, max_bytes // len(heads))
            return found

    def project_now(self, project: str) -> Position:
        self._reading("project_now")
        with self._lock:
            horizon = self._horizon()
            return Position(horizon, self._delivered(project, horizon))

    def project_news(
        self, project: str, position: Position, *, output: bool, limit: int
    ) -> ProjectPage:
        self._reading("project_news")
        with self._lock:
            found = [
                row.event
                for stored in self._stored.values()
                for row in stored.rows
                if row.project == project
                and row.xid >= position.horizon
                and row.event.seq > position.seen.get(row.event.command_id, 0)
                and (output or row.event.type not in (OUTPUT, AGENT))
            ]
            if len(found) > limit:
                seen = dict(position.seen) | {e.command_id: e.seq for e in found[:limit]}
                return ProjectPage(found[:limit], Position(position.horizon, seen), more=True)
            horizon = self._horizon()
            return ProjectPage(found, Position(horizon, self._delivered(project, horizon)), False)

    def commands(self, ids: Sequence[UUID]) -> dict[UUID, Command]:
        self._reading("commands")
        with self._lock:
            return {i: self._stored[i].command for i in ids if i in self._stored}

    def _horizon(self) -> int:
        return min(self._open, default=self._next_xid + 1)

    def _delivered(self, project: str, horizon: int) -> dict[UUID, int]:
        return {
            row.event.command_id: row.event.seq
            for stored in self._stored.values()
            for row in stored.rows
            if row.project == project and row.xid >= horizon
        }

    # Signals and RunnerBell ----------------------------------------------------------------------

    def listen(self, channels: tuple[str, ...], heard: Callable[[str, str], None]) -> StreamStore:
        self._heard.append(heard)
        for channel in channels:
            heard(channel, "")
        return self

    def hold(self, worker: int) -> None:
        raise NotImplementedError("streams hold no worker's lock")

    def close(self) -> None:
        self._heard.clear()

    def notify(self, channel: str, payload: str) -> None:
        for heard in tuple(self._heard):
            heard(channel, payload)

    def notify_of(self, command_id: UUID) -> None:
        if not self.quiet:
            project = self._stored[command_id].command.project
            self.notify(OUTPUT_SIGNAL, f"{command_id.hex} {project}")

    def ring(self, project: str) -> None:
        self.rung.append(project)
        if self.on_ring is not None:
            self.on_ring(project)


def _up_to(events: list[Event], max_bytes: int) -> list[Event]:
    """Events until their data reach `max_bytes`."""
    size = 0
    for number, event in enumerate(events, start=1):
        size += len(event.data)
        if size >= max_bytes:
            return events[:number]
    return events


def render(command: Command) -> dict[str, Any]:
    """A final resource."""
    return {"id": f"cmd_{command.id.hex}", "state": str(command.state), "outcome": command.outcome}
