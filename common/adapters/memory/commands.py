"""CommandStore in dicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from common.adapters.memory.state import (
    OTHER_STREAM,
    CommandRow,
    MemoryState,
    ProjectRow,
    copied,
    storable,
)
from common.domain.command import Command, NewCommand, Priority, State, Timeouts, check_run_at
from common.domain.errors import ConcurrencyLimited, Conflict, Forbidden, NotFound, Unauthorized
from common.domain.events import STATE, NewEvent, dumps
from common.domain.identifiers import COMMAND, TRIGGER, new_id, show
from common.domain.keys import Caller
from common.domain.project import Phase
from common.domain.triggers import Match, Outcome
from common.ports.commands import Cancelled, Filter, Firing, Idempotency, Origin, Segment, Submitted

_WAITING = (State.SCHEDULED, State.QUEUED)


class MemoryCommandStore:
    """Commands as callers create, read and change them."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    def submit(
        self,
        command: NewCommand,
        sealed_env: bytes | None,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None = None,
        firing: Firing | None = None,
    ) -> Submitted:
        with self._state.lock:
            first = self._state.replayed(caller, idempotency)
            if first is not None:
                return Submitted(first, replayed=True, doorbell=None)
            if firing is not None:
                self._refuse_firing(firing)
            self._refuse(command, caller)
            row = self._create(command, sealed_env, caller)
            doorbell = new_id() if row.command.state is State.QUEUED else None
            if doorbell is not None:
                self._state.announce(row.command, "queued", doorbell)
            self._record(caller, origin, "command.created", row)
            if firing is not None:
                self._fired(firing, row, caller, origin)
            created = self._state.shown(row)
            self._state.remember(caller, idempotency, created)
            return Submitted(created, replayed=False, doorbell=doorbell)

    def get(self, command_id: UUID) -> Command | None:
        found = self.get_many([command_id])
        return found[0] if found else None

    def get_many(self, command_ids: Sequence[UUID]) -> list[Command]:
        with self._state.lock:
            rows = [self._state.commands.get(command_id) for command_id in command_ids]
            return [self._state.shown(row) for row in rows if row is not None]

    def cancel(
        self,
        command_id: UUID,
        mode: str,
        reason: str,
        outcome: dict[str, Any],
        origin: Origin,
        caller: Caller | None,
    ) -> Cancelled:
        with self._state.lock:
            row = self._state.commands.get(command_id)
            if row is None:
                raise NotFound(f"there is no {show(COMMAND, command_id)}")
            if row.command.ended:
                return Cancelled(ended=True, lease_dead=False, event=None)
            self._record(caller, origin, "command.cancel_requested", row)
            if row.command.state in _WAITING:
                event = new_id()
                self._state.end(row, State.CANCELLED, outcome, event)
                return Cancelled(ended=False, lease_dead=False, event=event)
            return self._mark(row, mode, reason)

    def _mark(self, row: CommandRow, mode: str, reason: str) -> Cancelled:
        if row.command.state is not State.CANCELLING:
            self._state.move(row, State.CANCELLING, reason=reason)
        row.cancel_reason = row.cancel_reason or reason
        row.cancel_mode = "force" if row.cancel_mode == "force" else mode
        dead = self._state.lease_is_dead(row)
        return Cancelled(ended=False, lease_dead=dead, event=None)

    def reprioritise(self, command_id: UUID, priority: int, origin: Origin, caller: Caller) -> bool:
        with self._state.lock:
            row = self._state.commands.get(command_id)
            if row is None or row.command.state not in _WAITING:
                return False
            row.command = replace(row.command, priority=Priority(priority))
            self._record(caller, origin, "command.reprioritised", row)
            return True

    def output(self, command_id: UUID, stream: str, offset: int, max_bytes: int) -> list[Segment]:
        with self._state.lock:
            row = self._state.commands.get(command_id)
            found: list[Segment] = []
            taken = 0
            for event in [stored.event for stored in row.events] if row else []:
                start = event.offset or 0
                if event.stream != stream or start + len(event.data) <= offset:
                    continue
                if taken >= max_bytes:
                    break
                skip = max(0, offset - start)
                found.append(Segment(event.seq, stream, start + skip, event.data[skip:]))
                taken += len(event.data)
            return found

    def output_size(self, command_id: UUID, stream: str) -> tuple[int, bool]:
        with self._state.lock:
            row = self._state.commands.get(command_id)
            if row is None:
                return 0, False
            size = row.err_offset if stream == OTHER_STREAM else row.out_offset
            return size, not row.events or row.events[0].event.seq != 1

    def list(self, wanted: Filter) -> list[Command]:
        with self._state.lock:
            newest_first = reversed(self._state.by_id())
            found = [row for row in newest_first if _matches(row.command, wanted)]
            return [self._state.shown(row) for row in found[: wanted.limit]]

    # -- submitting ------------------------------------------------------------------------------

    def _refuse_firing(self, firing: Firing) -> None:
        before = self._state.seen.get(firing.seen)
        if before is not None and (before.outcome is Outcome.SUBMITTED or not firing.again):
            raise Conflict("this event was seen before", code="event_seen")
        row = self._state.triggers.get(firing.trigger)
        if row is None or not row.trigger.enabled:
            raise Conflict("the trigger was disabled or deleted", code="trigger_off")
        now, rate = self._state.clock(), row.trigger.rate_limit
        row.hits = [hit for hit in row.hits if hit >= now - timedelta(seconds=rate.window_s)]
        if len(row.hits) >= rate.limit:
            raise Conflict("the trigger's limit is used up", code="trigger_limited")
        row.hits.append(now)

    def _fired(self, firing: Firing, row: CommandRow, caller: Caller, origin: Origin) -> None:
        made = row.command.id
        event = (firing.trigger, firing.event_id, firing.source, firing.type)
        self._state.see(firing.seen, Match(*event, Outcome.SUBMITTED, made))
        target = show(TRIGGER, firing.trigger)
        self._state.record(caller, origin, "trigger.fired", target, row.command.project)

    def _refuse(self, command: NewCommand, caller: Caller) -> None:
        key = self._state.keys.get(caller.key_id)
        if key is not None and key.key.revoked_at is not None:
            raise Unauthorized("this key was revoked")
        project = self._state.projects.get(command.project)
        if project is None or project.gone:
            raise NotFound(f"there is no project {command.project!r}")
        allowed = project.found.allowed_commands
        if allowed is not None and command.kind not in allowed:
            raise Forbidden(f"{command.kind} commands are not allowed in {command.project}")
        if command.reject_if_busy and self._is_busy(command.project, project, caller):
            raise ConcurrencyLimited("no free slot, and the command was not to wait for one")
        check_run_at(command.run_at, self._state.clock())
        if command.reject_if_session_busy and self._session_is_busy(command):
            raise Conflict("another command holds this session", code="session_busy")

    def _is_busy(self, name: str, project: ProjectRow, caller: Caller) -> bool:
        if project.paused_at is not None or project.found.phase is not Phase.READY:
            return True
        queued = self._state.queued_in(name)
        if len(self._state.live_in(name)) + len(queued) >= project.found.max_concurrent_commands:
            return True
        own = [row for row in queued if row.command.key_id == caller.key_id]
        most = caller.max_concurrent
        return most is not None and len(self._state.live_of(caller.key_id)) + len(own) >= most

    def _session_is_busy(self, command: NewCommand) -> bool:
        name = command.project
        rows = self._state.live_in(name) + self._state.queued_in(name)
        return any(row.command.session == command.session is not None for row in rows)

    def _create(self, command: NewCommand, sealed_env: bytes | None, caller: Caller) -> CommandRow:
        now = self._state.clock()
        later = command.run_at is not None and command.run_at > now
        state = State.SCHEDULED if later else State.QUEUED
        row = CommandRow(_stored(command, state, caller, now), sealed_env, _deadline(command, now))
        self._state.commands[command.id] = row
        opened = NewEvent(STATE, dumps({"state": state}))
        self._state.append(row, opened, self._state.transaction())
        return row

    def _record(self, caller: Caller | None, origin: Origin, action: str, row: CommandRow) -> None:
        target = show(COMMAND, row.command.id)
        self._state.record(caller, origin, action, target, row.command.project)


def _stored(command: NewCommand, state: State, caller: Caller, now: datetime) -> Command:
    storable(command.project, command.session, command.traceparent, *command.env)
    return Command(
        id=command.id,
        project=command.project,
        key_id=caller.key_id,
        kind=command.kind,
        spec=copied(command.spec),
        priority=command.priority,
        state=state,
        created_at=now,
        labels=copied(command.labels),
        timeouts=Timeouts(**asdict(command.timeouts)),
        env_names=tuple(command.env),
        run_at=command.run_at,
        session=command.session,
        retry_of=command.retry_of,
        traceparent=command.traceparent,
    )


def _deadline(command: NewCommand, now: datetime) -> datetime | None:
    if command.timeouts.queue_s is None:
        return None
    return max(command.run_at or now, now) + timedelta(seconds=command.timeouts.queue_s)


def _matches(command: Command, wanted: Filter) -> bool:
    return (
        (wanted.projects is None or command.project in wanted.projects)
        and (not wanted.states or _shown_state(command, wanted.states) in wanted.states)
        and (not wanted.kinds or command.kind in wanted.kinds)
        and all(command.labels.get(name) == value for name, value in wanted.labels)
        and (wanted.before is None or command.id < wanted.before)
    )


def _shown_state(command: Command, wanted: Sequence[str]) -> str:
    """Callers see a claimed command as queued, so who asks for queued ones gets it too."""
    if command.state is State.CLAIMED and State.CLAIMED not in wanted:
        return State.QUEUED
    return command.state
