"""One world twice: every port over dicts and over a real PostgreSQL, and a clock for both."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from common.adapters.memory.approvals import MemoryApprovals
from common.adapters.memory.audit import MemoryAuditLog
from common.adapters.memory.commands import MemoryCommandStore
from common.adapters.memory.dead_letters import MemoryDeadLetters
from common.adapters.memory.events import MemoryEventReader
from common.adapters.memory.keys import MemoryKeyStore
from common.adapters.memory.outbox import MemoryOutbox
from common.adapters.memory.oversight import MemoryOversight
from common.adapters.memory.projects import MemoryProjectStore
from common.adapters.memory.queue import MemoryQueue
from common.adapters.memory.sessions import MemorySessionStore
from common.adapters.memory.signals import MemorySignals
from common.adapters.memory.state import MemoryState
from common.adapters.memory.status import MemoryStatus
from common.adapters.memory.triggers import MemoryTriggerStore
from common.adapters.memory.upkeep import MemoryUpkeep
from common.adapters.memory.webhooks import MemoryDeliveryQueue, MemoryWebhookStore
from common.adapters.postgres.approvals import PgApprovals
from common.adapters.postgres.audit import PgAuditLog
from common.adapters.postgres.commands import PgCommandStore
from common.adapters.postgres.dead_letters import PgDeadLetters
from common.adapters.postgres.events import PgEventReader
from common.adapters.postgres.keys import PgKeyStore
from common.adapters.postgres.outbox import PgOutbox
from common.adapters.postgres.oversight import PgOversight
from common.adapters.postgres.pool import Database
from common.adapters.postgres.projects import PgProjectStore
from common.adapters.postgres.queue import PgQueue
from common.adapters.postgres.sessions import PgSessionStore
from common.adapters.postgres.signals import PgSignals
from common.adapters.postgres.status import PgStatus
from common.adapters.postgres.triggers import PgTriggerStore
from common.adapters.postgres.upkeep import PgUpkeep
from common.adapters.postgres.webhooks import PgDeliveryQueue, PgWebhookStore
from common.domain.command import Kind, NewCommand, State
from common.domain.events import OUTPUT, NewEvent
from common.domain.identifiers import new_id
from common.domain.keys import ApiKey, Caller, RateLimit, hash_of, new_key, prefix_of
from common.domain.project import FoundProject
from common.ports.approvals import Approvals
from common.ports.audit import AuditLog
from common.ports.commands import CommandStore, Firing, Idempotency, Origin, Submitted
from common.ports.dead_letters import DeadLetters
from common.ports.events import EventReader
from common.ports.keys import KeyStore
from common.ports.outbox import Outbox
from common.ports.oversight import Oversight
from common.ports.projects import ProjectStore
from common.ports.queue import Claim, Queue
from common.ports.sessions import SessionStore
from common.ports.signals import Listening, Signals
from common.ports.status import SystemStatus
from common.ports.triggers import TriggerStore
from common.ports.upkeep import Upkeep
from common.ports.webhooks import DeliveryQueue, WebhookStore

ORIGIN = Origin("req_test", "192.0.2.1", "192.0.2.2")
SOURCE = "test"
DONE = {"reason": "exit_zero", "exit_code": 0}
CANCELLED = {"reason": "user"}
WORKER, OTHER_WORKER = 0x1234_5678_9ABC_DEF0, -77

_numbers = itertools.count()


@dataclass
class World:
    """All ports on one store. `pass_time` lets seconds go by; `pause` pauses a project."""

    commands: CommandStore
    queue: Queue
    events: EventReader
    keys: KeyStore
    projects: ProjectStore
    outbox: Outbox
    signals: Signals
    upkeep: Upkeep
    status: SystemStatus
    audit: AuditLog
    oversight: Oversight
    triggers: TriggerStore
    dead_letters: DeadLetters
    webhooks: WebhookStore
    deliveries: DeliveryQueue
    sessions: SessionStore
    approvals: Approvals
    pass_time: Callable[[float], None]
    pause: Callable[[str, bool], None]
    _listening: list[Listening] = field(default_factory=list)

    def project(self, name: str = "demo", limit: int = 5, **fields: Any) -> FoundProject:
        """A project more, beside those there are."""
        found = FoundProject(name, f"/w/{name}", max_concurrent_commands=limit, **fields)
        others = [
            FoundProject(p.name, p.workspace, max_concurrent_commands=p.max_concurrent_commands)
            for p in self.projects.list()
            if p.name != name
        ]
        self.projects.sync([*others, found], SOURCE)
        return found

    def key(self, **fields: Any) -> tuple[str, Caller]:
        """A stored key: its text, and who comes with it."""
        text = new_key()
        plain: dict[str, Any] = {
            "scopes": frozenset({"commands:write"}),
            "projects": None,
            "allowed_ips": (),
            "rate_limit": None,
            "max_concurrent": None,
        }
        key = ApiKey(
            new_id(), f"key {next(_numbers)}", prefix_of(text), created_at=now(), **plain | fields
        )
        self.keys.create(key, hash_of(text), nobody(key), ORIGIN, None)
        return text, nobody(key)

    def submit(
        self,
        caller: Caller,
        project: str = "demo",
        *,
        idempotency: Idempotency | None = None,
        sealed_env: bytes | None = None,
        firing: Firing | None = None,
        **fields: Any,
    ) -> Submitted:
        plain: dict[str, Any] = {"kind": Kind.SHELL, "spec": {"script": "true"}}
        new = NewCommand(fields.pop("id", None) or new_id(), project, **plain | fields)
        return self.commands.submit(new, sealed_env, caller, ORIGIN, idempotency, firing)

    def claimed(self, project: str = "demo", worker: int = WORKER) -> Claim:
        """The next command, claimed; there must be one."""
        claim = self.queue.claim(project, worker)
        assert claim is not None
        return claim

    def running(self, caller: Caller, project: str = "demo", **fields: Any) -> Claim:
        """A command that runs."""
        self.submit(caller, project, **fields)
        claim = self.claimed(project)
        self.queue.mark_running(claim.command.id, claim.token)
        return claim

    def finish(self, claim: Claim, state: State = State.SUCCEEDED) -> UUID | None:
        return self.queue.finish(claim.command.id, claim.token, state, DONE)

    def alive(self, worker: int) -> Listening:
        """Let a worker hold its lock until the answer is closed."""
        listening = self.signals.listen((), ignore)
        self._listening.append(listening)
        listening.hold(worker)
        return listening

    def close(self) -> None:
        for listening in self._listening:
            listening.close()


def ignore(_channel: str, _payload: str) -> None:
    """For who listens only to hold a lock."""


def now() -> datetime:
    return datetime.now(UTC)


def nobody(key: ApiKey) -> Caller:
    """The caller a key makes."""
    return Caller(
        key.id,
        key.name,
        key.scopes,
        key.projects,
        key.max_concurrent,
        key.rate_limit,
        key.allowed_ips,
    )


def output(data: bytes, offset: int, stream: str = "merged") -> NewEvent:
    return NewEvent(OUTPUT, data, stream, offset)


def rate(limit: int, window_s: int = 60) -> RateLimit:
    return RateLimit(limit, window_s)


@pytest.fixture(params=["memory", "postgres"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "memory":
        made = memory_world()
        yield made
        made.close()
        return
    db = Database(request.getfixturevalue("database_url"))
    made = postgres_world(db)
    yield made
    made.close()
    db.close()


def memory_world() -> World:
    ahead = timedelta()

    def clock() -> datetime:
        return now() + ahead

    def pass_time(seconds: float) -> None:
        nonlocal ahead
        ahead += timedelta(seconds=seconds)

    state = MemoryState(clock)

    def pause(project: str, paused: bool) -> None:
        state.projects[project].paused_at = now() if paused else None

    return World(
        MemoryCommandStore(state),
        MemoryQueue(state),
        MemoryEventReader(state),
        MemoryKeyStore(state),
        MemoryProjectStore(state),
        MemoryOutbox(state),
        MemorySignals(state),
        MemoryUpkeep(state),
        MemoryStatus(state),
        MemoryAuditLog(state),
        MemoryOversight(state),
        MemoryTriggerStore(state),
        MemoryDeadLetters(state),
        MemoryWebhookStore(state),
        MemoryDeliveryQueue(state),
        MemorySessionStore(state),
        MemoryApprovals(state),
        pass_time,
        pause,
    )


# PostgreSQL's clock cannot be turned, so everything it remembers is made older instead.
_MOMENTS = {
    "commands": ("run_at", "queue_deadline", "created_at", "started_at", "finished_at"),
    "command_runs": ("lease_until",),
    "api_keys": ("expires_at", "last_used_at"),
    "approvals": ("requested_at", "expires_at"),
    "outbox": ("created_at", "next_at"),
    "idempotency": ("created_at",),
    "audit_log": ("at",),
    "dead_letters": ("created_at",),
    "triggers": ("before_until",),
    "seen_events": ("at",),
    "webhook_endpoints": ("created_at", "deleted_at"),
    "webhook_health": ("failing_since", "rests_until"),
    "webhook_secrets": ("expires_at",),
    "webhook_events": ("at",),
    "deliveries": ("next_at", "lease_until", "created_at"),
}


def postgres_world(db: Database) -> World:
    def run(sql: str) -> None:
        with db.session() as connection:
            connection.script(sql)

    def pass_time(seconds: float) -> None:
        older = f"interval '{seconds} s'"
        for table, columns in _MOMENTS.items():
            run(f"UPDATE {table} SET " + ", ".join(f"{c} = {c} - {older}" for c in columns))
        run(f"UPDATE rate_limits SET hits = ARRAY(SELECT h - {older} FROM unnest(hits) h)")
        run(f"UPDATE rate_limits SET base = base - {int(seconds)} WHERE base IS NOT NULL")

    def pause(project: str, paused: bool) -> None:
        at = "now()" if paused else "NULL"
        run(f"UPDATE projects SET paused_at = {at} WHERE name = '{project}'")

    return World(
        PgCommandStore(db),
        PgQueue(db),
        PgEventReader(db),
        PgKeyStore(db),
        PgProjectStore(db),
        PgOutbox(db),
        PgSignals(db, _url_of(db)),
        PgUpkeep(db),
        PgStatus(db),
        PgAuditLog(db),
        PgOversight(db),
        PgTriggerStore(db),
        PgDeadLetters(db),
        PgWebhookStore(db),
        PgDeliveryQueue(db),
        PgSessionStore(db),
        PgApprovals(db),
        pass_time,
        pause,
    )


def _url_of(db: Database) -> str:
    target = db.target
    return f"postgresql://{target.user}@/{target.database}?host={target.directory}"
