"""What the ports of this folder share: rows in dicts under one lock, and a clock to turn by hand.

Every call of a port takes the lock for its whole length: that is its transaction.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from common.domain import approval
from common.domain.approval import Approval, ApprovalState
from common.domain.audit import AuditEntry
from common.domain.command import ACTIVE, Command, State
from common.domain.errors import FieldError, InvalidField, InvalidRequest
from common.domain.events import APPROVAL, END, STATE, Event, NewEvent, dumps, timestamp
from common.domain.identifiers import COMMAND, KEY, WEBHOOK, new_id, parse, show
from common.domain.keys import ApiKey, Caller
from common.domain.project import FoundProject
from common.domain.triggers import Match, Trigger
from common.domain.webhooks import Attempt, DeliveryState, Endpoint, Message
from common.ports.commands import Idempotency, Origin
from common.ports.dead_letters import DeadLetter
from common.ports.outbox import OutgoingEvent

Clock = Callable[[], datetime]

OTHER_STREAM: Final = "stderr"
_EVENTS: Final = "ai.orchard9.rdev."
POSITIONS: Final = 1000  # a longer queue is not counted
_SECRET_PARTS: Final = ("result", "structured_output", "permission_denials")


@dataclass
class CommandRow:
    """A command with its hot part: numbering, lease, offsets, and its events."""

    command: Command
    sealed_env: bytes | None
    queue_deadline: datetime | None
    next_seq: int = 1
    token: int = 0
    lease_until: datetime | None = None
    worker: int | None = None
    falls: int = 0
    fell_at_seq: int | None = None
    pod_uid: str | None = None
    out_offset: int = 0
    err_offset: int = 0
    cancel_mode: str | None = None
    cancel_reason: str | None = None
    events: list[StoredEvent] = field(default_factory=list)
    approvals: dict[str, Approval] = field(default_factory=dict)  # by claude's request id
    inputs: dict[str, bytes] = field(default_factory=dict)  # likewise, in the order of sending
    sent: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class StoredEvent:
    """An event and the number of the transaction that wrote it."""

    event: Event
    xid: int


@dataclass
class ProjectRow:
    """A project as its source showed it last."""

    found: FoundProject
    source: str
    gone: bool = False
    paused_at: datetime | None = None


@dataclass
class KeyRow:
    """A key, its hash and the grants of its window, newest first."""

    key: ApiKey
    hash: bytes
    unlimited: bool = False
    hits: list[datetime] = field(default_factory=list)

    @property
    def caller(self) -> Caller:
        """Who comes with it."""
        key = self.key
        return Caller(
            key_id=key.id,
            name=key.name,
            scopes=key.scopes,
            projects=key.projects,
            max_concurrent=key.max_concurrent,
            rate_limit=key.rate_limit,
            allowed_ips=key.allowed_ips,
            expires_at=key.expires_at,
            unlimited=self.unlimited,
        )


@dataclass
class TriggerRow:
    """A trigger, its sealed secrets, and when it made commands lately."""

    trigger: Trigger
    secret: bytes
    before: bytes | None = None
    before_until: datetime | None = None
    hits: list[datetime] = field(default_factory=list)


@dataclass
class OutboxRow:
    """An event that is not published yet; nobody else gets it before `next_at`."""

    event: OutgoingEvent
    created_at: datetime
    next_at: datetime


@dataclass
class WebhookRow:
    """An endpoint with its secrets (sealed, and until when) and how it does."""

    endpoint: Endpoint
    sealed_headers: bytes | None
    secrets: list[tuple[bytes, datetime | None]]
    failures: int = 0
    rests_until: datetime | None = None
    deleted_at: datetime | None = None


@dataclass
class HeardRow:
    """An event that an endpoint may want to hear."""

    message: Message
    project: str | None
    fanned: bool = False


@dataclass
class DeliveryRow:
    """A delivery; `next_at` is the end of its lease while it has one."""

    id: UUID
    endpoint_id: UUID
    event_id: UUID
    created_at: datetime
    next_at: datetime
    state: DeliveryState = DeliveryState.PENDING
    tries: int = 0
    token: int = 0
    lease_until: datetime | None = None
    attempts: list[Attempt] = field(default_factory=list)


@dataclass(frozen=True)
class IdempotencyRow:
    """The first answer to an Idempotency-Key."""

    request_hash: bytes
    response: Any
    created_at: datetime


def now_utc() -> datetime:
    return datetime.now(UTC)


class MemoryState:
    """The whole database. Pass a `clock` to make time go as a test wants it."""

    def __init__(self, clock: Clock = now_utc) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        self.commands: dict[UUID, CommandRow] = {}
        self.projects: dict[str, ProjectRow] = {}
        self.keys: dict[UUID, KeyRow] = {}
        self.outbox: dict[UUID, OutboxRow] = {}
        self.idempotency: dict[tuple[UUID, str, str], IdempotencyRow] = {}
        self.audit: list[AuditEntry] = []
        self.audit_chain: list[tuple[int, bytes]] = []
        self.webhooks: dict[UUID, WebhookRow] = {}
        self.heard: dict[UUID, HeardRow] = {}
        self.deliveries: dict[UUID, DeliveryRow] = {}
        self.dead_letters: dict[UUID, DeadLetter] = {}
        self.triggers: dict[UUID, TriggerRow] = {}
        self.seen: dict[bytes, Match] = {}
        self.lanes: dict[tuple[str, UUID], int] = {}
        self.workers: set[int] = set()
        self.jobs: set[str] = set()
        self.listeners: list[Any] = []
        self.next_xid = 1
        self._turn = 0
        self._audited = 0
        self._seen = 0

    def transaction(self) -> int:
        """A number for the events of one change; they count upwards in the order of commits."""
        self.next_xid += 1
        return self.next_xid - 1

    def turn(self) -> int:
        """Counts claims, so that the least recently served lane is known exactly."""
        self._turn += 1
        return self._turn

    # -- commands --------------------------------------------------------------------------------

    def by_id(self) -> list[CommandRow]:
        """Every command, oldest first."""
        return [self.commands[id_] for id_ in sorted(self.commands)]

    def live_in(self, project: str) -> list[CommandRow]:
        return [r for r in self._live() if r.command.project == project]

    def live_of(self, key_id: UUID) -> list[CommandRow]:
        return [r for r in self._live() if r.command.key_id == key_id]

    def queued_in(self, project: str) -> list[CommandRow]:
        """What waits in a project, in the order of its positions."""
        waiting = [
            r
            for r in self.by_id()
            if r.command.project == project and r.command.state is State.QUEUED
        ]
        return sorted(waiting, key=lambda r: (r.command.priority, r.command.id))

    def lease_is_dead(self, row: CommandRow) -> bool:
        return (
            row.lease_until is None
            or row.lease_until < self.clock()
            or row.worker not in self.workers
        )

    def shown(self, row: CommandRow) -> Command:
        """The command with its computed fields, as a reader gets it."""
        command = row.command
        live = command.state in ACTIVE
        return replace(
            command,
            queue_position=self.position(row),
            lease_dead=live and self.lease_is_dead(row),
        )

    def position(self, row: CommandRow) -> int | None:
        if row.command.state is State.CLAIMED:
            return 0
        if row.command.state is not State.QUEUED:
            return None
        place = self.queued_in(row.command.project).index(row)
        return place + 1 if place < POSITIONS else None

    def append(self, row: CommandRow, event: NewEvent, xid: int) -> None:
        stored = Event(
            row.command.id,
            row.next_seq,
            self.clock(),
            event.type,
            event.data,
            event.stream,
            event.offset,
        )
        row.events.append(StoredEvent(stored, xid))
        row.next_seq += 1

    def move(self, row: CommandRow, state: State, **fields: Any) -> None:
        """A new state with its event."""
        row.command = replace(row.command, state=state)
        self.append(row, NewEvent(STATE, dumps({"state": state} | fields)), self.transaction())

    def end(self, row: CommandRow, state: State, outcome: dict[str, Any], event: UUID) -> None:
        """The final state: outcome, `end` event and outbox row; the secrets go."""
        row.command = replace(
            row.command, state=state, outcome=copied(outcome), finished_at=self.clock()
        )
        row.sealed_env, row.lease_until = None, None
        self._close_approvals(row)
        self.append(row, NewEvent(END, b"{}"), self.transaction())
        self.announce(row.command, str(state), event, outcome)

    def _close_approvals(self, row: CommandRow) -> None:
        """Nobody will answer any more, and what claude wanted to do goes with its command."""
        for request_id, asked in row.approvals.items():
            if asked.state is ApprovalState.PENDING:
                expired = replace(asked, state=ApprovalState.EXPIRED, decided_at=self.clock())
                told = NewEvent(APPROVAL, dumps(approval.event(expired)))
                self.append(row, told, self.transaction())
                row.approvals[request_id] = expired
            row.approvals[request_id] = replace(row.approvals[request_id], input=None)
        row.inputs.clear()

    def _live(self) -> list[CommandRow]:
        return [row for row in self.by_id() if row.command.state in ACTIVE]

    # -- what a change leaves behind ---------------------------------------------------------------

    def announce(
        self, command: Command, type_: str, event: UUID, outcome: dict[str, Any] | None = None
    ) -> None:
        """The CloudEvent of a command: ids only, no output."""
        shown_id = show(COMMAND, command.id)
        data: dict[str, Any] = {
            "id": shown_id,
            "project": command.project,
            "kind": str(command.kind),
            "state": str(command.state),
        }
        if outcome is not None:
            data["outcome"] = _without_text(outcome)
        self.publish(
            OutgoingEvent(
                event,
                f"{_EVENTS}command.{type_}.v1",
                f"projects/{command.project}/commands/{shown_id}",
                data,
                command.traceparent,
            )
        )

    def publish(self, event: OutgoingEvent) -> None:
        """An outbox row; what a webhook may want to hear is kept for it too."""
        now = self.clock()
        type_ = event.type.removeprefix(_EVENTS).removesuffix(".v1")
        live = [row.endpoint for row in self.webhooks.values() if row.deleted_at is None]
        if any(one.event_types is None or type_ in one.event_types for one in live):
            facts = self._facts(event.data["id"]) if type_.startswith("command.") else {}
            message = Message(event.id, type_, now, copied(event.data), facts)
            self.heard[event.id] = HeardRow(message, event.data.get("project"))
            event = replace(event, webhooks=True)
        self.outbox[event.id] = OutboxRow(event, now, now + timedelta(seconds=5))

    def _facts(self, shown_id: str) -> dict[str, Any]:
        command = self.commands[parse(COMMAND, shown_id)].command
        return {
            "key_id": show(KEY, command.key_id),
            "labels": command.labels,
            "session_id": command.session,
            "priority": command.priority.label,
            "retry_of": show(COMMAND, command.retry_of) if command.retry_of else None,
            "created_at": _time(command.created_at),
            "started_at": _time(command.started_at),
            "finished_at": _time(command.finished_at),
        }

    def announce_key(self, what: str, key_id: UUID) -> UUID:
        """The CloudEvent of a key: its id and nothing else."""
        shown = show(KEY, key_id)
        event = OutgoingEvent(new_id(), f"{_EVENTS}key.{what}.v1", f"keys/{shown}", {"id": shown})
        self.publish(event)
        return event.id

    def disable_webhook(self, row: WebhookRow, reason: str) -> UUID | None:
        """Stop an endpoint; its CloudEvent, or None when it was disabled before."""
        if row.endpoint.disabled_at is not None or row.deleted_at is not None:
            return None
        row.endpoint = replace(row.endpoint, disabled_at=self.clock(), disabled_reason=reason)
        shown = show(WEBHOOK, row.endpoint.id)
        data = {"id": shown, "reason": reason}
        type_ = f"{_EVENTS}webhook.disabled.v1"
        event = OutgoingEvent(new_id(), type_, f"webhooks/{shown}", data)
        self.publish(event)
        self.record(None, Origin(""), "webhook.disabled", shown)
        return event.id

    def record(
        self,
        caller: Caller | None,
        origin: Origin,
        action: str,
        target: str,
        project: str | None = None,
    ) -> None:
        key_id = caller.key_id if caller else None
        self.append_audit(
            AuditEntry(
                0,
                self.clock(),
                key_id,
                action,
                target,
                project,
                request_id=origin.request_id,
                client_ip=origin.client_ip,
                peer_ip=origin.peer_ip,
            )
        )

    def append_audit(self, entry: AuditEntry) -> None:
        """Number it and keep it."""
        self._audited += 1
        self.audit.append(replace(entry, number=self._audited))

    def see(self, seen: bytes, match: Match) -> None:
        """Number what became of an event at a trigger, and keep it."""
        self._seen += 1
        self.seen[seen] = replace(match, number=self._seen, at=self.clock())

    # -- idempotency -------------------------------------------------------------------------------

    def replayed(self, caller: Caller, given: Idempotency | None) -> Any:
        """The first response to this key, or None. Raises InvalidField for another request."""
        if given is None:
            return None
        row = self.idempotency.get((caller.key_id, given.route, given.key))
        if row is None:
            return None
        if row.request_hash != given.request_hash:
            code = "idempotency_mismatch"
            wrong = FieldError("Idempotency-Key", code, "it was used for another request before")
            raise InvalidField([wrong], code=code)
        return row.response

    def remember(self, caller: Caller, given: Idempotency | None, response: Any) -> None:
        if given is not None:
            self.idempotency[caller.key_id, given.route, given.key] = IdempotencyRow(
                given.request_hash, response, self.clock()
            )


def _time(at: datetime | None) -> str | None:
    return None if at is None else timestamp(at)


def storable(*texts: str | None) -> None:
    """Raise InvalidRequest for what PostgreSQL cannot hold: NUL and lone surrogates."""
    for text in texts:
        if text is None:
            continue
        if "\0" in text or any(0xD800 <= ord(character) < 0xE000 for character in text):
            raise InvalidRequest("text must be Unicode without NUL")


def copied(value: Any) -> Any:
    """A JSON value of its own. Raises InvalidRequest for text that jsonb refuses."""
    _check(value)
    return json.loads(json.dumps(value, allow_nan=False))


def _check(value: Any) -> None:
    if isinstance(value, str):
        storable(value)
    elif isinstance(value, dict):
        for name, inner in value.items():
            storable(name)
            _check(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check(inner)


def _without_text(outcome: dict[str, Any]) -> dict[str, Any]:
    kept = copied(outcome)
    if isinstance(agent := kept.get("agent"), dict):
        for part in _SECRET_PARTS:
            agent.pop(part, None)
    return dict(kept)
