"""A real HTTP server on loopback whose every answer is written down beforehand.

It speaks as api.md says, and misbehaves exactly where a test wants it to: a step of a script is one
answer, which may be cut at any byte, fall silent, or never come.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

KEY = "rdev_testtest_notasecret"
COMMAND_ID = "cmd_" + "0" * 31 + "1"


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """An answer. `then` is what follows the last byte of the body."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    then: str = "end"  # end | cut (the connection, so that the body is incomplete) | silence
    answers: bool = True  # False: the request is taken, and the connection cut without a word


Step = Reply | Callable[[Seen], Reply]


def answer(value: Any, status: int = 200, **headers: str) -> Reply:
    """JSON."""
    return Reply(
        status, {"content-type": "application/json", **headers}, json.dumps(value).encode()
    )


def problem(status: int, code: str, detail: str = "because", **headers: str) -> Reply:
    """A refusal as RFC 9457 wants it."""
    body = {"type": "t", "title": code, "status": status, "code": code, "detail": detail}
    kind = {"content-type": "application/problem+json"}
    return Reply(status, {**kind, **headers}, json.dumps(body).encode())


LOST = Reply(answers=False)
"""The request arrived, the answer did not."""


def sse(body: bytes, then: str = "end") -> Reply:
    """A stream that consists of `body`."""
    return Reply(200, {"content-type": "text/event-stream"}, body, then)


def block(seq: int, event: str, /, **data: Any) -> bytes:
    """One event as the server encodes it."""
    payload = json.dumps({"seq": seq, **data})
    return f"id: {seq}\nevent: {event}\ndata: {payload}\n\n".encode()


def command(state: str = "queued", **fields: Any) -> dict[str, Any]:
    """A command resource."""
    identifier = fields.pop("id", COMMAND_ID)
    return {
        "id": identifier,
        "project": "demo",
        "kind": "shell",
        "state": state,
        "priority": "normal",
        "queue_position": 0 if state == "queued" else None,
        "created_at": "2026-01-01T00:00:00.000Z",
        "started_at": None,
        "finished_at": None,
        "session_id": None,
        "labels": {},
        "spec": {"argv": ["true"], "streams": "separate"},
        "outcome": None,
        **fields,
    }


def ended(
    state: str = "succeeded", reason: str = "exit_zero", exit_code: int | None = 0, **fields: Any
) -> dict[str, Any]:
    """A command that is over."""
    outcome = {"reason": reason, "exit_code": exit_code, "signal": fields.pop("signal", None)}
    return command(state, outcome=outcome, **fields)


def events(*lines: str, end: dict[str, Any] | None = None, stream: str = "stdout") -> list[bytes]:
    """The events of a command that printed `lines`: queued, running, output…, end."""
    found = [block(1, "state", state="queued"), block(2, "state", state="running")]
    offset = 0
    for line in lines:
        found.append(block(len(found) + 1, "output", stream=stream, offset=offset, text=line))
        offset += len(line.encode())
    return [*found, block(len(found) + 1, "end", **(end or ended()))]


def after(blocks: list[bytes], seen: Seen) -> bytes:
    """What a correct server sends to a request: the events behind its Last-Event-ID."""
    return b"".join(blocks[int(seen.headers.get("last-event-id") or 0) :])


def replay(blocks: list[bytes]) -> Step:
    """A correct stream function: what is missing, or 204 when nothing is."""

    def step(seen: Seen) -> Reply:
        rest = after(blocks, seen)
        return sse(rest) if rest else Reply(204)

    return step


class ScriptedServer:
    """Answers each route with its steps, one after the other; the last one stays."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.url = ""
        self._steps: dict[tuple[str, str], deque[Step]] = {}
        self._arrived = threading.Condition()
        self._app = Starlette(lifespan=self._lifespan)
        self._app.router.default = self._handle
        self._stop = asyncio.Event()

    def on(self, method: str, path: str, *steps: Step) -> None:
        """Script a route."""
        self._steps[method, path] = deque(steps)

    def of(self, method: str, path: str) -> list[Seen]:
        """The requests that a route has had."""
        return [s for s in self.seen if (s.method, s.path) == (method, path)]

    def wait_for(self, method: str, path: str, count: int = 1) -> None:
        """Until a route has had `count` requests."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.of(method, path)) >= count, timeout=20)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._stop = asyncio.Event()
        yield

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        seen = Seen(
            request.method,
            request.url.path,
            dict(request.query_params),
            dict(request.headers),
            await request.body(),
        )
        reply = self._next(seen)
        with self._arrived:
            self.seen.append(seen)
            self._arrived.notify_all()
        await self._send(reply, receive, send)

    def _next(self, seen: Seen) -> Reply:
        steps = self._steps.get((seen.method, seen.path))
        if not steps:
            return problem(404, "not_found", f"no script for {seen.method} {seen.path}")
        step = steps[0] if len(steps) == 1 else steps.popleft()
        return step(seen) if callable(step) else step

    async def _send(self, reply: Reply, receive: Receive, send: Send) -> None:
        if not reply.answers:
            _transport(receive).close()
            return
        headers = [(name.encode(), value.encode()) for name, value in reply.headers.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        open_end = reply.then != "end"
        await send({"type": "http.response.body", "body": reply.body, "more_body": open_end})
        if reply.then == "cut":
            # close() sends what is buffered first; the missing last chunk is what tells the cut.
            _transport(receive).close()
        elif reply.then == "silence":
            while (await receive())["type"] != "http.disconnect":
                pass


def _transport(receive: Receive) -> asyncio.Transport:
    """uvicorn's transport: ASGI itself cannot drop a connection."""
    transport = receive.__self__.transport  # type: ignore[attr-defined]
    assert isinstance(transport, asyncio.Transport)
    return transport


@contextmanager
def serving() -> Iterator[ScriptedServer]:
    """A server on a free port of loopback, in a thread."""
    scripted = ScriptedServer()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    # From here on connections wait for the server instead of being refused.
    listener.listen(128)
    scripted.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(scripted._app, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield scripted
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listener.close()
