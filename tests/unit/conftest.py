"""What unit tests share: one process of a function, made the way production makes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import functions_framework.aio
import httpx
import pytest
import structlog
from starlette.types import ASGIApp

import common.bootstrap
from common.adapters.memory.approvals import MemoryApprovals
from common.adapters.memory.audit import MemoryAuditLog
from common.adapters.memory.claude_files import MemoryClaudeFiles
from common.adapters.memory.dead_letters import MemoryDeadLetters
from common.adapters.memory.oversight import MemoryOversight
from common.adapters.memory.sessions import MemorySessionStore
from common.adapters.memory.state import MemoryState
from common.adapters.memory.triggers import MemoryTriggerStore
from common.adapters.memory.webhooks import MemoryDeliveryQueue, MemoryWebhookStore
from common.bootstrap import App
from common.settings import Settings, read
from tests.unit import fakes

FUNCTIONS = Path(__file__).parents[2] / "functions"

# The console's tracebacks show locals and take a second each; ours never do (adapters/telemetry).
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(default=repr),
    ]
)


class Client:
    """Requests to an ASGI app, in this process and without a socket; one loop a request."""

    def __init__(self, app: ASGIApp, key: str | None, peer: tuple[str, int]) -> None:
        self._app = app
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._peer = peer

    def request(
        self,
        method: str,
        path: str,
        *,
        content: bytes | Sequence[bytes] = b"",
        headers: dict[str, Any] | list[tuple[str, Any]] | None = None,
        **more: Any,
    ) -> httpx.Response:
        """`content` in pieces has no declared length. `headers` as pairs replace the key's."""

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=self._app, client=self._peer)
            async with httpx.AsyncClient(transport=transport, base_url="http://rdev") as client:
                sent = self._headers | headers if isinstance(headers, dict) else headers
                body = content if isinstance(content, bytes) else _pieces(content)
                return await client.request(
                    method, path, content=body, headers=sent or self._headers, **more
                )

        return asyncio.run(ask())

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.request("GET", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.request("POST", path, **more)


async def _pieces(content: Sequence[bytes]) -> AsyncIterator[bytes]:
    for piece in content:
        yield piece


class Api:
    """An App over fakes, and clients of its functions."""

    def __init__(self, settings: Settings) -> None:
        self.commands = fakes.FakeCommands()
        self.keys = fakes.FakeKeys()
        self.audit_state = MemoryState()
        self.audit = MemoryAuditLog(self.audit_state)
        self.files = MemoryClaudeFiles()
        self.oversight = MemoryOversight(self.audit_state)
        self.projects = fakes.FakeProjects("demo", "other")
        self.relay = fakes.FakeRelay()
        self.signals = fakes.FakeSignals()
        self.bell = fakes.FakeBell()
        self.tailer = fakes.FakeTailer()
        self.webhooks = MemoryWebhookStore(self.audit_state)
        self.delivery_queue = MemoryDeliveryQueue(self.audit_state)
        self.courier = fakes.FakeCourier()
        self.sender_bell = fakes.FakeSenderBell()
        self._made: dict[str, ASGIApp] = {}
        self.app = App(
            settings,
            {
                "commands": self.commands,
                "keys": self.keys,
                "audit": self.audit,
                "claude_files": self.files,
                "oversight": self.oversight,
                "projects": self.projects,
                "relay": self.relay,
                "signals": self.signals,
                "bell": self.bell,
                "tailer": self.tailer,
                "approvals": MemoryApprovals(self.audit_state),
                "sessions": MemorySessionStore(self.audit_state),
                "webhooks": self.webhooks,
                "delivery_queue": self.delivery_queue,
                "courier": self.courier,
                "sender_bell": self.sender_bell,
                "sealer": fakes.FakeSealer(),
                "triggers": MemoryTriggerStore(self.audit_state),
                "dead_letters": MemoryDeadLetters(self.audit_state),
            },
        )

    def asgi(self, function: str) -> ASGIApp:
        """As functions-framework makes it from the folder's main.py."""
        if function not in self._made:
            source = str(FUNCTIONS / function / "main.py")
            self._made[function] = functions_framework.aio.create_asgi_app("handle", source, "http")
        return self._made[function]

    def client(self, function: str, key: str | None = None, *, peer: str = "127.0.0.1") -> Client:
        return Client(self.asgi(function), key, (peer, 1))


@pytest.fixture
def make_api(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Api]:
    """Makes an Api with these environment variables, and lets functions find it."""

    def make(**environment: str) -> Api:
        api = Api(read(environment))
        monkeypatch.setattr(common.bootstrap, "app", lambda: api.app)
        return api

    return make


@pytest.fixture
def api(make_api: Callable[..., Api]) -> Api:
    return make_api()
