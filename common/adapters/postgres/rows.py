"""Rows as domain objects, and requests as the JSON that the SQL functions take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final
from uuid import UUID

from common.adapters.postgres.connection import Row
from common.adapters.postgres.parameters import jsonb
from common.domain.command import Command, Kind, Priority, State, Timeouts
from common.domain.errors import Conflict, FieldError, InvalidField
from common.domain.events import Event
from common.domain.keys import Caller, RateLimit
from common.domain.project import Phase, Project
from common.ports.commands import Firing, Idempotency, Origin

HIGHEST_ID: Final = UUID(int=(1 << 128) - 1)
OTHER_STREAM: Final = "stderr"  # counted in err_offset; merged and stdout in out_offset


def to_command(row: Row) -> Command:
    """A row of show_commands, or of claim_view, whose commands have not ended and are held."""
    return Command(
        id=row["id"],
        project=row["project"],
        key_id=row["key_id"],
        kind=Kind(row["kind"]),
        spec=row["spec"],
        priority=Priority(row["priority"]),
        state=State(row["state"]),
        created_at=row["created_at"],
        labels=row["labels"],
        timeouts=Timeouts(**row["timeouts"]),
        env_names=tuple(row["env_names"]),
        run_at=row["run_at"],
        session=row["session"],
        started_at=row["started_at"],
        finished_at=row.get("finished_at"),
        outcome=row.get("outcome"),
        queue_position=row.get("queue_position", 0 if row["state"] == State.CLAIMED else None),
        retry_of=row["retry_of"],
        traceparent=row["traceparent"],
        lease_dead=row.get("lease_dead", False),
    )


def to_project(row: Row, name: str, prefix: str = "") -> Project:
    """A project's columns, which claim_view prefixes."""
    allowed = row[prefix + "allowed_commands"]
    return Project(
        name=name,
        workspace=row[prefix + "workspace"],
        phase=Phase(row[prefix + "phase"]),
        description=row[prefix + "description"],
        namespace=row[prefix + "namespace"],
        pod=row[prefix + "pod"],
        pod_uid=row[prefix + "pod_uid"],
        container=row[prefix + "container"],
        allowed_commands=None if allowed is None else tuple(allowed),
        max_concurrent_commands=row[prefix + "max_concurrent_commands"],
        paused_at=row[prefix + "paused_at"],
        issues=tuple(row[prefix + "issues"]),
        running=row.get("running", 0),
        queued=row.get("queued", 0),
    )


def to_event(row: Row) -> Event:
    """A row of command_events."""
    return Event(
        row["command_id"],
        row["seq"],
        row["at"],
        row["type"],
        row["data"] or b"",
        row["stream"],
        row["off"],
    )


def to_caller(row: Row) -> Caller:
    """Who comes with a key, from the columns of authorise and acting_key."""
    return Caller(
        key_id=row["key_id"],
        name=row["name"],
        scopes=frozenset(row["scopes"]),
        projects=to_set(row["projects"]),
        max_concurrent=row["max_concurrent"],
        rate_limit=to_rate(row),
        allowed_ips=tuple(row["allowed_ips"]),
        expires_at=row["expires_at"],
        unlimited=row["unlimited"],
    )


def to_rate(row: Row) -> RateLimit | None:
    if row["rate_limit"] is None:
        return None
    return RateLimit(row["rate_limit"], row["rate_window_s"])


def to_set(values: Sequence[str] | None) -> frozenset[str] | None:
    return None if values is None else frozenset(values)


def audit(caller: Caller | None, origin: Origin) -> str:
    """Who did it (None: rdev itself) and from where, as the SQL functions take it."""
    who: dict[str, Any] = {"key_id": None, "max_concurrent": None}
    if caller is not None:
        who = {"key_id": str(caller.key_id), "max_concurrent": caller.max_concurrent}
    return jsonb(who | asdict(origin))


def idempotency(given: Idempotency | None) -> str | None:
    """The Idempotency-Key as the SQL functions take it."""
    if given is None:
        return None
    return jsonb({"route": given.route, "key": given.key, "hash": given.request_hash.hex()})


def firing(given: Firing) -> str:
    """What makes an event happen once, as the SQL functions take it."""
    return jsonb(asdict(given) | {"seen": given.seen.hex(), "trigger": str(given.trigger)})


def refuse_idempotency(status: str) -> None:
    """Raise what an Idempotency-Key that cannot be honoured means."""
    if status == "idempotency_in_flight":
        raise Conflict("the first request with this Idempotency-Key is not done", code=status)
    if status == "idempotency_mismatch":
        wrong = FieldError("Idempotency-Key", status, "it was used for another request before")
        raise InvalidField([wrong], code=status)
