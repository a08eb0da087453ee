"""Queue on PostgreSQL. Small batches of events go in by one call, large ones by binary COPY."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from common.adapters.postgres import rows
from common.adapters.postgres.batch import Batch
from common.adapters.postgres.connection import Connection, Row
from common.adapters.postgres.parameters import jsonb
from common.adapters.postgres.pool import Database
from common.domain.accounting import SessionTotal
from common.domain.agent import AgentState
from common.domain.command import TERMINAL, Kind, State, sources_of
from common.domain.events import NewEvent
from common.domain.identifiers import new_id
from common.ports.queue import LEASE_S, Claim, Held, LeaseLost
from common.services import telemetry

log = telemetry.logger("rdev.queue")

COPY_FROM_BYTES: Final = (
    64 * 1024
)  # from here on COPY is faster than JSON (tests/load/bench_queue.py)
_DIGEST_BYTES: Final = 1024 * 1024
_SOURCES: Final = {end: [str(source) for source in sources_of(end)] for end in TERMINAL}
_COPY: Final = (
    "COPY command_events (day, command_id, seq, project, at, type, stream, off, data) "
    "FROM STDIN (FORMAT binary)"
)


class PgQueue:
    """Claim, lease, append, finish."""

    def __init__(self, db: Database, *, lease_s: float = LEASE_S) -> None:
        self._db = db
        self._lease_s = lease_s

    def claim(self, project: str, worker: int) -> Claim | None:
        row = self._db.one("claim", project=project, worker=worker, lease_s=self._lease_s)
        if row is None:
            return None
        self._db.run("make_durable")  # nothing starts that a crash of the server could forget
        return to_claim(row)

    def adopt(self, worker: int, limit: int) -> list[Claim]:
        if self._db.run("end_stalled", lease_s=self._lease_s)[0]["ended"]:
            log.warning("a stopped process lost its transaction")
        found = self._db.run("adopt", worker=worker, lease_s=self._lease_s, limit=limit)
        return [to_claim(row) for row in found]

    def held(self, command_id: UUID, token: int) -> Claim:
        row = self._db.one("held", id=command_id, token=token)
        if row is None:
            raise LeaseLost
        return to_claim(row)

    def heartbeat(self, leases: Sequence[tuple[UUID, int]]) -> list[Held]:
        if not leases:
            return []
        found = self._db.run("heartbeat", **_columns(leases), lease_s=self._lease_s)
        return [Held(row["command_id"], row["cancel_mode"], row["cancel_reason"]) for row in found]

    def release(self, leases: Sequence[tuple[UUID, int]]) -> None:
        if leases:
            self._db.run("release", **_columns(leases))

    def append(self, command_id: UUID, token: int, events: Sequence[NewEvent]) -> str | None:
        batch = Batch(events)
        answer = self._append(command_id, token, batch)
        if answer["first_seq"] is None:
            batch = batch.without_stored(answer["out_offset"], answer["err_offset"])
            if batch.events:
                answer = self._append(command_id, token, batch)
                if answer["first_seq"] is None:
                    raise LeaseLost  # somebody else writes under this token
        mode: str | None = answer["cancel_mode"]
        return mode

    def mark_running(self, command_id: UUID, token: int) -> UUID:
        event = new_id()
        answer = self._db.one("mark_running", id=command_id, token=token, event=event)
        if not (answer and answer["held"]):
            raise LeaseLost
        return event

    def finish(
        self,
        command_id: UUID,
        token: int,
        state: State,
        outcome: dict[str, Any],
        said: Sequence[NewEvent] = (),
    ) -> UUID | None:
        event = new_id()
        end: dict[str, Any] = {
            "id": command_id,
            "token": token,
            "sources": _SOURCES[state],
            "state": str(state),
            "outcome": jsonb(outcome),
            "event": event,
        }
        if said:
            answer = self._db.atomically(lambda tx: _finish_saying(tx, said, end))
        else:
            answer = self._db.run("finish", **end)[0]
        if answer["status"] == "stale":
            raise LeaseLost
        return event if answer["status"] == "ok" else None

    def stored_digest(self, command_id: UUID, stream: str) -> str:
        digest = hashlib.sha256()
        offset = 0
        while found := self._db.run(
            "output", id=command_id, stream_name=stream, offset=offset, max_bytes=_DIGEST_BYTES
        ):
            for row in found:
                digest.update(row["data"])
                offset = row["off"] + len(row["data"])
        return digest.hexdigest()

    def agent_state(self, command_id: UUID) -> AgentState:
        start = self._db.one("line_start", id=command_id)
        rows = self._db.run("agent_lines", id=command_id)
        said = [(row["stream"], row["data"]) for row in rows]
        return AgentState.of(start["line_start"] if start else 0, said)

    def session_total(self, command_id: UUID) -> SessionTotal | None:
        row = self._db.one("session_total", id=command_id)
        return SessionTotal.stored(row["total"]) if row else None

    def _append(self, command_id: UUID, token: int, batch: Batch) -> Row:
        if batch.size >= COPY_FROM_BYTES:
            return self._db.atomically(lambda tx: _copy(tx, command_id, token, batch))
        answer = self._db.one(
            "append_events",
            id=command_id,
            token=token,
            events=_as_json(batch.events),
            out=batch.out.as_range(),
            err=batch.err.as_range(),
        )
        if answer is None:
            raise LeaseLost
        return answer


def _copy(tx: Connection, command_id: UUID, token: int, batch: Batch) -> Row:
    found = tx.run(
        "reserve_events",
        {
            "id": command_id,
            "token": token,
            "count": len(batch.events),
            "out": batch.out.as_range(),
            "err": batch.err.as_range(),
        },
    )
    if not found:
        raise LeaseLost
    if found[0]["first_seq"] is not None:
        tx.copy(_COPY, batch.binary(command_id, found[0]))
    return found[0]


def _finish_saying(tx: Connection, said: Sequence[NewEvent], end: dict[str, Any]) -> Row:
    """Both or neither; an end that is there already takes no events (its lease is over)."""
    lease = {"id": end["id"], "token": end["token"], "out": None, "err": None}
    tx.run("append_events", lease | {"events": _as_json(said)})
    return tx.run("finish", end)[0]


def _as_json(events: Sequence[NewEvent]) -> str:
    return json.dumps(
        [
            {
                "type": event.type,
                "stream": event.stream,
                "off": event.offset,
                "data": base64.b64encode(event.data).decode("ascii"),
            }
            for event in events
        ]
    )


def _columns(leases: Sequence[tuple[UUID, int]]) -> dict[str, list[Any]]:
    return {"ids": [lease[0] for lease in leases], "tokens": [lease[1] for lease in leases]}


def to_claim(row: Row) -> Claim:
    """A row of claim_view."""
    command = rows.to_command(row)
    separate = command.kind is Kind.CLAUDE or command.spec.get("streams") == "separate"
    main = {"stdout" if separate else "merged": row["out_offset"]}
    return Claim(
        command=command,
        project=rows.to_project(row, command.project, prefix="p_"),
        token=row["lease_token"],
        sealed_env=row["env_sealed"],
        pod_uid=row["pod_uid"],
        offsets=main | ({rows.OTHER_STREAM: row["err_offset"]} if separate else {}),
        cancel_mode=row["cancel_mode"],
        cancel_reason=row["cancel_reason"],
    )
