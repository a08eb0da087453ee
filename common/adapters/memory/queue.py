"""Queue in dicts: the same order, limits, leases and fencing as the SQL of the real one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from common.adapters.memory.projects import as_project
from common.adapters.memory.state import OTHER_STREAM, CommandRow, MemoryState
from common.domain.accounting import SessionTotal
from common.domain.agent import AgentState
from common.domain.command import ACTIVE, Command, Kind, State
from common.domain.events import AGENT, NewEvent
from common.domain.identifiers import new_id
from common.domain.project import Phase
from common.ports.queue import LEASE_S, Claim, Held, LeaseLost


class MemoryQueue:
    """Claim, lease, append, finish."""

    def __init__(self, state: MemoryState, *, lease_s: float = LEASE_S) -> None:
        self._state = state
        self._lease = timedelta(seconds=lease_s)

    def claim(self, project: str, worker: int) -> Claim | None:
        with self._state.lock:
            row = self._next(project)
            if row is None:
                return None
            row.command = replace(row.command, state=State.CLAIMED)
            row.pod_uid = self._state.projects[project].found.pod_uid
            self._state.lanes[project, row.command.key_id] = self._state.turn()
            return self._lease_to(row, worker)

    def adopt(self, worker: int, limit: int) -> list[Claim]:
        with self._state.lock:
            dead = [
                row
                for row in self._state.by_id()
                if row.command.state in ACTIVE and self._is_adoptable(row, worker)
            ]
            for row in dead[:limit]:
                self._count_fall(row)
            return [self._lease_to(row, worker) for row in dead[:limit]]

    def held(self, command_id: UUID, token: int) -> Claim:
        with self._state.lock:
            return self._claim(self._holder(command_id, token))

    def heartbeat(self, leases: Sequence[tuple[UUID, int]]) -> list[Held]:
        with self._state.lock:
            held = [row for row in (self._find(*lease) for lease in leases) if row is not None]
            for row in held:
                row.lease_until = self._state.clock() + self._lease
            return [Held(row.command.id, row.cancel_mode, row.cancel_reason) for row in held]

    def release(self, leases: Sequence[tuple[UUID, int]]) -> None:
        with self._state.lock:
            for lease in leases:
                if row := self._find(*lease):
                    row.lease_until = row.worker = None

    def append(self, command_id: UUID, token: int, events: Sequence[NewEvent]) -> str | None:
        with self._state.lock:
            row = self._holder(command_id, token)
            xid = self._state.transaction()
            for event in self._fresh(row, events):
                self._state.append(row, event, xid)
                _advance(row, event)
            return row.cancel_mode

    def mark_running(self, command_id: UUID, token: int) -> UUID:
        event = new_id()
        with self._state.lock:
            row = self._holder(command_id, token)
            if row.command.started_at is not None:
                return event
            row.command = replace(row.command, started_at=self._state.clock())
            if row.command.state is State.CLAIMED:
                self._state.move(row, State.RUNNING)
                self._state.announce(row.command, "started", event)
            return event

    def finish(
        self,
        command_id: UUID,
        token: int,
        state: State,
        outcome: dict[str, Any],
        said: Sequence[NewEvent] = (),
    ) -> UUID | None:
        with self._state.lock:
            row = self._state.commands.get(command_id)
            if row is not None and row.command.ended and row.token == token:
                return None
            event, row = new_id(), self._holder(command_id, token)
            xid = self._state.transaction()
            for one in said:
                self._state.append(row, one, xid)
            self._state.end(row, state, outcome, event)
            return event

    def stored_digest(self, command_id: UUID, stream: str) -> str:
        with self._state.lock:
            row = self._state.commands[command_id]
            pieces = [s.event.data for s in row.events if s.event.stream == stream]
            return hashlib.sha256(b"".join(pieces)).hexdigest()

    def agent_state(self, command_id: UUID) -> AgentState:
        with self._state.lock:
            row = self._state.commands.get(command_id)
            events = [stored.event for stored in row.events] if row else []
        ends = [
            (e.offset or 0) + len(e.data)
            for e in events
            if e.stream == "stdout" and e.data.endswith(b"\n")
        ]
        said = [(e.stream, e.data) for e in events if e.type == AGENT]
        return AgentState.of(max(ends, default=0), said)

    def session_total(self, command_id: UUID) -> SessionTotal | None:
        with self._state.lock:
            this = self._state.commands[command_id].command
            wanted = (this.spec.get("session") or {}).get("id")
            earlier = [
                (command.finished_at, total)
                for command in (row.command for row in self._state.by_id())
                if (command.project, command.session) == (this.project, wanted)
                and command.finished_at is not None
                and (this.started_at is not None and command.finished_at <= this.started_at)
                and (total := SessionTotal.stored(_agent_of(command).get("session_total")))
            ]
            return max(earlier, key=lambda e: e[0])[1] if earlier else None

    # -- who is next -----------------------------------------------------------------------------

    def _next(self, name: str) -> CommandRow | None:
        project = self._state.projects.get(name)
        if project is None or project.found.phase is not Phase.READY or project.gone:
            return None
        live = self._state.live_in(name)
        if project.paused_at is not None or len(live) >= project.found.max_concurrent_commands:
            return None
        sessions = {row.command.session for row in live} - {None}
        free = [
            row
            for row in self._state.queued_in(name)
            if row.command.session not in sessions and self._may_run(row)
        ]
        return min(free, key=self._turn_of, default=None)

    def _may_run(self, row: CommandRow) -> bool:
        late = row.queue_deadline is not None and row.queue_deadline <= self._state.clock()
        key = self._state.keys.get(row.command.key_id)
        most = key.key.max_concurrent if key else None
        return not late and (most is None or len(self._state.live_of(row.command.key_id)) < most)

    def _turn_of(self, row: CommandRow) -> tuple[int, int, UUID]:
        """Priority, then the lane served longest ago, then age."""
        served = self._state.lanes.get((row.command.project, row.command.key_id), 0)
        return row.command.priority, served, row.command.id

    # -- leases ----------------------------------------------------------------------------------

    def _lease_to(self, row: CommandRow, worker: int) -> Claim:
        row.token += 1
        row.worker = worker
        row.lease_until = self._state.clock() + self._lease
        return self._claim(row)

    def _is_adoptable(self, row: CommandRow, worker: int) -> bool:
        rest = timedelta(0) if row.cancel_mode else _rest_after(row.falls)
        if row.lease_until is None or row.lease_until + rest < self._state.clock():
            return True
        return row.worker != worker and row.worker not in self._state.workers

    def _count_fall(self, row: CommandRow) -> None:
        """Whether a follower fell while its process lived on, and without having written since."""
        if row.lease_until is None or row.worker not in self._state.workers:
            row.falls, row.fell_at_seq = 0, None
        else:
            row.falls = row.falls + 1 if row.fell_at_seq == row.next_seq else 1
            row.fell_at_seq = row.next_seq

    def _find(self, command_id: UUID, token: int) -> CommandRow | None:
        row = self._state.commands.get(command_id)
        if row is None or row.token != token or row.lease_until is None:
            return None
        return row

    def _holder(self, command_id: UUID, token: int) -> CommandRow:
        row = self._find(command_id, token)
        if row is None:
            raise LeaseLost
        return row

    def _claim(self, row: CommandRow) -> Claim:
        command = self._state.shown(row)
        separate = command.kind is Kind.CLAUDE or command.spec.get("streams") == "separate"
        main = {"stdout" if separate else "merged": row.out_offset}
        return Claim(
            command=replace(command, lease_dead=False),
            project=as_project(self._state.projects[command.project]),
            token=row.token,
            sealed_env=row.sealed_env,
            pod_uid=row.pod_uid,
            offsets=main | ({OTHER_STREAM: row.err_offset} if separate else {}),
            cancel_mode=row.cancel_mode,
            cancel_reason=row.cancel_reason,
        )

    # -- output ----------------------------------------------------------------------------------

    def _fresh(self, row: CommandRow, events: Sequence[NewEvent]) -> list[NewEvent]:
        """What is not stored yet. Raises ValueError when bytes before it are missing."""
        at = {True: row.err_offset, False: row.out_offset}
        output = [event for event in events if event.stream is not None]
        fresh: list[NewEvent] = []
        for event in events:
            rest: NewEvent | None = event
            if event.stream is not None:
                other = event.stream == OTHER_STREAM
                rest = _after(event, at[other])
                at[other] = max(at[other], (event.offset or 0) + len(event.data))
            if rest is not None:
                fresh.append(rest)
        repeated = output and not any(event.stream is not None for event in fresh)
        return [] if repeated else fresh


def _agent_of(command: Command) -> dict[str, Any]:
    return (command.outcome or {}).get("agent") or {}


def _after(event: NewEvent, stored: int) -> NewEvent | None:
    start = event.offset or 0
    if start > stored:
        raise ValueError(f"output goes on at byte {stored}, not at {start}")
    data = event.data[stored - start :]
    return replace(event, data=data, offset=stored) if data else None


def _rest_after(falls: int) -> timedelta:
    if falls < 2:
        return timedelta(0)
    return timedelta(seconds=min(15 * 2 ** (min(falls, 10) - 2), 600))


def _advance(row: CommandRow, event: NewEvent) -> None:
    if event.stream is None:
        return
    end = (event.offset or 0) + len(event.data)
    if event.stream == OTHER_STREAM:
        row.err_offset = end
    else:
        row.out_offset = end
