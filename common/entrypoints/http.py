"""The running form of a declaration: one small ASGI router per function.

Every request goes the same way: limits, key and scope in one database call, strict body, handler,
reply; and every error leaves as problem+json. Handlers are plain functions in a thread; what must
wait answers a `Later`, which is awaited on the loop and holds neither thread nor connection.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, get_origin
from urllib.parse import unquote_to_bytes

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, QueryParams
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Router
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.bootstrap import App
from common.domain import identifiers, keys
from common.domain.errors import (
    InvalidField,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    RdevError,
    Unauthorized,
    UnsupportedMediaType,
)
from common.domain.keys import Caller
from common.entrypoints import client_address, cloud_events, strict_json
from common.entrypoints.call import Call, Reply
from common.entrypoints.function import Function, Route
from common.entrypoints.problem import problem, status_of
from common.entrypoints.rate_headers import rate_headers
from common.ports.commands import Idempotency, Origin
from common.ports.keys import Grant
from common.services import telemetry
from common.services.authorise import acceptable

BODY_DEADLINE_S: Final = 20.0  # a body that arrives slower than this is an attack or a dead client
IDEMPOTENCY_KEY: Final = re.compile(r'"?([\x21\x23-\x7e][\x20\x21\x23-\x7e]{0,254})"?')
_KEY_IN_URL: Final = re.compile(rb"rdev_[0-9A-Za-z]{8}_")
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
log = telemetry.logger("rdev.http")


def build(function: Function, app: App) -> ASGIApp:
    """The ASGI app of one function."""
    by_path: dict[str, list[Route]] = {}
    for route in function.routes:
        by_path.setdefault(route.path, []).append(route)
    routes: list[BaseRoute] = [
        StarletteRoute(path, _Endpoint(function, app, group)) for path, group in by_path.items()
    ]
    return Router(routes, redirect_slashes=False, default=_not_found)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    error = NotFound(f"there is nothing at {scope['path'][:200]!r}")
    await problem(error, request_id(Headers(scope=scope)))(scope, receive, send)


_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


def request_id(headers: Headers) -> str:
    """The caller's X-Request-Id when it is a plain token, else one of ours."""
    given = headers.get("x-request-id", "")
    if _REQUEST_ID.fullmatch(given):
        return given
    return identifiers.show(identifiers.REQUEST, identifiers.new_id())


class _Endpoint:
    """All methods of one path."""

    def __init__(self, function: Function, app: App, routes: list[Route]) -> None:
        self.service = function.service
        self.app = app
        self.routes = {route.method: route for route in routes}
        self.salvages = function.dead_letter_sink or function.salvages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        rid = request_id(headers)
        route = self.routes.get(scope["method"]) or self._head(scope["method"])
        with telemetry.request(self.service, scope["method"], route, headers, rid) as seen:
            try:
                if route is None:
                    raise MethodNotAllowed("this method is not possible here")
                reply = await self._answer(route, scope, receive, headers, rid)
            except RdevError as error:
                self._note(error, route, scope, headers, rid)
                reply = self._refuse(error, rid, route, headers)
            except Exception as error:
                seen.failed(error)
                reply = problem(RdevError("something broke on our side"), rid)
            seen.status = getattr(reply, "status_code", 200)
            await reply(scope, receive, send)

    def _head(self, method: str) -> Route | None:
        route = self.routes.get("GET") if method == "HEAD" else None
        return route if route is not None and route.kind == "plain" else None

    def _note(
        self, error: RdevError, route: Route | None, scope: Scope, headers: Headers, rid: str
    ) -> None:
        """Let the audit trail know what was refused, by the public part of the key only."""
        if route is None or not (route.scopes or route.signed):
            return
        self.app.refusals.note(
            status_of(error)[0],
            error.code,
            f"{route.method} {route.path}",
            self._origin(scope, headers, rid),
            key_id=error.who,
            prefix=_shown_key(scope, headers),
            project=scope.get("path_params", {}).get("project"),
        )

    def _refuse(self, error: RdevError, rid: str, route: Route | None, headers: Headers) -> ASGIApp:
        if route is not None and route.kind == "stream":
            from common.entrypoints.sse import refusal

            gentle = refusal(error, headers)
            if gentle is not None:
                return gentle
        extra: dict[str, str] = {}
        if isinstance(error, MethodNotAllowed):
            head = ["HEAD"] if self._head("HEAD") else []
            extra["allow"] = ", ".join(sorted([*self.routes, *head]))
        if isinstance(error, RateLimited):
            extra |= rate_headers(error.limit, error.window_s, 0, error.retry_after)
        return problem(error, rid, extra)

    async def _answer(
        self, route: Route, scope: Scope, receive: Receive, headers: Headers, rid: str
    ) -> ASGIApp:
        origin = self._origin(scope, headers, rid)
        token = _token(scope, headers) if route.scopes else None
        if route.kind == "event":
            await _run(route.handler, self.app, await self._event(receive, headers))
            return Response(status_code=202)
        has_body = route.method not in ("GET", "DELETE", "HEAD")
        limit = route.max_body or self.app.settings.max_body
        body = await _read(receive, headers, limit) if has_body else b""
        call = Call(self.app, origin, scope.get("path_params", {}), headers, raw_body=body)
        try:
            if route.kind == "stream":
                await run_in_threadpool(self._prepare, call, route, scope, token)
                app: ASGIApp = await route.handler(call)
                return app
            reply, grant = await run_in_threadpool(self._handle, call, route, scope, token)
            if callable(reply):
                reply = await reply()
        except RdevError as error:
            error.who = call.caller_or_none.key_id if call.caller_or_none else error.who
            raise
        return _response(reply, grant, rid)

    async def _event(self, receive: Receive, headers: Headers) -> cloud_events.IncomingEvent:
        try:
            body = await _read(receive, headers, self.app.settings.max_body)
        except PayloadTooLarge as error:
            if not self.salvages:
                raise
            return cloud_events.unreadable(headers, b"", error.detail)
        return (cloud_events.salvage if self.salvages else cloud_events.parse)(headers, body)

    def _origin(self, scope: Scope, headers: Headers, rid: str) -> Origin:
        s = self.app.settings
        peer = scope["client"][0] if scope.get("client") else None
        client = client_address.client(
            peer,
            headers.getlist("x-forwarded-for"),
            s.trusted_proxies,
            edge_overwrites=s.edge_overwrites,
        )
        return Origin(rid, client, peer)

    def _prepare(self, call: Call, route: Route, scope: Scope, token: str | None) -> Grant | None:
        """Authorise, then read query and idempotency key; runs in a thread."""
        grant = None
        if token is not None:
            resumed = route.kind == "stream" and "last-event-id" in call.headers
            grant = self.app.authorise(
                token, acceptable(route.scopes), call.origin, counts=not resumed
            )
            call.caller_or_none = grant.caller
        call.query = _query(route, scope)
        if route.idempotent and grant is not None:
            call.idempotency = _idempotency(route, call)
        return grant

    def _handle(
        self, call: Call, route: Route, scope: Scope, token: str | None
    ) -> tuple[Any, Grant | None]:
        grant = self._prepare(call, route, scope, token)
        if route.body is None:
            return route.handler(call), grant
        if route.body_optional and not call.raw_body.strip():
            return route.handler(call, strict_json.model(route.body, b"{}")), grant
        _require_json(call.headers)
        return route.handler(call, strict_json.model(route.body, call.raw_body)), grant


async def _run(handler: Callable[..., Any], app: App, event: Any) -> None:
    if inspect.iscoroutinefunction(handler):
        await handler(app, event)
    else:
        await run_in_threadpool(handler, app, event)


def _response(reply: Reply, grant: Grant | None, rid: str) -> Response:
    headers = {"x-request-id": rid, "cache-control": "no-store"} | reply.headers
    caller: Caller | None = grant.caller if grant else None
    if grant and caller and caller.rate_limit and grant.remaining is not None:
        limit = caller.rate_limit
        headers |= rate_headers(limit.limit, limit.window_s, grant.remaining, grant.reset_s or 0)
    if reply.content is None and reply.status in (202, 204):
        return Response(status_code=reply.status, headers=headers)
    if isinstance(reply.content, Iterator):
        return StreamingResponse(reply.content, reply.status, headers, reply.media_type)
    return Response(reply.body(), reply.status, headers, reply.media_type)


def _token(scope: Scope, headers: Headers) -> str:
    """The key text of a request. A key in a URL, two keys, or another scheme is no key."""
    if _KEY_IN_URL.search(unquote_to_bytes(scope.get("query_string", b""))):
        raise Unauthorized("a key never goes into a URL; send it as Authorization: Bearer")
    bearer, plain = headers.getlist("authorization"), headers.getlist("x-api-key")
    if len(bearer) + len(plain) != 1:
        raise Unauthorized("send exactly one key, as Authorization: Bearer rdev_…")
    if plain:
        return plain[0]
    scheme, _, token = bearer[0].partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthorized("send the key as Authorization: Bearer rdev_…")
    return token.strip()


def _shown_key(scope: Scope, headers: Headers) -> str:
    """The public part of the key that was sent; nothing of what only looks like one."""
    try:
        token = _token(scope, headers)
    except Unauthorized:
        return ""
    return keys.prefix_of(token) if keys.is_well_formed(token) else ""


def _require_json(headers: Headers) -> None:
    kind = headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise UnsupportedMediaType("send the body as application/json")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("send the body without content-encoding")


async def _read(receive: Receive, headers: Headers, limit: int) -> bytes:
    """The whole body, refused before it is buffered when it is over `limit` bytes."""
    length = headers.get("content-length", "0")
    if not _LENGTH.fullmatch(length):
        raise InvalidRequest("Content-Length is no number")
    if int(length) > limit:
        raise PayloadTooLarge(f"a body may have {limit} bytes at most")
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            while True:
                message: Message = await receive()
                if message["type"] == "http.disconnect":
                    raise InvalidRequest("the client went away")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > limit:
                    raise PayloadTooLarge(f"a body may have {limit} bytes at most")
                if not message.get("more_body"):
                    return b"".join(parts)
    except TimeoutError:
        raise InvalidRequest(f"the body did not arrive within {BODY_DEADLINE_S:g} s") from None


def _query(route: Route, scope: Scope) -> Any:
    params = QueryParams(scope.get("query_string", b""))
    if route.query is None:
        return None
    lists = {n for n, f in route.query.model_fields.items() if get_origin(f.annotation) is list}
    values: dict[str, Any] = {}
    for name in params:
        given = params.getlist(name)
        if name not in lists and len(given) > 1:
            raise InvalidField.one(name, "repeated", f"{name}: give it once")
        values[name] = given if name in lists else given[0]
    return strict_json.query(route.query, values)


def _idempotency(route: Route, call: Call) -> Idempotency | None:
    given = call.headers.getlist("idempotency-key")
    if not given:
        return None
    match = IDEMPOTENCY_KEY.fullmatch(given[0]) if len(given) == 1 else None
    if match is None:
        raise InvalidRequest(
            "Idempotency-Key must be given once, 1 to 255 printable ASCII characters"
        )
    path = route.path.format_map(dict(call.path))
    digest = hashlib.sha256(f"{path}\n{call.query!r}\n".encode() + call.raw_body).digest()
    return Idempotency(f"{route.method} {path}", match[1], digest)
