"""One process = one function: `python -m common.entrypoints.serve`.

functions-framework's ASGI app behind our own uvicorn. Its CLI would close idle connections after 2
s (EOF behind queue-proxy), has no lifespan, and cuts an open stream 30 s after SIGTERM; here
SIGTERM first tells the function (streams ask their clients to reconnect, a runner hands its
commands over), then lets requests finish within the drain budget.

SIGUSR1 is the laptop's Ctrl-C: what runs here is cancelled first, then the process drains.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import logging
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import functions_framework.aio
import httptools
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from common.bootstrap import App, app
from common.domain.errors import (
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    RdevError,
    Unavailable,
    UriTooLong,
)
from common.entrypoints.function import Function
from common.entrypoints.http import request_id
from common.entrypoints.problem import problem
from common.entrypoints.sse import Unwinding
from common.services import telemetry

MAX_URI: Final = 8 * 1024
MAX_HEADERS: Final = 64 * 1024
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
_TOO_LONG: Final = UriTooLong(f"an address may have {MAX_URI} bytes at most")
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")
HEAD_DEADLINE_S: Final = 20.0  # from a head's first byte to its last, as for a body
KEEP_ALIVE_S: Final = 120  # longer than any proxy in front keeps a connection idle

log = telemetry.logger("rdev.serve")


def preload() -> None:
    """Import what most functions need; called once in a zygote before it forks."""
    for name in (
        "common.entrypoints.http",
        "common.entrypoints.sse",
        "common.entrypoints.models",
        "common.adapters.postgres",
        "common.adapters.http",
        "httptools",
        "uvicorn.protocols.http.httptools_impl",
        "uvicorn.lifespan.on",
        "uvicorn.loops.asyncio",
    ):
        importlib.import_module(name)


class Guard:
    """What is refused before any routing: absurd addresses and headers.

    A method of no API, TRACE for one, goes on as OPTIONS, which nothing here answers: the path then
    says 405 with what it does answer, or 404. The framework would end it with a page of its own.
    """

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = Unwinding(inner)  # frames of layers weigh more than a stream: let them go

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            error = _unacceptable(scope)
            if error is not None:
                response = problem(error, request_id(Headers(scope=scope)))
                await response(scope, receive, send)
                return
            if scope["method"] not in METHODS:
                scope = {**scope, "method": "OPTIONS"}
        await self._inner(scope, receive, send)


def _unacceptable(scope: Scope) -> RdevError | None:
    if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_URI:
        return _TOO_LONG
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADERS:
        return InvalidRequest(f"headers may have {MAX_HEADERS} bytes at most")
    # Patterns of routes end at a line's end, and what is not UTF-8 has become U+FFFD by now.
    path = unquote_to_bytes(scope["raw_path"])
    if _CONTROL.search(path):
        return InvalidRequest("the path holds a control character")
    try:
        path.decode("utf-8")
    except UnicodeDecodeError:
        return InvalidRequest("the path is not UTF-8")
    return None


def asgi(source: str, target: str = "handle") -> tuple[ASGIApp, Function]:
    """The whole ASGI app of the function in `source`, and its declaration."""
    framework: Starlette = functions_framework.aio.create_asgi_app(target, source, "http")  # type: ignore[no-untyped-call]
    framework.add_exception_handler(HTTPException, _routing_error)
    module = sys.modules[Path(source).stem]
    function: Function = getattr(module, target).function
    outer = Starlette(
        routes=[
            Route("/health/liveness", _alive),
            Route("/health/readiness", _ready),
            Mount("/", framework),
        ],
        lifespan=_lifespan(function),
        exception_handlers={HTTPException: _routing_error},
    )
    return Guard(outer), function


async def _routing_error(request: Request, error: Exception) -> Response:
    """What Starlette and the framework refuse, told as everything else is."""
    assert isinstance(error, HTTPException)
    said: RdevError = NotFound(f"there is nothing at {request.url.path[:200]!r}")
    if error.status_code == 405:
        said = MethodNotAllowed("this method is not possible here")
    return problem(said, request_id(request.headers), dict(error.headers or {}))


async def _alive(_request: Request) -> Response:
    return JSONResponse({"status": "alive"})


async def _ready(request: Request) -> Response:
    """Loop alive and schema compatible. A database that is down is no reason to take pods away."""
    rid = request_id(request.headers)
    if app().draining.is_set():
        return problem(Unavailable("this instance is stopping", code="shutting_down"), rid)
    try:
        await run_in_threadpool(app().require_compatible_schema)
    except Unavailable as error:
        return problem(error, rid)
    return JSONResponse({"status": "ready"})


def _lifespan(function: Function) -> Callable[[Any], Any]:
    @contextlib.asynccontextmanager
    async def lifespan(_starlette: Any) -> AsyncIterator[None]:
        context = app()
        context.telemetry_started(function.service)
        for hook in function.startup:
            await _call(hook, context)
        leaving = asyncio.create_task(_on_drain(function, context))
        yield
        context.draining.set()
        await leaving
        await run_in_threadpool(context.close)

    return lifespan


async def _on_drain(function: Function, context: App) -> None:
    await context.draining.wait()
    for hook in function.shutdown:
        try:
            await _call(hook, context)
        except (
            Exception
        ) as error:  # the next hook and the drain go on; leases run out by themselves
            log.error("shutdown hook failed", exc_info=error)


async def _call(hook: Callable[[Any], Any], context: App) -> None:
    if inspect.iscoroutinefunction(hook):
        await hook(context)
    else:
        await run_in_threadpool(hook, context)


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP, with an end to waiting for a head, and a problem for what is no HTTP."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect(self.timeout_keep_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect(None)
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._expect(HEAD_DEADLINE_S)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._expect(None)
        super().on_headers_complete()

    def _expect(self, seconds: float | None) -> None:
        """Drop the connection unless what is due has come by then; None: there is no hurry."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None
        if seconds is not None:
            self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        """Called while the parser's error is handled; the connection is of no use after it."""
        error: RdevError = InvalidRequest("this is no HTTP/1.1 request")
        if isinstance(sys.exception(), httptools.HttpParserInvalidMethodError):
            error = MethodNotAllowed("there is no such method")
        elif len(self.url) > MAX_URI:  # the parser gives up before the guard sees it
            error = _TOO_LONG
        answer = problem(error, request_id(Headers()), {"connection": "close"})
        lines = [b"%b: %b\r\n" % pair for pair in answer.raw_headers]
        head = b"".join([STATUS_LINE[answer.status_code], *lines, b"\r\n"])
        self.transport.write(head + bytes(answer.body))
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn that tells the function about SIGTERM before it closes anything."""

    loop: asyncio.AbstractEventLoop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.loop.call_soon_threadsafe(app().draining.set)
        self.should_exit = True

    def cancel_and_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGUSR1: the laptop stops; commands that run here are cancelled, not handed over."""
        app().cancel_on_exit = True
        self.handle_exit(sig, frame)

    async def serve(self, sockets: Any = None) -> None:
        self.loop = asyncio.get_running_loop()
        signal.signal(signal.SIGUSR1, self.cancel_and_exit)
        await super().serve(sockets)


def main() -> None:
    """Serve the function that the environment names."""
    source, target = os.environ["FUNCTION_SOURCE"], os.environ.get("FUNCTION_TARGET", "handle")
    settings = app().settings
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    served, _ = asgi(source, target)
    config = uvicorn.Config(
        served,
        # A container listens on all of its own addresses.
        host=os.environ.get("RDEV_HOST", "0.0.0.0"),  # noqa: S104  # nosec B104
        port=int(os.environ.get("PORT", "8080")),
        http=Protocol,
        loop="asyncio",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.drain_s,
        backlog=2048,
    )
    Server(config).run()


if __name__ == "__main__":
    main()
