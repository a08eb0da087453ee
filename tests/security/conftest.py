"""A house to attack: every function over one memory store, keys and commands as in production."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import common.bootstrap
from common.adapters.memory.approvals import MemoryApprovals
from common.adapters.memory.audit import MemoryAuditLog
from common.adapters.memory.claude_files import MemoryClaudeFiles
from common.adapters.memory.commands import MemoryCommandStore
from common.adapters.memory.dead_letters import MemoryDeadLetters
from common.adapters.memory.events import MemoryEventReader
from common.adapters.memory.keys import MemoryKeyStore
from common.adapters.memory.oversight import MemoryOversight
from common.adapters.memory.projects import MemoryProjectStore
from common.adapters.memory.sessions import MemorySessionStore
from common.adapters.memory.state import MemoryState
from common.adapters.memory.triggers import MemoryTriggerStore
from common.adapters.memory.webhooks import MemoryDeliveryQueue, MemoryWebhookStore
from common.bootstrap import App
from common.domain import identifiers, keys
from common.domain.identifiers import new_id
from common.domain.keys import ApiKey, Caller, RateLimit
from common.domain.project import FoundProject
from common.domain.scopes import ALL
from common.entrypoints import serve
from common.ports.commands import Origin
from common.services.tailing import Tailer
from common.settings import read
from tests.unit import fakes
from tests.unit.conftest import Client

FUNCTIONS = Path(__file__).parents[2] / "functions"
NOBODY = Caller(fakes.KEY, "nobody", frozenset(), None)


class House:
    """Projects `demo` and `other`, and as many keys as an attacker wants."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.state = MemoryState()
        self.commands = MemoryCommandStore(self.state)
        self.files = MemoryClaudeFiles()
        self.key_store = MemoryKeyStore(self.state)
        projects = MemoryProjectStore(self.state)
        projects.sync([FoundProject(name, f"/w/{name}") for name in ("demo", "other")], "test")
        self.app = App(
            read(environment),
            {
                "audit": MemoryAuditLog(self.state),
                "claude_files": self.files,
                "bell": fakes.FakeBell(),
                "commands": self.commands,
                "keys": self.key_store,
                "oversight": MemoryOversight(self.state),
                "projects": projects,
                "relay": fakes.FakeRelay(),
                "approvals": MemoryApprovals(self.state),
                "sessions": MemorySessionStore(self.state),
                "sealer": fakes.FakeSealer(),
                "triggers": MemoryTriggerStore(self.state),
                "dead_letters": MemoryDeadLetters(self.state),
                "signals": fakes.FakeSignals(),
                "tailer": fakes.FakeTailer(),
                "webhooks": MemoryWebhookStore(self.state),
                "delivery_queue": MemoryDeliveryQueue(self.state),
                "sender_bell": fakes.FakeSenderBell(),
            },
        )

    def key(self, *scopes: str, projects: set[str] | None = None, **more: Any) -> str:
        """A stored key's text; every scope when none is given."""
        text = keys.new_key()
        given = frozenset(projects) if projects is not None else None
        plain: dict[str, Any] = {"allowed_ips": (), "rate_limit": None, "max_concurrent": None}
        row = ApiKey(
            new_id(), "test", keys.prefix_of(text), frozenset(scopes or ALL), given,
            created_at=fakes.AT, **plain | more,
        )  # fmt: skip
        self.key_store.create(row, keys.hash_of(text), NOBODY, Origin("req_0"), None)
        return text

    def id_of(self, text: str) -> str:
        """The public id of a key."""
        [row] = [r for r in self.state.keys.values() if r.hash == keys.hash_of(text)]
        return identifiers.show(identifiers.KEY, row.key.id)

    def tailer(self) -> Tailer:
        """A real one, for one request: it belongs to the request's loop."""
        return Tailer(MemoryEventReader(self.state), self.app.signals, self.app.bell)

    def client(self, function: str, key: str | None = None, peer: str = "127.0.0.1") -> Client:
        app, _ = serve.asgi(str(FUNCTIONS / function / "main.py"))
        return Client(app, key, (peer, 1))


@pytest.fixture
def make_house(monkeypatch: pytest.MonkeyPatch) -> Callable[..., House]:
    """Makes a house with these environment variables."""

    def make(**environment: str) -> House:
        house = House(environment)
        monkeypatch.setattr(common.bootstrap, "app", lambda: house.app)
        monkeypatch.setattr(serve, "app", lambda: house.app)
        return house

    return make


@pytest.fixture
def house(make_house: Callable[..., House]) -> House:
    return make_house()


ONE_A_MINUTE = RateLimit(1, 60)
