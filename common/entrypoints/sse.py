"""Streams over HTTP: a raw ASGI response per reader, and one keeper per process for all of them.

A reader costs a position and two small coroutines (2,000 idle ones take under 20 KB each). What
would cost a timer each is done by the keeper, once a second for all: heartbeats, write deadlines,
rotation before the platform cuts the request, revoked keys, drain.

EventSource gives up for good on 429 and 503, so for `Accept: text/event-stream` such a refusal is a
200 that only says when to come back (`refusal`).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from common.domain import sse
from common.domain.errors import (
    ConcurrencyLimited,
    RateLimited,
    RdevError,
    ShuttingDown,
    Unavailable,
)
from common.domain.keys import Caller
from common.services import telemetry
from common.services.tailing import Subscription

_log = telemetry.logger("rdev.stream")

MEDIA_TYPE: Final = "text/event-stream"
HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
)
OPEN_PER_KEY: Final = 50
OPENING_AT_ONCE: Final = 64  # each opening is two short queries; more at once only wait inside

_HEARTBEAT: Final = sse.comment("heartbeat")
_PENDING: Final = "rdev.stream"  # where `Unwinding` finds the stream in the scope
_ROUTING: Final = ("app", "router", "endpoint", "path_params")  # what routing left in the scope


@dataclass(frozen=True)
class Limits:
    """Seconds, except `per_key`. Two ticks of the keeper must fit between a heartbeat and 15 s."""

    max_age_s: float = 300.0
    heartbeat_s: float = 13.0
    write_s: float = 5.0
    recheck_s: float = 29.0
    tick_s: float = 1.0
    per_key: int = OPEN_PER_KEY


def again_in(low_ms: int, high_ms: int) -> bytes:
    """A `retry:` somewhere between the two, so that many readers do not come back as one."""
    return sse.retry(random.randint(low_ms, high_ms))  # spreads load, guards nothing


class Streams:
    """Keeps every open stream of this process; does nothing while there is none.

    `draining`: set when the process shall end. `recheck(key_id)` says, from a thread, whether a key
    may still read; it is asked per key, however many streams that has.
    """

    def __init__(
        self,
        draining: asyncio.Event,
        recheck: Callable[[UUID], bool] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._draining = draining
        self._recheck = recheck
        self._open: set[EventStream] = set()
        self._keys: dict[UUID, _Key] = {}
        self._leaving: list[tuple[float, asyncio.Transport]] = []
        self._keeper: asyncio.Task[None] | None = None
        self._checks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, caller: Caller) -> None:
        """Raises ShuttingDown, or ConcurrencyLimited for a key that has all its streams open."""
        if self._draining.is_set():
            raise ShuttingDown("this instance is stopping")
        key = self._keys.get(caller.key_id)
        count = key.count if key is not None else 0
        if count >= self.limits.per_key and not caller.unlimited:
            raise ConcurrencyLimited(f"this key has {count} streams open, which is its limit")

    def open(self, subscription: Subscription, caller: Caller) -> EventStream:
        """The response that sends a subscription's events. Raises like `admit`; closes it then."""
        try:
            self.admit(caller)
        except RdevError:
            subscription.close()
            raise
        stream = EventStream(self, subscription, caller.key_id)
        self._open.add(stream)
        telemetry.stream_opened.add(1)
        telemetry.stream_active.add(1)
        key = self._keys.setdefault(caller.key_id, _Key(_now()))
        key.count += 1
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name="streams")
        return stream

    async def ended(self) -> None:
        """Return when no stream is open; after drain began none will open again."""
        if self._keeper is not None:
            await asyncio.wait({self._keeper})

    def closed(self, stream: EventStream, transport: asyncio.Transport | None) -> None:
        """A stream has ended; what it left in the transport's buffer must drain in time too."""
        if stream not in self._open:
            return
        self._open.discard(stream)
        telemetry.stream_closed.add(1, {"reason": stream.reason})
        telemetry.stream_active.add(-1)
        key = self._keys[stream.key_id]
        key.count -= 1
        if not key.count:
            del self._keys[stream.key_id]
        if transport is not None and transport.get_write_buffer_size():
            self._leaving.append((_now() + self.limits.write_s, transport))

    async def _keep(self) -> None:
        """The one timer. It ends with the last stream."""
        try:
            while self._open or self._leaving:
                await self._one_tick_or_drain()
                if self._draining.is_set():
                    self._finish_all(self._open, "drained", _farewell_at_drain)
                self._tick(_now())
        finally:
            self._keeper = None

    async def _one_tick_or_drain(self) -> None:
        if self._draining.is_set():
            await asyncio.sleep(self.limits.tick_s)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.limits.tick_s):
                await self._draining.wait()

    def _tick(self, now: float) -> None:
        for stream in tuple(self._open):
            stream.tick(now)
        self._cut_those_who_do_not_read(now)
        for key_id, key in self._keys.items():
            if self._recheck is not None and now >= key.checked_at + self.limits.recheck_s:
                key.checked_at = now
                self._start_check(key_id, self._recheck)

    def _cut_those_who_do_not_read(self, now: float) -> None:
        waiting = []
        for deadline, transport in self._leaving:
            if transport.get_write_buffer_size() == 0:
                continue
            if now < deadline:
                waiting.append((deadline, transport))
            else:
                transport.abort()
        self._leaving = waiting

    def _start_check(self, key_id: UUID, recheck: Callable[[UUID], bool]) -> None:
        task = asyncio.create_task(self._check(key_id, recheck))
        self._checks.add(task)
        task.add_done_callback(self._checks.discard)

    async def _check(self, key_id: UUID, recheck: Callable[[UUID], bool]) -> None:
        """A check that cannot be made (no database) leaves the streams open until the next."""
        try:
            valid = await asyncio.to_thread(recheck, key_id)
        except Exception:
            _log.warning("cannot check a key again, its streams stay open", exc_info=True)
            return
        if not valid:
            theirs = [s for s in self._open if s.key_id == key_id]
            self._finish_all(theirs, "revoked", _farewell_of_key)

    def _finish_all(
        self, streams: Iterable[EventStream], reason: str, farewell: Callable[[], bytes]
    ) -> None:
        for stream in tuple(streams):
            stream.finish(reason, farewell())


@dataclass(slots=True)
class _Key:
    checked_at: float
    count: int = 0


class EventStream:
    """One open stream: replays what the subscription lacks, then sends what comes.

    The ASGI app of one request. It ends at the end of the subscription, when the client leaves,
    when it is told to `finish`, and when a write is stalled beyond the deadline.
    """

    __slots__ = (
        "__weakref__",
        "_beat",
        "_ends_at",
        "_farewell",
        "_gone",
        "_sending_since",
        "_streams",
        "_subscription",
        "_task",
        "_transport",
        "_unread",
        "_wrote_at",
        "key_id",
        "reason",
    )

    def __init__(self, streams: Streams, subscription: Subscription, key_id: UUID) -> None:
        self.key_id = key_id
        self.reason = "unused"  # why it ended, for the metric
        self._streams = streams
        self._subscription = subscription
        now = _now()
        # Jittered, so that readers who came together do not all come back together.
        self._ends_at = now + streams.limits.max_age_s * random.uniform(0.8, 1.0)
        self._wrote_at = now
        self._sending_since: float | None = None
        self._unread = 0
        self._beat = False
        self._gone = False
        self._farewell: bytes | None = None
        self._task: asyncio.Task[Any] | None = None
        self._transport: asyncio.Transport | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pending = scope.get(_PENDING)
        if pending is not None and not pending:
            pending.append(self)  # `Unwinding` calls again, with nothing left on the stack
            return
        self._task = asyncio.current_task()
        self._transport = _transport_of(receive)
        self.reason = "failed"
        leaving = asyncio.create_task(self._watch(receive))
        try:
            await self._run(scope["method"], send)
        except asyncio.CancelledError:
            if not self._gone:
                raise  # by somebody else, not by `_cut`
        finally:
            leaving.cancel()
            self.close()

    def close(self) -> None:
        """Give back what the stream holds."""
        self._subscription.close()
        self._streams.closed(self, self._transport)

    # Called by the keeper -------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        limits = self._streams.limits
        if self._task is None:
            if now >= self._wrote_at + limits.write_s:
                self.close()  # its request died before it was ever called
        elif self._sending_since is not None:
            self._tick_of_write(now)
        elif now >= self._ends_at:
            self.finish("rotated", _farewell_at_rotation())
        elif now >= self._wrote_at + limits.heartbeat_s:
            self._beat = True
            self._subscription.wake()

    def _tick_of_write(self, now: float) -> None:
        """Cut who has read nothing for too long; who reads slowly may go on."""
        unread = self._transport.get_write_buffer_size() if self._transport is not None else 0
        if self._sending_since is None or unread < self._unread:
            self._sending_since = now
        elif now >= self._sending_since + self._streams.limits.write_s:
            self._cut()
        self._unread = unread

    def finish(self, reason: str, farewell: bytes) -> None:
        """Send this last, then end."""
        if self._farewell is None:
            self._farewell = farewell
            self.reason = reason
            self._subscription.wake()

    def _cut(self) -> None:
        """Nobody reads: drop the connection with what lies in its buffers."""
        self._gone = True
        self.reason = "stalled"
        self._subscription.wake()
        if self._transport is not None:
            self._transport.abort()  # the server then lets the stalled send return
        elif self._task is not None:
            self._task.cancel()

    # The stream's own task ------------------------------------------------------------------------

    async def _run(self, method: str, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
        if method != "HEAD":
            await self._write(send, again_in(1000, 3000) + self._subscription.hello(), more=True)
            await self._deliver(send)
        else:
            self.reason = "ended"
        if not self._gone:
            await self._write(send, self._farewell or b"", more=False)

    async def _deliver(self, send: Send) -> None:
        subscription = self._subscription
        while self._farewell is None and not self._gone:
            data = subscription.take()
            if data is None:
                if subscription.done:
                    self.reason = "ended"
                    return
                if subscription.behind:
                    data = await self._fetch()
                elif self._beat:
                    data = _HEARTBEAT
                else:
                    await subscription.wait()
                    continue
            if data:
                await self._write(send, data, more=True)

    async def _fetch(self) -> bytes:
        try:
            return await self._subscription.fetch()
        except Unavailable as error:
            hint = again_in(*_spread(error.retry_after))
            self.finish("unavailable", hint + sse.comment(error.detail))
            return b""

    async def _write(self, send: Send, data: bytes, *, more: bool) -> None:
        self._unread = 0
        self._sending_since = _now()
        await send({"type": "http.response.body", "body": data, "more_body": more})
        self._sending_since = None
        self._wrote_at = _now()
        self._beat = False

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if self.reason == "failed":
            self.reason = "left"
        self._gone = True
        self._subscription.wake()


class Unwinding:
    """The outermost ASGI app: lets a stream run after the layers inside have returned.

    Router, middleware and framework would each keep a frame alive for as long as a stream is open,
    which is more memory than the stream itself takes. For the same reason only so many streams open
    at once: a thousand that come back together wait here, where waiting is cheap.
    """

    def __init__(self, inner: ASGIApp, opening: int = OPENING_AT_ONCE) -> None:
        self._inner = inner
        self._opening = asyncio.Semaphore(opening)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not wants_events(Headers(scope=scope)):
            await self._inner(scope, receive, send)
            return
        pending: list[EventStream] = []
        scope[_PENDING] = pending
        async with self._opening:
            await self._inner(scope, receive, send)
        for name in _ROUTING:
            scope.pop(name, None)
        for stream in pending:
            await stream(scope, receive, send)


def wants_events(headers: Headers) -> bool:
    """Whether the client asked for an event stream by name."""
    return MEDIA_TYPE in headers.get("accept", "").lower()


def refusal(error: RdevError, headers: Headers) -> ASGIApp | None:
    """For a client that reads events: a refusal it will not give up on; None for other errors."""
    if not isinstance(error, RateLimited | ConcurrencyLimited | Unavailable):
        return None
    if not wants_events(headers):
        return None
    return Refusal(
        again_in(*_spread(error.retry_after)) + sse.comment(f"{error.code}: {error.detail}")
    )


class Refusal:
    """200, one `retry:`, one comment, and the end."""

    status_code = 200

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
        await send({"type": "http.response.body", "body": self._body, "more_body": False})


def _spread(retry_after_s: float) -> tuple[int, int]:
    """Milliseconds: not before the time, and by half of it later."""
    return int(retry_after_s * 1000), int(retry_after_s * 1500)


def _farewell_at_rotation() -> bytes:
    return again_in(50, 500) + sse.comment("this stream is old; reconnect")


def _farewell_at_drain() -> bytes:
    return again_in(50, 500) + sse.comment("this instance is stopping; reconnect")


def _farewell_of_key() -> bytes:
    return sse.comment("this key may no longer read")


def _transport_of(receive: Receive) -> asyncio.Transport | None:
    """uvicorn's transport behind an ASGI `receive`: ASGI itself cannot drop a connection."""
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    return transport if isinstance(transport, asyncio.Transport) else None


def _now() -> float:
    return asyncio.get_running_loop().time()
