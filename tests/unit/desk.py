"""A desk where events arrive: stores in memory, and the services between them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from common.adapters.memory.commands import MemoryCommandStore
from common.adapters.memory.dead_letters import MemoryDeadLetters
from common.adapters.memory.keys import MemoryKeyStore
from common.adapters.memory.projects import MemoryProjectStore
from common.adapters.memory.state import MemoryState
from common.adapters.memory.triggers import MemoryTriggerStore
from common.domain.identifiers import new_id
from common.domain.keys import ApiKey, Caller, RateLimit, hash_of, new_key, prefix_of
from common.domain.project import FoundProject
from common.domain.triggers import Inbound, Trigger
from common.entrypoints.models.commands import new_command
from common.ports.commands import Origin
from common.ports.dead_letters import DeadLetter
from common.services.bury import Bury
from common.services.manage_triggers import ManageTriggers
from common.services.prepare_command import PrepareCommand
from common.services.receive import Receive
from common.services.submit import Submit
from common.services.timers import Timers
from common.services.wakeups import Wakeups
from tests.unit import fakes

ORIGIN = Origin("req_1")
SCRIPT: dict[str, Any] = {
    "project": "demo",
    "kind": "shell",
    "script": "echo {{ data.a }}",
    "env": {},
}
FROM_DATA: dict[str, Any] = {
    "from": "data",
    "projects": ["demo", "other"],
    "kinds": ["shell", "git"],
}


class Desk:
    """Everything an event needs, in memory."""

    def __init__(self) -> None:
        self.state = MemoryState(lambda: self.now)
        self.now = datetime.now(UTC)
        self.keys = MemoryKeyStore(self.state)
        self.triggers = MemoryTriggerStore(self.state)
        self.letters = MemoryDeadLetters(self.state)
        self.commands = MemoryCommandStore(self.state)
        projects = MemoryProjectStore(self.state)
        projects.sync([FoundProject(name, f"/w/{name}") for name in ("demo", "other")], "test")
        self.sealer = fakes.FakeSealer()
        self.prepare = PrepareCommand(self.triggers, self.sealer)
        self.submit = Submit(
            self.commands,
            self.sealer,
            fakes.FakeRelay(),  # type: ignore[arg-type]
            Timers(list),
            Wakeups(fakes.FakeSignals()),
        )
        self.manage = ManageTriggers(self.triggers, self.prepare, self.sealer)
        self.receive = Receive(
            self.triggers, self.prepare, self.submit, Bury(self.letters), lambda: self.now
        )
        self.owner = self.key()

    def key(self, *scopes: str, **fields: Any) -> Caller:
        """Who comes with a key just made; every scope that triggers need when none is given."""
        text = self.key_text(*scopes, **fields)
        [row] = [r for r in self.state.keys.values() if r.hash == hash_of(text)]
        return row.caller

    def key_text(self, *scopes: str, **fields: Any) -> str:
        plain: dict[str, Any] = {"projects": None, "allowed_ips": (), "rate_limit": None}
        held = frozenset(scopes or ("commands:write", "triggers:write", "triggers:broker"))
        text = new_key()
        row = ApiKey(
            new_id(), "k", prefix_of(text), held, max_concurrent=None,
            created_at=datetime(2026, 1, 1, tzinfo=UTC), **plain | fields,
        )  # fmt: skip
        nobody = Caller(UUID(int=1), "x", frozenset(), None)
        self.keys.create(row, hash_of(text), nobody, ORIGIN, None)
        return text

    def trigger(self, command: dict[str, Any] = SCRIPT, **fields: Any) -> Trigger:
        plain: dict[str, Any] = {
            "filter": {"prefix": {"source": "/"}},
            "accept": frozenset({"http", "github", "broker"}),
            "rate_limit": RateLimit(60, 60),
            "created_at": self.now,
            "updated_at": self.now,
        }
        made = Trigger(
            id=new_id(), name="t", key_id=self.owner.key_id, command=command, **plain | fields
        )
        return self.triggers.create(made, b"secret", self.owner, ORIGIN, None).trigger

    def take(self, *events: Inbound, sender: Caller | None = None, again: bool = False) -> Any:
        done = self.receive(events, new_command, ORIGIN, sender, again=again)
        return done[0] if len(done) == 1 else done

    @property
    def made(self) -> list[Any]:
        return [row.command for row in self.state.by_id()]

    @property
    def dead(self) -> list[DeadLetter]:
        return list(self.state.dead_letters.values())
