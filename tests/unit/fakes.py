"""Ports for the tests of services: small, strict, and without time.

`FakeQueue` refuses what PostgreSQL would refuse: stale tokens, gaps in a stream, arrows that the
state machine does not have. `Faults` lets the n-th call of any port fail, before or after its work.
"""

from __future__ import annotations

import builtins
import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from typing import Any
from uuid import UUID, uuid4

from common.domain import identifiers, keys, receivers
from common.domain.accounting import SessionTotal
from common.domain.agent import AgentState
from common.domain.command import (
    ACTIVE,
    Command,
    Kind,
    NewCommand,
    Priority,
    State,
    Timeouts,
    check_run_at,
    may_follow,
)
from common.domain.errors import Unavailable
from common.domain.events import AGENT, END, NewEvent
from common.domain.keys import ApiKey, Caller
from common.domain.launch import run_id
from common.domain.project import FoundProject, Phase, Project
from common.domain.webhooks import Answer
from common.domain.workspace import Place
from common.ports.commands import Cancelled, Filter, Firing, Idempotency, Origin, Segment, Submitted
from common.ports.keys import CreatedKey, Grant, NewText
from common.ports.outbox import OutgoingEvent
from common.ports.queue import Claim, Held, LeaseLost

KEY = UUID(int=7)
CALLER = Caller(KEY, "test", frozenset({"commands:write", "commands:read"}), None)
AT = datetime(2026, 1, 1, tzinfo=UTC)


def project(name: str = "demo") -> Project:
    return Project(name, f"/workspaces/{name}", Phase.READY)


def command(
    kind: Kind = Kind.SHELL, *, project: str = "demo", state: State = State.QUEUED, **spec: Any
) -> Command:
    defaults = {
        Kind.SHELL: {"argv": ["work"]},
        Kind.GIT: {"args": ["status"]},
        Kind.CLAUDE: {"prompt": ""},
    }
    return Command(
        identifiers.new_id(),
        project,
        KEY,
        kind,
        defaults[kind] | spec,
        Priority.NORMAL,
        state,
        datetime.now(UTC),
        timeouts=Timeouts(None, None, None),
    )


@dataclass
class Row:
    """One command of the fake queue, with what was stored of it."""

    command: Command
    token: int = 0
    held: bool = False
    dead: bool = False
    sealed_env: bytes | None = None
    offsets: dict[str, int] = field(default_factory=dict)
    events: list[NewEvent] = field(default_factory=list)
    cancel_mode: str | None = None
    cancel_reason: str | None = None

    @property
    def states(self) -> list[str]:
        said = [json.loads(e.data).get("state") for e in self.events if e.type == "state"]
        return said + [str(self.command.state)] * self.command.ended

    def bytes_of(self, stream: str) -> bytes:
        return b"".join(e.data for e in self.events if e.stream == stream)


class FakeQueue:
    """Claims in the order of arrival, without limits; leases die when a test says so."""

    def __init__(self) -> None:
        self.rows: dict[UUID, Row] = {}
        self.ended = threading.Condition()
        self.released: list[tuple[UUID, int]] = []
        self.session_totals: dict[UUID, SessionTotal] = {}

    # What a test does.

    def add(self, wanted: Command, sealed_env: bytes | None = None) -> Row:
        row = self.rows[wanted.id] = Row(wanted, sealed_env=sealed_env)
        return row

    def kill_lease(self, row: Row) -> None:
        """The runner is taken for dead: the next `adopt` takes the command."""
        row.dead = True

    def request_cancel(self, row: Row, mode: str = "graceful", reason: str = "user") -> None:
        row.cancel_mode, row.cancel_reason = mode, reason
        self._move(row, State.CANCELLING)

    def wait_ended(self, *rows: Row) -> None:
        with self.ended:
            assert self.ended.wait_for(lambda: all(r.command.ended for r in rows), timeout=20)

    # The port.

    def claim(self, project: str, worker: int) -> Claim | None:
        for row in self.rows.values():
            if row.command.state is State.QUEUED and row.command.project == project:
                self._move(row, State.CLAIMED)
                return self._lease(row)
        return None

    def adopt(self, worker: int, limit: int) -> list[Claim]:
        live = (r for r in self.rows.values() if r.command.state in ACTIVE)
        return [self._lease(row) for row in [r for r in live if r.dead or not r.held][:limit]]

    def heartbeat(self, leases: Sequence[tuple[UUID, int]]) -> list[Held]:
        mine = [self.rows[i] for i, token in leases if self._is_held(i, token)]
        for row in mine:
            row.dead = False
        return [Held(r.command.id, r.cancel_mode, r.cancel_reason) for r in mine]

    def release(self, leases: Sequence[tuple[UUID, int]]) -> None:
        for command_id, token in leases:
            if self._is_held(command_id, token):
                self.rows[command_id].held = False
                self.released.append((command_id, token))

    def append(self, command_id: UUID, token: int, events: Sequence[NewEvent]) -> str | None:
        row = self._row(command_id, token)
        assert events, "a transaction for nothing"
        for event in events:
            if event.stream is not None:
                assert event.offset is not None
                stored = row.offsets.get(event.stream, 0)
                if event.offset < stored:
                    continue
                assert event.offset == stored, "a gap in a stream"
                row.offsets[event.stream] = stored + len(event.data)
            row.events.append(event)
        return row.cancel_mode

    def held(self, command_id: UUID, token: int) -> Claim:
        return self._claim(self._row(command_id, token))

    def agent_state(self, command_id: UUID) -> AgentState:
        events = self.rows[command_id].events
        ends = [
            (e.offset or 0) + len(e.data)
            for e in events
            if e.stream == "stdout" and e.data.endswith(b"\n")
        ]
        return AgentState.of(
            max(ends, default=0), [(e.stream, e.data) for e in events if e.type == AGENT]
        )

    def session_total(self, command_id: UUID) -> SessionTotal | None:
        return self.session_totals.get(command_id)

    def mark_running(self, command_id: UUID, token: int) -> UUID:
        row = self._row(command_id, token)
        if row.command.started_at is None:
            row.command = replace(row.command, started_at=datetime.now(UTC))
            if row.command.state is State.CLAIMED:
                self._move(row, State.RUNNING)
        return uuid4()

    def finish(
        self,
        command_id: UUID,
        token: int,
        state: State,
        outcome: dict[str, Any],
        said: Sequence[NewEvent] = (),
    ) -> UUID | None:
        row = self._row(command_id, token)
        with self.ended:
            assert may_follow(row.command.state, state), f"{row.command.state} → {state}"
            row.command = replace(
                row.command, state=state, outcome=outcome, finished_at=datetime.now(UTC)
            )
            row.held = False
            row.events += [*said, NewEvent(END, b"{}")]
            self.ended.notify_all()
        return identifiers.new_id()

    def stored_digest(self, command_id: UUID, stream: str) -> str:
        return hashlib.sha256(self.rows[command_id].bytes_of(stream)).hexdigest()

    def _move(self, row: Row, state: State) -> None:
        assert may_follow(row.command.state, state)
        row.command = replace(row.command, state=state)
        if state is not State.CLAIMED:
            row.events.append(NewEvent.of("state", {"state": str(state)}))

    def _is_held(self, command_id: UUID, token: int) -> bool:
        row = self.rows[command_id]
        return row.held and row.token == token

    def _row(self, command_id: UUID, token: int) -> Row:
        if not self._is_held(command_id, token):
            raise LeaseLost
        return self.rows[command_id]

    def _lease(self, row: Row) -> Claim:
        row.token, row.held, row.dead = row.token + 1, True, False
        return self._claim(row)

    def _claim(self, row: Row) -> Claim:
        return Claim(
            row.command,
            project(row.command.project),
            row.token,
            row.sealed_env,
            None,
            dict(row.offsets),
            row.cancel_mode,
            row.cancel_reason,
        )


class FakeSealer:
    """Sealing that can be seen through."""

    def seal(self, plain: bytes) -> bytes:
        return b"sealed:" + plain

    def unseal(self, sealed: bytes) -> bytes:
        return sealed.removeprefix(b"sealed:")


class FakeListening:
    def __init__(self) -> None:
        self.worker: int | None = None
        self.closed = False

    def hold(self, worker: int) -> None:
        self.worker = worker

    def close(self) -> None:
        self.closed = True


class FakeSignals:
    """Remembers what was said; a test calls `heard` itself."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []
        self.heard: Callable[[str, str], None] = lambda _channel, _payload: None
        self.listening = FakeListening()

    def notify(self, channel: str, payload: str) -> None:
        self.said.append((channel, payload))

    def listen(self, channels: tuple[str, ...], heard: Callable[[str, str], None]) -> FakeListening:
        self.heard = heard
        return self.listening


class FakeBell:
    """Remembers who was rung for."""

    def __init__(self) -> None:
        self.rung: list[str] = []
        self._changed = threading.Condition()

    def ring(self, project: str) -> None:
        with self._changed:
            self.rung.append(project)
            self._changed.notify_all()

    def wait(self, count: int) -> list[str]:
        """The rings, once there are `count`."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.rung) >= count, timeout=20)
            return list(self.rung)


class FakeSenderBell:
    """Counts rings."""

    def __init__(self) -> None:
        self.rings = 0

    def ring(self) -> None:
        self.rings += 1


class FakeCourier:
    """Answers as a test says, one after the other, and remembers what was posted."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.posted: list[tuple[str, dict[str, str], bytes]] = []
        self.resolves: dict[str, list[str]] = {}
        self.during: Callable[[], object] = lambda: None

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        self.posted.append((url, dict(headers), body))
        self.during()
        return self.answers.pop(0) if self.answers else Answer(200, 1)

    def sign(self, secret: bytes, name: str, at: datetime, body: bytes) -> str:
        return "v1," + secret.decode()

    def check(self, url: str) -> None:
        receiver = receivers.parse(url)
        receivers.check(receiver, self.resolves.get(receiver.host, ["1.1.1.1"]), ())


class FakeOutbox:
    def __init__(self, events: Sequence[OutgoingEvent] = ()) -> None:
        self.rows = {event.id: event for event in events}
        self.forgotten: list[UUID] = []

    def take(self, ids: Sequence[UUID]) -> list[OutgoingEvent]:
        return [self.rows[i] for i in ids if i in self.rows]

    def take_left(self, limit: int) -> list[OutgoingEvent]:
        return list(self.rows.values())[:limit]

    def sent(self, ids: Sequence[UUID]) -> None:
        for i in ids:
            self.rows.pop(i, None)
            self.forgotten.append(i)


class FakePublisher:
    def __init__(self) -> None:
        self.published: list[OutgoingEvent] = []
        self.broken = False
        self.attempts = 0

    def publish(self, event: OutgoingEvent) -> None:
        self.attempts += 1
        if self.broken:
            raise Unavailable("the broker is away")
        self.published.append(event)


class FakeRelay:
    """Remembers which rows it was asked to publish."""

    def __init__(self) -> None:
        self.asked: list[UUID] = []

    def soon(self, *ids: UUID | None) -> None:
        self.asked += [i for i in ids if i is not None]

    presently = soon

    def leftovers(self) -> int:
        return 0

    def close(self) -> None: ...


class Faults:
    """Counts the calls of all ports it wraps and lets the n-th fail, once.

    `after`: the call did its work and its answer is lost, as when a COMMIT is not acknowledged.
    """

    def __init__(
        self,
        at: int,
        *,
        after: bool = False,
        error: type[Exception] | BaseException = Unavailable,
    ) -> None:
        self.calls = 0
        self.fired: str | None = None
        self._at = at
        self._after = after
        self._error = error
        self._lock = threading.Lock()

    def wrap(self, port: Any, *names: str) -> Any:
        return _Faulty(port, names, self)

    def call(self, name: str, work: Callable[[], Any]) -> Any:
        with self._lock:
            self.calls += 1
            mine = self.calls == self._at
            self.fired = name if mine else self.fired
        if mine and not self._after:
            raise self._raised()
        answer = work()
        if mine:
            raise self._raised()
        return answer

    def _raised(self) -> BaseException:
        return self._error if isinstance(self._error, BaseException) else self._error("away")


class _Faulty:
    def __init__(self, port: Any, names: tuple[str, ...], faults: Faults) -> None:
        self._port = port
        self._names = names
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if not callable(found) or (self._names and name not in self._names):
            return found
        return lambda *args, **kw: self._faults.call(name, lambda: found(*args, **kw))


def place(name: str = "demo") -> Place:
    return Place(name, f"/workspaces/{name}")


def run_of(row: Row) -> str:
    return run_id(row.command.id)


class FakeCommands:
    """Commands in a dict; what a test wants to happen is an attribute."""

    def __init__(self, *commands: Command) -> None:
        self.rows = {c.id: c for c in commands}
        self.submitted: list[tuple[NewCommand, bytes | None, Idempotency | None]] = []
        self.refusals: list[Exception] = []
        self.cancelled: list[tuple[UUID, str, str]] = []
        self.cancel_answer = Cancelled(ended=False, lease_dead=False, event=None)
        self.pieces: list[Segment] = []
        self.listed: list[Filter] = []
        self.expired = False
        self.waits = True
        self.replayed = False

    def submit(
        self,
        command: NewCommand,
        sealed_env: bytes | None,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None = None,
        firing: Firing | None = None,
    ) -> Submitted:
        if not self.replayed:
            check_run_at(command.run_at, datetime.now(UTC))
        self.submitted.append((command, sealed_env, idempotency))
        if self.refusals:
            raise self.refusals.pop(0)
        stored = Command(
            command.id,
            command.project,
            caller.key_id,
            command.kind,
            command.spec,
            command.priority,
            State.QUEUED,
            AT,
            session=command.session,
        )
        self.rows[stored.id] = stored
        return Submitted(stored, self.replayed, None if self.replayed else UUID(int=3))

    def get(self, command_id: UUID) -> Command | None:
        return self.rows.get(command_id)

    def get_many(self, command_ids: Sequence[UUID]) -> list[Command]:
        return [self.rows[i] for i in command_ids if i in self.rows]

    def list(self, wanted: Filter) -> builtins.list[Command]:
        self.listed.append(wanted)
        return builtins.list(self.rows.values())[: wanted.limit]

    def cancel(
        self,
        command_id: UUID,
        mode: str,
        reason: str,
        outcome: dict[str, Any],
        origin: Origin,
        caller: Caller | None,
    ) -> Cancelled:
        self.cancelled.append((command_id, mode, reason))
        return self.cancel_answer

    def reprioritise(self, command_id: UUID, priority: int, origin: Origin, caller: Caller) -> bool:
        if self.waits:
            self.rows[command_id] = replace(self.rows[command_id], priority=Priority(priority))
        return self.waits

    def output(
        self, command_id: UUID, stream: str, offset: int, max_bytes: int
    ) -> builtins.list[Segment]:
        """Whole segments that reach beyond `offset`, at least one and about `max_bytes`."""
        found: builtins.list[Segment] = []
        for piece in self.pieces:
            if (
                piece.stream == stream
                and piece.offset + len(piece.data) > offset
                and (not found or piece.offset < offset + max_bytes)
            ):
                found.append(piece)
        return found

    def output_size(self, command_id: UUID, stream: str) -> tuple[int, bool]:
        return sum(len(p.data) for p in self.pieces if p.stream == stream), self.expired


class FakeKeys:
    """Keys by hash; authorises by scope, address and a count that a test sets."""

    def __init__(self) -> None:
        self.rows: dict[bytes, ApiKey] = {}
        self.remaining: int | None = None
        self.away = False
        self.counted: list[bool] = []
        self.revoked: list[UUID] = []
        self.updated: list[tuple[UUID, dict[str, Any]]] = []
        self.rotation = "ok"
        self.replays: ApiKey | None = None

    def make(self, *scopes: str, projects: set[str] | None = None, **more: Any) -> str:
        """A new key's text."""
        text = keys.new_key()
        self.rows[keys.hash_of(text)] = ApiKey(
            identifiers.new_id(),
            "test",
            keys.prefix_of(text),
            frozenset(scopes),
            frozenset(projects) if projects is not None else None,
            more.pop("allowed_ips", ()),
            more.pop("rate_limit", None),
            None,
            AT,
            **more,
        )
        return text

    def authorise(
        self, key_hash: bytes, scopes: Sequence[str], ip: str | None, *, counts: bool
    ) -> Grant:
        if self.away:
            raise Unavailable("the database does not answer")
        key = self.rows.get(key_hash)
        if key is None:
            return Grant("unknown", None)
        caller = Caller(
            key.id,
            key.name,
            key.scopes,
            key.projects,
            rate_limit=key.rate_limit,
            allowed_ips=key.allowed_ips,
            expires_at=key.expires_at,
        )
        if key.allowed_ips and (
            ip is None or not any(ip_address(ip) in ip_network(n) for n in key.allowed_ips)
        ):
            return Grant("ip", caller)
        if scopes and not key.scopes & set(scopes):
            return Grant("scope", caller)
        self.counted.append(counts)
        if self.remaining == 0:
            return Grant("limited", caller, 0, 30.5)
        return Grant("ok", caller, self.remaining, 30.5 if self.remaining is not None else None)

    def create(
        self,
        key: ApiKey,
        key_hash: bytes,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None,
    ) -> CreatedKey:
        if self.replays is not None:
            return CreatedKey(self.replays, replayed=True)
        self.rows[key_hash] = key
        return CreatedKey(key, replayed=False)

    def ensure_admin(self, key: ApiKey, key_hash: bytes) -> None:
        self.rows[key_hash] = key

    def get(self, key_id: UUID) -> ApiKey | None:
        return next((k for k in self.rows.values() if k.id == key_id), None)

    def list(self, before: UUID | None, limit: int) -> builtins.list[ApiKey]:
        newest = sorted(self.rows.values(), key=lambda k: k.id, reverse=True)
        return [k for k in newest if before is None or k.id < before][:limit]

    def update(self, key_id: UUID, changes: dict[str, Any], caller: Caller, origin: Origin) -> str:
        self.updated.append((key_id, changes))
        return "ok"

    def rotate(
        self,
        key_id: UUID,
        new: NewText,
        grace_s: int,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None,
    ) -> CreatedKey | str:
        if self.rotation != "ok":
            return self.rotation
        [old] = [k for k in self.rows.values() if k.id == key_id]
        made = replace(old, id=new.id, prefix=new.prefix)
        self.rows[new.hash] = made
        return CreatedKey(made, replayed=False)

    def revoke(
        self, key_id: UUID, outcome: dict[str, Any], caller: Caller, origin: Origin
    ) -> UUID | None:
        self.revoked.append(key_id)
        return identifiers.new_id()


class FakeProjects:
    def __init__(self, *names: str) -> None:
        self.rows = [project(name) for name in names]

    def list(self) -> builtins.list[Project]:
        return self.rows

    def get(self, name: str) -> Project | None:
        return next((p for p in self.rows if p.name == name), None)

    def sync(
        self, found: Sequence[FoundProject], source: str
    ) -> tuple[builtins.list[str], builtins.list[str]]:
        return [], []


class FakeTailer:
    """Ends when a test says so, or raises what it says."""

    def __init__(self) -> None:
        self.end: Command | None = None
        self.error: Exception | None = None
        self.asked: list[tuple[Any, ...]] = []

    async def wait_for_end(self, command_id: UUID, seconds: float) -> Command | None:
        self.asked.append((command_id, seconds))
        if self.error is not None:
            raise self.error
        return self.end

    async def follow(
        self, command_id: UUID, caller: Caller, last_event_id: str | None = None
    ) -> Any:
        self.asked.append((command_id, last_event_id))
        raise self.error or AssertionError("nothing to follow")

    async def follow_project(
        self, project: str, last_event_id: str | None = None, *, output: bool = False
    ) -> Any:
        self.asked.append((project, last_event_id, output))
        raise self.error or AssertionError("nothing to follow")

    async def close(self) -> None:
        self.asked.append(("closed",))
