"""HTTP/1.1 on asyncio transports: a server half and a client half that never buffer a body.

Written by hand on httptools because the gateway adds to every request of every function: an ASGI
server plus an HTTP client cost several times as much per request, and hide the two things a proxy
needs: back-pressure from one connection to the other, and the moment a peer goes away. The
decision is docs/decisions/0007-local-gateway.md.

A body read by one side is paused at `HIGH_WATER` bytes until the other side has taken them.
"""

import asyncio
import json
import logging
import re
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast

import httptools

Headers = list[tuple[bytes, bytes]]

HIGH_WATER = 256 * 1024
MAX_HEAD_BYTES = 60 * 1024  # Envoy's default, so what passes here passes in a cluster
MAX_TARGET_BYTES = 8 * 1024
MAX_BODY_BYTES = 16 * 1024 * 1024
HEAD_DEADLINE_S = 20.0  # from a head's first byte to its last: who takes longer only holds a place
IDLE_S = 120.0  # longer than any client keeps a connection for its next request
STALLED_WRITE_S = 300.0  # Envoy's stream_idle_timeout: who reads nothing for so long is gone
_LINGER_S = 2.0
_PIPELINE_MAX = 8

log = logging.getLogger("rdev.gateway")

# RFC 9110, section 7.6.1: they concern one connection and are not forwarded.
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade "
    b"proxy-authenticate proxy-authorization expect".split()
)


class HttpError(Exception):
    """A request that is answered here with a problem, and with which status."""

    def __init__(
        self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})


class PeerGoneError(ConnectionError):
    """The other end closed the connection; `answered` tells whether it had begun to answer."""

    def __init__(self, detail: str, *, answered: bool = False) -> None:
        super().__init__(detail)
        self.answered = answered


class Body:
    """Bytes on their way from one connection to another."""

    def __init__(self, transport: asyncio.Transport | None = None) -> None:
        self._transport = transport
        self._chunks: list[bytes] = []
        self._size = 0
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self.ended = False
        self.before_first_wait: Callable[[], None] | None = None

    def feed(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER and self._transport is not None and not self._paused:
            self._transport.pause_reading()
            self._paused = True
        self._wake()

    def end(self) -> None:
        self.ended = True
        self._wake()

    def fail(self, error: Exception) -> None:
        if not self.ended:
            self._error = self._error or error
            self._wake()

    def take(self) -> bytes:
        """Return what has arrived, at once; empty when nothing has."""
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def read(self) -> bytes:
        """Return the next bytes, empty at the end; raise what ended the body too early."""
        while not self._chunks:
            if self.ended:
                return b""
            if self._error is not None:
                raise self._error
            if self.before_first_wait is not None:
                self.before_first_wait()
                self.before_first_wait = None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self.take()

    async def read_all(self, limit: int = MAX_BODY_BYTES) -> bytes:
        """Return the whole body; raise HttpError 413 when it is longer than `limit` bytes."""
        parts, size = [], 0
        while chunk := await self.read():
            size += len(chunk)
            if size > limit:
                raise HttpError(413, "payload_too_large", f"the body exceeds {limit} bytes")
            parts.append(chunk)
        return b"".join(parts)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


@dataclass(slots=True)
class Request:
    """One request; header names are lower-case, `target` is what the client sent."""

    method: str
    target: bytes
    headers: Headers
    body: Body
    peer: str

    @property
    def path(self) -> str:
        return self.target.partition(b"?")[0].decode("latin-1")

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key == name), None)


@dataclass(slots=True)
class Answer:
    """A response whose body may still be arriving."""

    status: int
    headers: Headers
    body: Body = field(default_factory=Body)

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key == name), None)


class _Writing(asyncio.Protocol):
    """The half that both directions share: writes that wait when the peer does not read."""

    def __init__(self) -> None:
        self.transport = cast("asyncio.Transport", None)
        self._drained: asyncio.Future[None] | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def pause_writing(self) -> None:
        loop = asyncio.get_running_loop()
        self._drained = loop.create_future()
        self._stalled = loop.call_later(STALLED_WRITE_S, self.transport.abort)

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self.resume_writing()

    async def drain(self) -> None:
        if self._drained is not None:
            await asyncio.shield(self._drained)


class Reply:
    """How a handler answers: `start`, any number of `write`, then `end`."""

    def __init__(self, connection: "ServerConnection", request: Request, *, http_1_0: bool) -> None:
        self._connection = connection
        self._request = request
        self._head_only = request.method == "HEAD"
        self._http_1_0 = http_1_0
        self._pending: list[bytes] = []
        self._chunked = False
        self.started = False
        self.ended = False

    def start(self, status: int, headers: Headers) -> None:
        """Begin the answer; it is framed by its content-length, or in chunks when it has none."""
        self.started = True
        lines = [b"HTTP/1.1 %d %s\r\n" % (status, _reason(status))]
        has_length = False
        for name, value in headers:
            if name not in HOP_BY_HOP:
                has_length = has_length or name == b"content-length"
                lines.append(b"%b: %b\r\n" % (name, value))
        if not has_length and status >= 200 and status not in {204, 304}:
            self._chunked = not self._http_1_0
            if self._chunked:
                lines.append(b"transfer-encoding: chunked\r\n")
            else:
                self._connection.close_after_reply()
        if not self._request.body.ended:
            self._connection.close_after_reply()  # what is still to come may never be read
        if self._connection.closing:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        self._pending = lines

    def write(self, data: bytes) -> None:
        if self._head_only or not data:
            return
        if self._chunked:
            self._pending += (b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self._pending.append(data)

    async def flush(self) -> None:
        """Send what was written; wait while the client does not read."""
        self._send()
        await self._connection.drain()

    def end(self) -> None:
        if self._chunked and not self._head_only:
            self._pending.append(b"0\r\n\r\n")
        self._send()
        self.ended = True

    def cut(self, text: bytes) -> None:
        """End a started answer early, with a last word where its framing allows one."""
        if self._chunked:
            self.write(text)
            self.end()
        else:
            self._connection.transport.abort()

    def send(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer in one go."""
        self.start(status, [*headers, (b"content-length", b"%d" % len(body))])
        self.write(body)
        self.end()

    def problem(self, error: HttpError) -> None:
        """Answer with an RFC 9457 problem."""
        headers = [(b"content-type", b"application/problem+json")]
        headers += [(name.lower().encode(), text.encode()) for name, text in error.headers.items()]
        self.send(error.status, headers, problem_body(error))

    def _send(self) -> None:
        if self._pending:
            self._connection.transport.write(b"".join(self._pending))
            self._pending = []


Handler = Callable[[Request, Reply], Awaitable[None]]


@dataclass(slots=True)
class _Exchange:
    request: Request
    reply: Reply
    refusal: HttpError | None


class ServerConnection(_Writing):
    """One client's connection: parses requests and lets `handler` answer them one by one."""

    def __init__(self, handler: Handler) -> None:
        super().__init__()
        self._handler = handler
        self._parser = httptools.HttpRequestParser(self)
        self._requests: deque[_Exchange] = deque()
        self._arrived: asyncio.Future[None] | None = None
        self._current: Body | None = None
        self._target = b""
        self._headers: Headers = []
        self._head_bytes = 0
        self._body_bytes = 0
        self._in_head = False
        self._discarding = False
        self._task: asyncio.Task[None] | None = None
        self._peer = ""
        self._lingering = False
        self._deadline: asyncio.TimerHandle | None = None
        self.closing = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._peer = transport.get_extra_info("peername")[0]
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        if self.closing and self._current is None:
            return
        if self._in_head or self._current is None:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.closing = True  # answered as plain HTTP/1.1, then closed
        except httptools.HttpParserInvalidMethodError:
            self._refuse(HttpError(405, "method_not_allowed", "there is no such method"))
        except httptools.HttpParserError as error:
            self._refuse(HttpError(400, "invalid_request", f"not an HTTP/1.1 request: {error}"))
        if self._in_head and len(self._target) > MAX_TARGET_BYTES:
            self._refuse(_too_long_target())
        elif self._in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(_too_large_head())

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._expect(None)
        if self._current is not None:
            self._current.fail(PeerGoneError("the client went away"))
        if self._task is not None:
            self._task.cancel()

    # httptools callbacks

    def on_message_begin(self) -> None:
        self._target, self._headers = b"", []
        self._body_bytes = 0
        self._in_head = True
        self._expect(HEAD_DEADLINE_S)

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._expect(None)
        body = Body(self.transport)
        method = self._parser.get_method().decode("ascii")
        request = Request(method, _origin_form(self._target), self._headers, body, self._peer)
        reply = Reply(self, request, http_1_0=self._parser.get_http_version() == "1.0")
        if not self._parser.should_keep_alive():
            self.close_after_reply()
        refusal = self._refusal_of(request)
        self._discarding = refusal is not None
        self._current = body
        if (request.header(b"expect") or b"").lower() == b"100-continue":
            body.before_first_wait = self._send_continue
        self._requests.append(_Exchange(request, reply, refusal))
        if len(self._requests) > _PIPELINE_MAX:
            self.transport.pause_reading()
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self._current is None or self._discarding:
            return
        if self._body_bytes > MAX_BODY_BYTES:
            self._discarding = True
            self._current.fail(_too_large_body())
        else:
            self._current.feed(data)

    def on_message_complete(self) -> None:
        if self._current is not None:
            self._current.end()
            self._current = None
        if self._lingering:
            self.transport.close()

    # the conversation

    def close_after_reply(self) -> None:
        self.closing = True

    async def _serve(self) -> None:
        while True:
            exchange = await self._next()
            if exchange.refusal is not None:
                self.closing = True
                exchange.reply.problem(exchange.refusal)
            else:
                await self._answer(exchange.request, exchange.reply)
            if not exchange.request.body.ended:
                return self._linger(exchange.request.body)
            if self.closing and not self._requests:
                return self.transport.close()

    async def _answer(self, request: Request, reply: Reply) -> None:
        try:
            await self._handler(request, reply)
        except HttpError as error:
            if reply.started:
                self.transport.abort()  # the client must see that the answer is not whole
            else:
                reply.problem(error)
        except PeerGoneError:
            self.transport.abort()
        except Exception:
            log.exception("%s %s failed in the gateway", request.method, request.path)
            self.transport.abort()

    def _linger(self, body: Body) -> None:
        """Read on but keep nothing: a reset would take the answer from a client in mid-send."""
        self.closing = self._lingering = self._discarding = True
        body.take()
        if not self.transport.is_closing():
            self.transport.write_eof()
            asyncio.get_running_loop().call_later(_LINGER_S, self.transport.abort)

    async def _next(self) -> _Exchange:
        if not self._requests and not self._in_head and self._current is None:
            self._expect(IDLE_S)
        while not self._requests:
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        if len(self._requests) > _PIPELINE_MAX:
            self.transport.resume_reading()
        return self._requests.popleft()

    def _expect(self, seconds: float | None) -> None:
        """Give the client so long for what comes next; None: there is no hurry."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None
        if seconds is not None:
            self._deadline = asyncio.get_running_loop().call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        if self._in_head:
            late = f"the head did not arrive within {HEAD_DEADLINE_S:g} s"
            self._refuse(HttpError(400, "invalid_request", late))
        self.transport.close()

    def _refusal_of(self, request: Request) -> HttpError | None:
        if sum(len(name) + len(value) + 4 for name, value in request.headers) > MAX_HEAD_BYTES:
            return _too_large_head()
        if len(request.target) > MAX_TARGET_BYTES:
            return _too_long_target()
        if int(request.header(b"content-length") or 0) > MAX_BODY_BYTES:
            return _too_large_body()
        return None

    def _refuse(self, error: HttpError) -> None:
        """Answer what is not even a request, behind nothing that still runs."""
        if self.closing:
            return
        self.closing = True
        if self._current is not None:
            self._current.fail(error)
        elif not self._requests and self._arrived is not None and not self._arrived.done():
            nothing = Request("GET", b"", [], complete_body(b""), self._peer)
            Reply(self, nothing, http_1_0=False).problem(error)
            self.transport.close()
        self._in_head = False

    def _send_continue(self) -> None:
        self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


class ClientConnection(_Writing):
    """A connection to a function: one request at a time, reused while both sides keep it open."""

    def __init__(self) -> None:
        super().__init__()
        self._answer: asyncio.Future[Answer] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._headers: Headers = []
        self._body: Body | None = None
        self._head_only = False
        self._interim = False
        self._until_close = False
        self._pump: asyncio.Task[None] | None = None
        self.reusable = False
        self.on_close: Callable[[ClientConnection], None] | None = None

    async def request(self, method: str, target: bytes, headers: Headers, body: Body) -> Answer:
        """Send a request and return its answer's head; raise PeerGoneError when there is none."""
        if self.closed:
            raise PeerGoneError("the connection was closed")
        self.reusable = False
        self._head_only = method == "HEAD"
        self._until_close = self._interim = False
        self._body = None
        self._headers = []
        self._parser = httptools.HttpResponseParser(self)
        self._answer = asyncio.get_running_loop().create_future()
        has_length = any(name == b"content-length" for name, _ in headers)
        chunked = not body.ended and not has_length
        if body.ended:
            data = body.take()
            if data and not has_length:
                headers = [*headers, (b"content-length", b"%d" % len(data))]
            self.transport.write(_request_head(method, target, headers) + data)
        else:
            head = _request_head(method, target, headers)
            self.transport.write(head[:-2] + _CHUNKED if chunked else head)
            self._pump = asyncio.get_running_loop().create_task(self._send(body, chunked=chunked))
        return await self._answer

    def abort(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
        self.transport.abort()

    async def _send(self, body: Body, *, chunked: bool) -> None:
        try:
            while chunk := await body.read():
                parts = (b"%x\r\n" % len(chunk), chunk, b"\r\n") if chunked else (chunk,)
                self.transport.writelines(parts)
                await self.drain()
            if chunked:
                self.transport.write(b"0\r\n\r\n")
        except (HttpError, PeerGoneError) as error:
            if self._answer is not None and not self._answer.done():
                self._answer.set_exception(error)
            self.transport.abort()

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        if self._parser is None:
            self.transport.abort()  # bytes that belong to no request: the stream is out of step
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(PeerGoneError(f"the function's answer is not HTTP/1.1: {error}"))
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        if self._pump is not None:
            self._pump.cancel()
        if self._until_close and error is None and self._body is not None:
            self._body.end()
        self._fail(PeerGoneError("the function closed the connection"))
        if self.on_close is not None:
            self.on_close(self)

    def _fail(self, error: PeerGoneError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        elif self._body is not None:
            error.answered = True
            self._body.fail(error)

    # httptools callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        assert self._answer is not None
        status = self._parser.get_status_code()
        self._interim = status < 200
        if self._interim:
            self._headers = []
            return
        self._body = Body(self.transport)
        answer = Answer(status, self._headers, self._body)
        framed = {b"content-length", b"transfer-encoding"} & {name for name, _ in self._headers}
        self._until_close = not framed and status not in {204, 304} and not self._head_only
        if not self._answer.done():
            self._answer.set_result(answer)
        if self._head_only:
            self._complete(self._body)

    def on_body(self, data: bytes) -> None:
        if self._body is not None:
            self._body.feed(data)

    def on_message_complete(self) -> None:
        if self._body is not None and not self._interim and not self._body.ended:
            self._complete(self._body)

    def _complete(self, body: Body) -> None:
        assert self._parser is not None
        sent = self._pump is None or self._pump.done()
        self.reusable = self._parser.should_keep_alive() and sent and not self._until_close
        self._parser = None
        self._pump = None if sent else self._pump
        body.end()


class ClientPool:
    """Open connections to one address, newest used first."""

    IDLE_S = 30.0  # below every server's keep-alive, so that we are the side that closes

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._idle: list[tuple[float, ClientConnection]] = []

    async def get(self) -> ClientConnection:
        """Return an open connection; raise OSError when none can be opened."""
        loop = asyncio.get_running_loop()
        while self._idle:
            since, connection = self._idle.pop()
            if not connection.closed and loop.time() - since < self.IDLE_S:
                return connection
            connection.transport.close()
        _, fresh = await loop.create_connection(ClientConnection, *self._address)
        fresh.on_close = self._forget
        return fresh

    def put(self, connection: ClientConnection) -> None:
        """Take a connection back; one that cannot be used again is closed."""
        if connection.reusable and not connection.closed:
            self._idle.append((asyncio.get_running_loop().time(), connection))
        else:
            connection.abort()

    def close(self) -> None:
        for _, connection in self._idle:
            connection.transport.close()
        self._idle.clear()

    def _forget(self, connection: ClientConnection) -> None:
        self._idle = [entry for entry in self._idle if entry[1] is not connection]


def complete_body(data: bytes) -> Body:
    """Return a body that has arrived already."""
    body = Body()
    if data:
        body.feed(data)
    body.end()
    return body


def problem_body(error: HttpError) -> bytes:
    return json.dumps(
        {
            "type": f"https://rdev.orchard9.ai/problems/{error.code.replace('_', '-')}",
            "title": _reason(error.status).decode(),
            "status": error.status,
            "code": error.code,
            "detail": error.detail,
            "request_id": f"req_{secrets.token_hex(8)}",
        }
    ).encode()


_CHUNKED = b"transfer-encoding: chunked\r\n\r\n"


def _request_head(method: str, target: bytes, headers: Headers) -> bytes:
    lines = [b"%b %b HTTP/1.1\r\n" % (method.encode("ascii"), target)]
    lines += [b"%b: %b\r\n" % pair for pair in headers if pair[0] not in HOP_BY_HOP]
    lines.append(b"\r\n")
    return b"".join(lines)


_ABSOLUTE_FORM = re.compile(rb"^https?://[^/?]*", re.IGNORECASE)


def _origin_form(target: bytes) -> bytes:
    """Turn `http://host/path`, which proxies are sent, into `/path` (RFC 9112, section 3.2)."""
    if target.startswith(b"/"):
        return target
    rest = _ABSOLUTE_FORM.sub(b"", target)
    return rest if rest.startswith(b"/") else b"/" + rest


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Unknown"


def _too_long_target() -> HttpError:
    return HttpError(414, "uri_too_long", f"the target exceeds {MAX_TARGET_BYTES} bytes")


def _too_large_head() -> HttpError:
    return HttpError(431, "invalid_request", f"the headers exceed {MAX_HEAD_BYTES} bytes")


def _too_large_body() -> HttpError:
    return HttpError(413, "payload_too_large", f"the body exceeds {MAX_BODY_BYTES} bytes")
