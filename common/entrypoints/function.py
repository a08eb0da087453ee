"""Declarations: what a function is, said once in its folder.

From these the Knative YAML, openapi.json, the gateway's routes and the docs tables are generated
(infra/generate.py), and the running function is built (entrypoints/http.py, entrypoints/serve.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, TypeAdapter
from starlette.requests import Request
from starlette.types import ASGIApp

Handler = Callable[..., Any]


class Account(StrEnum):
    """The Kubernetes service account of a function: one per kind of access."""

    API = "rdev-api"  # no Kubernetes API at all
    RUNNER = "rdev-runner"  # get pods, exec into them
    WATCHER = "rdev-watcher"  # get, list and watch pods and configmaps


@dataclass(frozen=True)
class Scale:
    """How Knative runs it. `concurrency` is hard, per instance; 0 is unlimited. Seconds for times.

    `timeout_s` caps a whole request and is the pod's grace period; SIGTERM comes 30 s late, so it
    is well above 30 everywhere.
    """

    minimum: int = 0
    maximum: int = 2
    target: int = 20
    concurrency: int = 40
    timeout_s: int = 90
    response_start_s: int | None = None
    burst_capacity: int | None = None


@dataclass(frozen=True)
class Route:
    """One operation. `scopes`: any one of them is enough; empty: open to everybody."""

    method: str
    path: str
    summary: str
    handler: Handler
    scopes: tuple[str, ...] = ()
    body: TypeAdapter[Any] | None = None
    body_optional: bool = False
    body_example: Any = None
    query: type[BaseModel] | None = None
    answer: str = ""  # a model's name in models/resources.py, for openapi.json
    status: int = 200
    others: Mapping[int, str] = field(default_factory=dict)  # further statuses, and what they mean
    answer_example: Any = None
    media_type: str = "application/json"
    idempotent: bool = False
    conditional: bool = False  # wants If-Match
    raw_body: Mapping[str, Any] = field(default_factory=dict)  # read by the handler; examples
    max_body: int | None = None  # bytes; None: RDEV_MAX_BODY
    signed: bool = False  # no key is needed: the body carries a signature
    kind: str = "plain"  # plain | stream | event


@dataclass
class Function:
    """One endpoint = one Knative Service. `name` is the folder's."""

    name: str
    summary: str
    prefixes: tuple[str, ...] = ()
    local_prefixes: tuple[str, ...] = ()
    scale: Scale = field(default_factory=Scale)
    account: Account = Account.API
    secret_keys: bool = False
    claude_credentials: bool = False  # gets those that projects name
    routes: list[Route] = field(default_factory=list)
    trigger: dict[str, str] | None = None  # attributes an event must have exactly
    schedule: str | None = None  # cron, for a PingSource
    watches: tuple[str, ...] = ()  # kinds of Kubernetes objects, for an ApiServerSource
    workspaces: str = ""  # runs only where workspaces are these; empty: everywhere
    dead_letter_sink: bool = False
    rung: bool = False  # its events come from other functions, straight to its address
    salvages: bool = False  # an event that cannot be read reaches the handler too, with its flaw
    startup: list[Callable[[Any], Any]] = field(default_factory=list)
    shutdown: list[Callable[[Any], Any]] = field(default_factory=list)

    @property
    def service(self) -> str:
        """The Knative Service's name."""
        return self.name.replace("_", "-")

    def route(
        self,
        method: str,
        path: str,
        *,
        summary: str,
        scope: str | tuple[str, ...] = (),
        body: Any = None,
        **rest: Any,
    ) -> Callable[[Handler], Handler]:
        """Declare an operation; the decorated handler takes (call) or (call, body)."""
        scopes = (scope,) if isinstance(scope, str) else scope

        def declare(handler: Handler) -> Handler:
            adapter = None if body is None else TypeAdapter(body)
            self.routes.append(Route(method, path, summary, handler, scopes, body=adapter, **rest))
            return handler

        return declare

    def get(self, path: str, **rest: Any) -> Callable[[Handler], Handler]:
        return self.route("GET", path, **rest)

    def post(self, path: str, **rest: Any) -> Callable[[Handler], Handler]:
        return self.route("POST", path, **rest)

    def put(self, path: str, **rest: Any) -> Callable[[Handler], Handler]:
        return self.route("PUT", path, **rest)

    def patch(self, path: str, **rest: Any) -> Callable[[Handler], Handler]:
        return self.route("PATCH", path, **rest)

    def delete(self, path: str, **rest: Any) -> Callable[[Handler], Handler]:
        return self.route("DELETE", path, **rest)

    def stream(self, path: str, **rest: Any) -> Callable[[Handler], Handler]:
        """Declare a stream: the handler is `async (call) -> ASGI app`, run after authorising."""
        return self.route("GET", path, kind="stream", media_type="text/event-stream", **rest)

    def event(self, path: str = "/", *, summary: str) -> Callable[[Handler], Handler]:
        """Declare an event handler `(app, event) -> None`; it is answered with an empty 202."""
        return self.route("POST", path, summary=summary, kind="event", status=202)

    def on_startup(self, hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Run `hook(app)` (may be async) in the process before its first request."""
        self.startup.append(hook)
        return hook

    def on_shutdown(self, hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Run `hook(app)` (may be async) as soon as SIGTERM came, while requests still drain."""
        self.shutdown.append(hook)
        return hook

    def target(self) -> Callable[[Request], Awaitable[ASGIApp]]:
        """What functions-framework calls (FUNCTION_TARGET=handle): it answers an ASGI app."""
        built: list[ASGIApp] = []

        async def handle(request: Request) -> ASGIApp:
            if not built:
                from common.bootstrap import app
                from common.entrypoints.http import build

                built.append(build(self, app()))
            return built[0]

        handle.function = self  # type: ignore[attr-defined]  # serve and generate read it
        return handle
