"""Brings requests and events to functions: by public path prefix, or by cluster-local address.

The public listener stands for the gateway in front of Knative, the internal one for the addresses
`http://<function>.rdev.svc.cluster.local` and for the broker's ingress. Bodies pass through as they
come, both ways at once; a client that goes away takes its request to the function with it.
"""

import asyncio
import html
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from infra.local.delivery import Response
from infra.local.manifests import Destination, FunctionSpec
from infra.local.scaler import Function
from infra.local.wire import (
    Answer,
    Body,
    ClientPool,
    Handler,
    Headers,
    HttpError,
    PeerGoneError,
    Reply,
    Request,
    complete_body,
    problem_body,
)

_SERVICES = "/services/"
_BROKER = "/broker"
# An edge overwrites what a client could forge; RDEV_EDGE_OVERWRITES=1 tells the functions so.
_FORGEABLE = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-real-ip",
    }
)
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})
_ATTEMPTS = 3


class Routes:
    """The longest path prefix wins; a prefix matches whole path segments, as in an HTTPRoute."""

    def __init__(self, specs: Iterable[FunctionSpec]) -> None:
        self.prefixes: Mapping[str, str] = {
            prefix.rstrip("/") or "/": spec.name for spec in specs for prefix in spec.path_prefixes
        }

    def match(self, path: str) -> str | None:
        """Return the name of the function that owns a path."""
        prefix = path.rstrip("/")
        while prefix:
            if prefix in self.prefixes:
                return self.prefixes[prefix]
            prefix = prefix.rpartition("/")[0]
        return self.prefixes.get("/")


class Gateway:
    """What both listeners do with a request."""

    def __init__(self, functions: Mapping[str, Function], broker: Handler) -> None:
        self._functions = functions
        self._broker = broker
        self.closed = False  # set while shutting down: streams run on, nothing new begins
        self._routes = Routes(function.spec for function in functions.values())

    async def public(self, request: Request, reply: Reply) -> None:
        """Answer a request from outside the cluster."""
        name = self._routes.match(request.path)
        if self.closed:
            raise HttpError(503, "shutting_down", "rdev is shutting down")
        if name is not None:
            await forward(self._functions[name], request, reply)
        elif b"text/html" in (request.header(b"accept") or b""):
            page = self._not_found_page(request.path)
            reply.send(404, [(b"content-type", b"text/html; charset=utf-8")], page)
        else:
            raise HttpError(404, "not_found", f"nothing is served under {request.path}")

    async def internal(self, request: Request, reply: Reply) -> None:
        """Answer a request from inside: `/broker` and `/services/<function>/<path>`."""
        path = request.path
        if path == _BROKER:
            await self._broker(request, reply)
            return
        name, slash, _ = path.removeprefix(_SERVICES).partition("/")
        if not path.startswith(_SERVICES) or name not in self._functions:
            raise HttpError(404, "not_found", f"there is no cluster-local address {path}")
        target = request.target[len(_SERVICES) + len(name) :]
        request.target = target if slash else b"/" + target
        await forward(self._functions[name], request, reply)

    def _not_found_page(self, path: str) -> bytes:
        links = "".join(
            f'<li><a href="{html.escape(prefix)}">{html.escape(prefix)}</a></li>'
            for prefix in sorted(self._routes.prefixes)
        )
        shown = html.escape(path)
        return (
            "<!doctype html><title>rdev: not found</title>"
            f"<p>Nothing is served under <code>{shown}</code>, but under these prefixes:</p>"
            f"<ul>{links}</ul>"
        ).encode()


async def forward(function: Function, request: Request, reply: Reply) -> None:
    """Pass a request to an instance of a function and its answer back, cut at timeoutSeconds."""
    limits = function.spec
    try:
        async with asyncio.timeout(limits.timeout_s):
            async with call(
                function,
                request.method,
                request.target,
                _from_edge(request.headers, request.peer),
                request.body,
                response_start_s=limits.response_start_timeout_s or limits.idle_timeout_s,
            ) as answer:
                await _relay(answer, reply, limits.idle_timeout_s)
    except TimeoutError:
        # As queue-proxy does: a clean end with this text in it, however far the answer had come.
        if not reply.started:
            raise HttpError(504, "not_ready", "request timeout") from None
        reply.cut(b"request timeout")


class EventSender:
    """POSTs events to functions, and to any `http://` address that a manifest names."""

    def __init__(self, functions: Mapping[str, Function], *, background: bool = False) -> None:
        self._functions = functions
        self._background = background
        self._pools: dict[tuple[str, int], ClientPool] = {}

    async def __call__(
        self, destination: Destination, headers: Headers, body: bytes, timeout_s: float
    ) -> Response:
        """Return the whole answer; raise OSError or TimeoutError when there is none."""
        async with asyncio.timeout(timeout_s):
            if destination.service is None:
                return await self._post_away(destination.uri, headers, body)
            function = self._functions[destination.service]
            try:
                return await self._post(function, destination.uri or "/", headers, body)
            except HttpError as error:
                answer_headers = [
                    (k.lower().encode(), v.encode()) for k, v in error.headers.items()
                ]
                return Response(error.status, answer_headers, problem_body(error))

    async def _post(self, function: Function, path: str, headers: Headers, body: bytes) -> Response:
        headers = [(b"host", f"{function.spec.name}.rdev.svc.cluster.local".encode()), *headers]
        async with (
            asyncio.timeout(function.spec.timeout_s),
            call(
                function,
                "POST",
                path.encode(),
                headers,
                complete_body(body),
                background=self._background,
            ) as answer,
        ):
            return Response(answer.status, answer.headers, await answer.body.read_all())

    async def _post_away(self, uri: str, headers: Headers, body: bytes) -> Response:
        url = urlsplit(uri)
        if url.scheme != "http" or url.hostname is None:
            raise OSError(f"{uri} is not an http:// address")
        address = (url.hostname, url.port or 80)
        pool = self._pools.setdefault(address, ClientPool(*address))
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        connection = await pool.get()
        try:
            headers = [(b"host", url.netloc.encode()), *headers]
            answer = await connection.request("POST", target.encode(), headers, complete_body(body))
            return Response(answer.status, answer.headers, await answer.body.read_all())
        finally:
            pool.put(connection)


@asynccontextmanager
async def call(
    function: Function,
    method: str,
    target: bytes,
    headers: Headers,
    body: Body,
    *,
    response_start_s: float | None = None,
    background: bool = False,
) -> AsyncIterator[Answer]:
    """Send a request to a function and yield its answer; the slot is held until the body was read.

    Raises HttpError when the function cannot start (503) or ends without an answer (502), and
    TimeoutError when there is no answer after `response_start_s`.
    """
    repeatable = method in _REPEATABLE and body.ended
    for _ in range(_ATTEMPTS):
        async with function.slot(background=background) as instance:
            try:
                connection = await instance.pool.get()
            except OSError:
                function.discard(instance)
                continue  # nothing was sent
            try:
                async with asyncio.timeout(response_start_s):
                    answer = await connection.request(method, target, headers, body)
            except PeerGoneError as gone:
                # An instance may die at any moment; what is safe to do twice is sent once more.
                if not repeatable:
                    raise _no_answer(function, gone) from gone
                repeatable = False
            else:
                yield answer
                return
            finally:
                instance.pool.put(connection)
    raise HttpError(503, "not_ready", f"{function.spec.name} accepts no connections")


async def _relay(answer: Answer, reply: Reply, idle_s: float | None) -> None:
    reply.start(answer.status, answer.headers)
    while True:
        reply.write(answer.body.take())
        if answer.body.ended:
            break
        await reply.flush()
        async with asyncio.timeout(idle_s):
            reply.write(await answer.body.read())
    reply.end()


def _from_edge(headers: Headers, peer: str) -> Headers:
    kept = [pair for pair in headers if pair[0] not in _FORGEABLE]
    kept.append((b"x-forwarded-for", peer.encode("ascii")))
    return kept


def _no_answer(function: Function, gone: PeerGoneError) -> HttpError:
    return HttpError(502, "not_ready", f"{function.spec.name} ended before it answered: {gone}")
