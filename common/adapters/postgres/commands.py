"""CommandStore on PostgreSQL: each change is one call of one SQL function, so one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from common.adapters.postgres import rows
from common.adapters.postgres.connection import Row
from common.adapters.postgres.parameters import jsonb
from common.adapters.postgres.pool import Database
from common.domain.command import (
    ACTIVE,
    RUN_AT_FAR,
    RUN_AT_PAST,
    WAITING,
    Command,
    NewCommand,
    Priority,
    State,
)
from common.domain.errors import (
    ConcurrencyLimited,
    Conflict,
    Forbidden,
    InvalidField,
    NotFound,
    Unauthorized,
)
from common.domain.identifiers import COMMAND, new_id, show
from common.domain.keys import Caller
from common.ports.commands import Cancelled, Filter, Firing, Idempotency, Origin, Segment, Submitted

_OPEN: Final = frozenset(str(state) for state in ACTIVE | WAITING)


class PgCommandStore:
    """Commands as callers create, read and change them."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def submit(
        self,
        command: NewCommand,
        sealed_env: bytes | None,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None = None,
        firing: Firing | None = None,
    ) -> Submitted:
        event = new_id()
        given = {
            "command": _as_json(command),
            "env": sealed_env,
            "audit": rows.audit(caller, origin),
            "event": event,
        }
        if firing is None:
            answer = self._db.one("submit", idempotency=rows.idempotency(idempotency), **given)
        else:
            answer = self._db.one("fire", firing=rows.firing(firing), **given)
        assert answer is not None
        if answer["status"] == "replay":
            return Submitted(self._as_created(answer["snapshot"]), replayed=True, doorbell=None)
        if answer["status"] != "ok":
            raise _refusal(answer["status"], command)
        created = _created(command, caller, answer["snapshot"])
        return Submitted(created, replayed=False, doorbell=_if_queued(created, event))

    def _as_created(self, snapshot: dict[str, Any]) -> Command:
        """The command as its first answer showed it."""
        now = self.get(UUID(snapshot["id"]))
        if now is None:
            raise NotFound("the command this Idempotency-Key made has expired")
        return replace(
            now,
            state=State(snapshot["state"]),
            priority=Priority(snapshot["priority"]),
            queue_position=snapshot["queue_position"],
            started_at=None,
            finished_at=None,
            outcome=None,
            lease_dead=False,
        )

    def get(self, command_id: UUID) -> Command | None:
        found = self.get_many([command_id])
        return found[0] if found else None

    def get_many(self, command_ids: Sequence[UUID]) -> list[Command]:
        return [rows.to_command(row) for row in self._db.run("command_get", ids=list(command_ids))]

    def list(self, wanted: Filter) -> list[Command]:
        found = self._db.run(
            _list_query(wanted), **_list_parameters(wanted), before=wanted.before or rows.HIGHEST_ID
        )
        return [rows.to_command(row) for row in found]

    def cancel(
        self,
        command_id: UUID,
        mode: str,
        reason: str,
        outcome: dict[str, Any],
        origin: Origin,
        caller: Caller | None,
    ) -> Cancelled:
        event = new_id()
        answer = self._db.one(
            "cancel",
            id=command_id,
            mode=mode,
            reason=reason,
            outcome=jsonb(outcome),
            event=event,
            audit=rows.audit(caller, origin),
        )
        assert answer is not None
        if answer["status"] == "unknown":
            raise NotFound(f"there is no {show(COMMAND, command_id)}")
        return Cancelled(
            ended=answer["status"] == "ended",
            lease_dead=answer["lease_dead"],
            event=event if answer["status"] == "cancelled" else None,
        )

    def reprioritise(self, command_id: UUID, priority: int, origin: Origin, caller: Caller) -> bool:
        answer = self._db.one(
            "reprioritise",
            id=command_id,
            priority=int(priority),
            audit=rows.audit(caller, origin),
        )
        return bool(answer and answer["changed"])

    def output(self, command_id: UUID, stream: str, offset: int, max_bytes: int) -> list[Segment]:  # type: ignore[valid-type]
        found = self._db.run(
            "output", id=command_id, stream_name=stream, offset=offset, max_bytes=max_bytes
        )
        return [_from_offset(row, stream, offset) for row in found]

    def output_size(self, command_id: UUID, stream: str) -> tuple[int, bool]:
        row = self._db.one("output_size", id=command_id)
        if row is None:
            return 0, False
        size = row["err_offset" if stream == rows.OTHER_STREAM else "out_offset"]
        return size, row["expired"]


def _as_json(command: NewCommand) -> str:
    return jsonb(
        {
            "id": str(command.id),
            "project": command.project,
            "kind": command.kind,
            "spec": command.spec,
            "env_names": list(command.env),
            "priority": int(command.priority),
            "labels": command.labels,
            "session": command.session,
            "timeouts": asdict(command.timeouts),
            "run_at": command.run_at.isoformat() if command.run_at else None,
            "retry_of": str(command.retry_of) if command.retry_of else None,
            "traceparent": command.traceparent,
            "reject_if_busy": command.reject_if_busy,
            "reject_if_session_busy": command.reject_if_session_busy,
        }
    )


def _created(command: NewCommand, caller: Caller, snapshot: dict[str, Any]) -> Command:
    return Command(
        id=command.id,
        project=command.project,
        key_id=caller.key_id,
        kind=command.kind,
        spec=command.spec,
        priority=command.priority,
        state=State(snapshot["state"]),
        created_at=datetime.fromisoformat(snapshot["created_at"]),
        labels=command.labels,
        timeouts=command.timeouts,
        env_names=tuple(command.env),
        run_at=command.run_at,
        session=command.session,
        queue_position=snapshot["queue_position"],
        retry_of=command.retry_of,
        traceparent=command.traceparent,
    )


def _if_queued(command: Command, event: UUID) -> UUID | None:
    return event if command.state is State.QUEUED else None


_NOT_FIRED: Final = {
    "event_seen": "this event was seen before",
    "trigger_off": "the trigger was disabled or deleted",
    "trigger_limited": "the trigger's limit is used up",
}
_RUN_AT: Final = {"run_at_past": RUN_AT_PAST, "run_at_far": RUN_AT_FAR}


def _refusal(status: str, command: NewCommand) -> Exception:
    rows.refuse_idempotency(status)
    if status == "no_project":
        return NotFound(f"there is no project {command.project!r}")
    if status == "kind_not_allowed":
        return Forbidden(f"{command.kind} commands are not allowed in {command.project}")
    if status == "key_revoked":
        return Unauthorized("this key was revoked")
    if status == "concurrency_limited":
        return ConcurrencyLimited("no free slot, and the command was not to wait for one")
    if status in _RUN_AT:
        return InvalidField.one(*_RUN_AT[status])
    if status in _NOT_FIRED:
        return Conflict(_NOT_FIRED[status], code=status)
    if status == "session_busy":
        return Conflict("another command holds this session", code=status)
    return AssertionError(f"submit_command answered {status}")


def _list_query(wanted: Filter) -> str:
    if wanted.states and _OPEN.issuperset(wanted.states):
        return "command_list_open"
    return "command_list" if wanted.projects is None else "command_list_projects"


def _list_parameters(wanted: Filter) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "states": _with_claimed(wanted.states),
        "kinds": list(wanted.kinds),
        "labels": jsonb(dict(wanted.labels)),
        "limit": wanted.limit,
    }
    if _list_query(wanted) != "command_list":
        parameters["projects"] = None if wanted.projects is None else sorted(wanted.projects)
    return parameters


def _with_claimed(states: Sequence[str]) -> Sequence[str]:
    """Callers see a claimed command as queued, so who asks for queued ones gets it too."""
    return [*states, str(State.CLAIMED)] if State.QUEUED in states else states


def _from_offset(row: Row, stream: str, offset: int) -> Segment:
    skip = max(0, offset - row["off"])
    return Segment(row["seq"], stream, row["off"] + skip, row["data"][skip:])
