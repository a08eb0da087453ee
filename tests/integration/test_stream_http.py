"""Streams over a real uvicorn on loopback: what goes over the wire, and when it ends."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx
import pytest
import uvicorn
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from common.domain.errors import (
    ConcurrencyLimited,
    NotFound,
    RateLimited,
    RdevError,
    ShuttingDown,
    Unavailable,
)
from common.domain.keys import Caller
from common.entrypoints.sse import EventStream, Limits, Streams, Unwinding, refusal, wants_events
from common.services.tailing import Pace, Tailer
from rdev.sse import Comment, Event, Parser, Retry
from tests.load.stream_store import StreamStore, render

CALLER = Caller(UUID(int=1), "test", frozenset(), None)
ADMIN = replace(CALLER, unlimited=True)
# Without polls and heartbeats: what arrives was sent for a reason that the test knows.
STILL = Pace(active_s=1000.0, idle_s=1000.0, check_s=1000.0)
QUIET = Limits(max_age_s=1000.0, heartbeat_s=1000.0, recheck_s=1000.0, tick_s=0.005)
LONGEST_S = 60
ACCEPT = {"accept": "text/event-stream"}


class World:
    """One stream process in this loop: a store, a tailer, and a server on loopback."""

    def __init__(self, limits: Limits, recheck: Callable[[UUID], bool] | None) -> None:
        self.store = StreamStore()
        self.tailer = Tailer(self.store, self.store, self.store, render, STILL)
        self.draining = asyncio.Event()
        self.streams = Streams(self.draining, recheck, limits)
        self.caller = CALLER
        self.opened: list[EventStream] = []
        self.reasons: list[str] = []
        self._count_reasons()
        self.port = 0

    def _count_reasons(self) -> None:
        closed = self.streams.closed

        def counted(stream: EventStream, transport: asyncio.Transport | None) -> None:
            self.reasons += [stream.reason] if stream in self.streams._open else []
            closed(stream, transport)

        self.streams.closed = counted

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What an endpoint does: `/<command hex>` follows it, with `Last-Event-ID`."""
        headers = Headers(scope=scope)
        try:
            self.streams.admit(self.caller)
            subscription = await self.tailer.follow(
                UUID(hex=scope["path"][1:]), self.caller, headers.get("last-event-id")
            )
            stream = self.streams.open(subscription, self.caller)
        except RdevError as error:
            gentle = refusal(error, headers)
            assert gentle is not None
            await gentle(scope, receive, send)
            return
        self.opened.append(stream)
        await stream(scope, receive, send)

    def url(self, command: UUID) -> str:
        return f"http://127.0.0.1:{self.port}/{command.hex}"

    async def closed(self) -> None:
        """Return when no stream is open."""
        while len(self.streams):
            await asyncio.sleep(0.001)


@asynccontextmanager
async def serving(app: ASGIApp, *, graceful_s: int = 5) -> AsyncIterator[int]:
    """A uvicorn server in this loop; answers its port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app,
            http="httptools",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=graceful_s,
        )
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.001)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task


def run(
    main: Callable[[World], Awaitable[None]],
    limits: Limits = QUIET,
    recheck: Callable[[UUID], bool] | None = None,
    wrap: Callable[[ASGIApp], ASGIApp] = Unwinding,
) -> None:
    async def whole() -> None:
        async with asyncio.timeout(LONGEST_S):
            world = World(limits, recheck)
            async with serving(wrap(world.app)) as world.port:
                try:
                    await main(world)
                finally:
                    world.draining.set()
                    await world.streams.ended()
                    await world.tailer.close()

    asyncio.run(whole())


class Client:
    """Reads one stream piece by piece."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._pieces = answer.aiter_raw()
        self._parser = Parser()
        self._items: list[Event | Comment | Retry] = []

    async def item(self) -> Event | Comment | Retry | None:
        """The next event, comment or hint; None at the end."""
        while not self._items:
            try:
                self._items = self._parser.feed(await anext(self._pieces))
            except StopAsyncIteration:
                return None
        return self._items.pop(0)

    async def event(self) -> Event:
        """The next event, whatever else comes before it."""
        while not isinstance(item := await self.item(), Event):
            assert item is not None, "the stream ended"
        return item

    async def rest(self) -> list[Event | Comment | Retry]:
        found = []
        while (item := await self.item()) is not None:
            found.append(item)
        return found


@asynccontextmanager
async def opened(world: World, command: UUID, **headers: str) -> AsyncIterator[Client]:
    async with (
        httpx.AsyncClient(verify=False, trust_env=False, timeout=LONGEST_S) as client,
        client.stream("GET", world.url(command), headers=ACCEPT | headers) as answer,
    ):
        yield Client(answer)


def with_id(number: int | str) -> dict[str, str]:
    return {"last-event-id": str(number)}


def test_a_stream_over_the_wire() -> None:
    """Headers, a hint, the replay, what comes live, the end, and the connection's good end."""

    async def main(world: World) -> None:
        command = world.store.create()
        async with opened(world, command) as client:
            assert client.answer.status_code == 200
            headers = client.answer.headers
            assert headers["content-type"] == "text/event-stream; charset=utf-8"
            assert headers["cache-control"] == "no-store, no-transform"
            assert headers["x-accel-buffering"] == "no"
            first = await client.item()
            assert isinstance(first, Retry) and 1000 <= first.milliseconds <= 3000
            assert (await client.event()).type == "state"
            world.store.print(command, b"hello\n")
            event = await client.event()
            assert (event.id, event.type, json.loads(event.data)["text"]) == (
                "2",
                "output",
                "hello\n",
            )
            world.store.end(command)
            assert [e.type for e in await client.rest() if isinstance(e, Event)] == ["end"]
        await world.closed()
        assert world.reasons == ["ended"]
        assert world.tailer._commands._channels == {}

    run(main)


@pytest.mark.parametrize("wrap", [Unwinding, lambda app: app])
def test_a_reconnect_resumes(wrap: Callable[[ASGIApp], ASGIApp]) -> None:
    """At every border of a running command: what was missed, then what comes, each once."""

    async def main(world: World) -> None:
        command = world.store.create()
        for number in range(10):
            world.store.print(command, b"%d\n" % number)
        for after in range(12):
            async with opened(world, command, **with_id(after)) as client:
                seen = [int((await client.event()).id) for _ in range(11 - after)]
                world.store.print(command, b"live\n") if after == 11 else None
                assert seen == list(range(after + 1, 12))
                if after == 11:
                    assert (await client.event()).id == "12"
        await world.closed()

    run(main, wrap=wrap)


def test_a_client_that_leaves_is_noticed() -> None:
    """A closed connection ends its stream at once, also while nothing is sent."""

    async def main(world: World) -> None:
        command = world.store.create()
        async with opened(world, command) as client:
            await client.event()
            assert len(world.streams) == 1
        await world.closed()
        assert world.reasons == ["left"]

    run(main)


def test_a_quiet_stream_has_a_heartbeat() -> None:
    """Comments come while there is nothing else, and they are no events."""

    async def main(world: World) -> None:
        command = world.store.create()
        async with opened(world, command, **with_id(1)) as client:
            items = [await client.item() for _ in range(4)]
            assert items[1:] == [Comment("heartbeat")] * 3

    run(main, replace(QUIET, heartbeat_s=0.01))


def test_no_heartbeat_interval_exceeds_15_seconds() -> None:
    """The keeper's grain included."""
    limits = Limits()
    assert limits.heartbeat_s + 2 * limits.tick_s <= 15
    assert limits.recheck_s + limits.tick_s <= 30


def test_an_old_stream_asks_to_reconnect() -> None:
    """It ends itself with a short hint before the platform would cut it; nothing is lost."""

    async def main(world: World) -> None:
        command = world.store.create()
        received: list[str] = []
        while len(received) < 5:
            last = received[-1] if received else "0"
            async with opened(world, command, **with_id(last)) as client:
                world.store.print(command, b"x")
                *items, hint, bye = await client.rest()
            assert isinstance(hint, Retry) and hint.milliseconds <= 500
            assert bye == Comment("this stream is old; reconnect")
            received += [item.id for item in items if isinstance(item, Event)]
        assert received == [str(n) for n in range(1, len(received) + 1)]
        assert set(world.reasons) == {"rotated"}

    run(main, replace(QUIET, max_age_s=0.05))


def test_ages_are_jittered() -> None:
    """Streams that began together end at different times, within 80 to 100 % of the age."""

    async def main(world: World) -> None:
        command = world.store.create()
        ages = []
        begun = asyncio.get_running_loop().time()
        for _ in range(50):
            subscription = await world.tailer.follow(command, ADMIN)
            stream = world.streams.open(subscription, ADMIN)
            ages.append(stream._ends_at - begun)
            stream.close()
        assert len(set(ages)) == 50
        assert min(ages) >= 800 and max(ages) - min(ages) > 50

    run(main)


def test_a_stopping_process_sends_its_clients_elsewhere() -> None:
    """At drain all streams end at once with a hint; new ones are refused as gently."""

    async def main(world: World) -> None:
        command = world.store.create()
        async with opened(world, command, **with_id(1)) as one, opened(world, command) as other:
            await other.event()
            world.draining.set()
            for client in (one, other):
                *_, hint, bye = await client.rest()
                assert isinstance(hint, Retry) and hint.milliseconds <= 500
                assert bye == Comment("this instance is stopping; reconnect")
        await world.streams.ended()
        assert world.reasons == ["drained", "drained"]
        async with opened(world, command) as late:
            hint, why = await late.rest()
            assert late.answer.status_code == 200
            assert isinstance(hint, Retry) and 2000 <= hint.milliseconds <= 3000
            assert why == Comment("shutting_down: this instance is stopping")

    run(main)


@pytest.mark.row(3)
def test_a_revoked_key_loses_its_streams() -> None:
    """Each key is asked about; the streams of one that is no longer valid end, others go on."""
    asked: list[UUID] = []
    valid = True

    def recheck(key_id: UUID) -> bool:
        asked.append(key_id)
        return valid or key_id != CALLER.key_id

    async def main(world: World) -> None:
        nonlocal valid
        command = world.store.create()
        async with opened(world, command) as one, opened(world, command) as two:
            await one.event()
            await two.event()
            world.caller = replace(CALLER, key_id=UUID(int=2))
            async with opened(world, command) as other:
                await other.event()
                valid = False
                for client in (one, two):
                    assert await client.rest() == [Comment("this key may no longer read")]
                assert world.reasons == ["revoked", "revoked"]
                while UUID(int=2) not in asked:
                    await asyncio.sleep(0.001)
                world.store.end(command)
                assert (await other.event()).type == "end"

    run(main, replace(QUIET, recheck_s=0.0), recheck)


def test_a_check_that_fails_closes_nothing() -> None:
    """Without a database nobody can say that a key is invalid: the streams stay."""
    failed = 0

    def recheck(_key_id: UUID) -> bool:
        nonlocal failed
        failed += 1
        raise Unavailable("the database is down")

    async def main(world: World) -> None:
        command = world.store.create()
        async with opened(world, command) as client:
            await client.event()
            while failed < 3:
                await asyncio.sleep(0.001)
            world.store.print(command, b"x")
            assert (await client.event()).id == "2"

    run(main, replace(QUIET, recheck_s=0.0), recheck)


@pytest.mark.row(34)
def test_a_key_has_so_many_streams() -> None:
    """The one too many is told when to come back; a closed one makes room; admins have no limit."""

    async def main(world: World) -> None:
        command = world.store.create()
        async with opened(world, command) as one, opened(world, command) as two:
            await one.event()
            await two.event()
            async with opened(world, command) as third:
                hint, why = await third.rest()
                assert isinstance(hint, Retry) and 1000 <= hint.milliseconds <= 1500
                assert isinstance(why, Comment) and why.text.startswith("concurrency_limited: ")
            world.caller = ADMIN
            async with opened(world, command) as exempt:
                await exempt.event()
        world.caller = CALLER
        await world.closed()
        async with opened(world, command) as again:
            await again.event()

    run(main, replace(QUIET, per_key=2))


def test_a_failing_database_ends_a_replay_gently() -> None:
    """A page that cannot be read becomes a hint; the client resumes where it was."""

    async def main(world: World) -> None:
        command = world.store.create()

        def fail_at_replay(name: str) -> None:
            # Opening reads a page for its last number; the next one is the replay's.
            world.store.fail = Unavailable("the database is down") if pages(name) == 2 else None

        def pages(name: str) -> int:
            return world.store.reads["page"] if name == "page" else 0

        world.store.before_read = fail_at_replay
        async with opened(world, command) as client:
            _, hint, why = await client.rest()
            assert isinstance(hint, Retry) and 2000 <= hint.milliseconds <= 3000
            assert why == Comment("the database is down")
            assert world.reasons == ["unavailable"]
        async with opened(world, command) as again:
            assert (await again.event()).id == "1"

    run(main)


async def deaf_client(world: World, command: UUID) -> socket.socket:
    """Asks for a stream and never reads from it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", world.port))
    request = f"GET /{command.hex} HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n"
    await loop.sock_sendall(sock, request.encode())
    return sock


def flood(world: World, command: UUID) -> None:
    """More output than the buffers between two sockets hold."""
    world.store.quiet = True
    for number in range(256):
        world.store.print(command, b"x" * 65536, number * 65536)
    world.store.quiet = False
    world.store.notify_of(command)


@pytest.mark.parametrize("with_transport", [True, False])
def test_a_client_that_does_not_read_is_cut(with_transport: bool) -> None:
    """A write that stalls beyond the deadline ends the stream; readers beside it go on."""

    def hide(app: ASGIApp) -> ASGIApp:
        """As behind a server whose transport cannot be reached."""
        inner = Unwinding(app)

        async def hidden(scope: Scope, receive: Receive, send: Send) -> None:
            await inner(scope, lambda: receive(), send)  # noqa: PLW0108  # no bound method

        return inner if with_transport else hidden

    async def main(world: World) -> None:
        command = world.store.create()
        flood(world, command)
        sock = await deaf_client(world, command)
        while not world.opened:
            await asyncio.sleep(0.001)
        async with opened(world, command, **with_id(256)) as client:
            assert (await client.event()).id == "257"
            while len(world.streams) > 1:
                await asyncio.sleep(0.001)
            assert world.reasons == ["stalled"]
            world.store.print(command, b"still here")
            assert (await client.event()).id == "258"
        sock.close()

    run(main, replace(QUIET, write_s=0.05), wrap=hide)


def test_a_slow_client_is_not_cut() -> None:
    """Who reads little by little makes progress, and gets everything in the end."""

    async def main(world: World) -> None:
        command = world.store.create()
        flood(world, command)
        world.store.end(command)
        loop = asyncio.get_running_loop()
        sock = await deaf_client(world, command)
        size, tail = 0, b""
        while b"event: end" not in tail:
            data = await loop.sock_recv(sock, 64 * 1024)
            assert data, "the stream was cut"
            size += len(data)
            tail = (tail + data)[-1000:]
        assert size > 256 * 65536
        sock.close()

    run(main, replace(QUIET, write_s=0.5))


def test_a_client_that_does_not_read_cannot_hold_the_process() -> None:
    """What was left unread at the end of a stream is dropped, so that the server can stop."""

    async def main(world: World) -> None:
        command = world.store.create()
        flood(world, command)
        sock = await deaf_client(world, command)
        while not world.opened:
            await asyncio.sleep(0.001)
        world.draining.set()
        await world.streams.ended()
        sock.close()

    run(main, replace(QUIET, write_s=0.05))


def test_what_a_finished_stream_left_unread_is_dropped_in_time() -> None:
    """A complete response whose bytes nobody fetches does not stay in memory."""

    async def main(world: World) -> None:
        command = world.store.create()
        subscription = await world.tailer.follow(command, CALLER)
        stream = world.streams.open(subscription, CALLER)
        transport = FullTransport()
        stream._transport = transport
        stream.close()
        await world.streams.ended()
        assert transport.aborted

    run(main, replace(QUIET, write_s=0.01))


class FullTransport(asyncio.Transport):
    """Never empties."""

    aborted = False

    def get_write_buffer_size(self) -> int:
        return 0 if self.aborted else 1000

    def abort(self) -> None:
        self.aborted = True


def test_a_stream_that_is_never_called_gives_its_place_back() -> None:
    """When a request dies between opening and answering, nothing is held for it."""

    async def main(world: World) -> None:
        command = world.store.create()
        world.streams.open(await world.tailer.follow(command, CALLER), CALLER)
        assert len(world.streams) == 1
        await world.closed()
        assert world.reasons == ["unused"]
        assert world.tailer._commands._channels == {}

    run(main, replace(QUIET, write_s=0.01))


def test_a_refused_stream_leaves_its_channel() -> None:
    """When the last place was taken while the command was looked up, nothing stays behind."""

    async def main(world: World) -> None:
        command = world.store.create()
        subscription = await world.tailer.follow(command, CALLER)
        with pytest.raises(ConcurrencyLimited):
            world.streams.open(subscription, CALLER)
        assert subscription.closed
        assert world.tailer._commands._channels == {}

    run(main, replace(QUIET, per_key=0))


def test_head_has_no_body() -> None:
    """HEAD answers the headers and ends."""

    async def main(world: World) -> None:
        command = world.store.create()
        async with httpx.AsyncClient(verify=False, trust_env=False) as client:
            answer = await client.head(world.url(command), headers=ACCEPT)
        assert answer.headers["content-type"].startswith("text/event-stream")
        await world.closed()

    run(main)


def test_many_open_at_once_and_each_gets_everything() -> None:
    """A crowd that comes back together is let in piece by piece, and nobody misses anything."""

    async def main(world: World) -> None:
        world.caller = ADMIN
        command = world.store.create()

        async def one() -> list[str]:
            async with opened(world, command) as client:
                return [item.id for item in await client.rest() if isinstance(item, Event)]

        readers = [asyncio.create_task(one()) for _ in range(100)]
        for _ in range(20):
            world.store.print(command, b"x")
            await asyncio.sleep(0)
        world.store.end(command)
        assert await asyncio.gather(*readers) == [[str(n) for n in range(1, 23)]] * 100

    run(main, wrap=lambda app: Unwinding(app, opening=4))


def test_the_framework_is_off_the_stack_while_a_stream_runs() -> None:
    """`Unwinding` runs the stream after everything inside it has returned."""

    async def main(world: World) -> None:
        command = world.store.create()
        async with opened(world, command) as client:
            await client.event()
            assert inside == ["entered", "left"]

    inside: list[str] = []

    def wrap(app: ASGIApp) -> ASGIApp:
        async def noted(scope: Scope, receive: Receive, send: Send) -> None:
            inside.append("entered")
            await app(scope, receive, send)
            inside.append("left")

        return Unwinding(noted)

    run(main, wrap=wrap)


@pytest.mark.parametrize(
    ("error", "low", "high"),
    [
        (RateLimited("full", limit=100, window_s=60, retry_after=31), 31_000, 46_500),
        (ConcurrencyLimited("busy"), 1000, 1500),
        (Unavailable("down"), 2000, 3000),
        (ShuttingDown("stopping"), 2000, 3000),
    ],
)
def test_a_refusal_an_eventsource_survives(error: RdevError, low: int, high: int) -> None:
    """200, a hint not earlier than the time to come back, the reason as a comment, the end."""

    async def main() -> None:
        gentle = refusal(error, Headers({"accept": "text/event-stream"}))
        assert gentle is not None
        async with (
            serving(gentle) as port,
            httpx.AsyncClient(verify=False, trust_env=False) as client,
        ):
            answer = await client.get(f"http://127.0.0.1:{port}/")
        assert answer.status_code == 200
        hint, why = Parser().feed(answer.content)
        assert isinstance(hint, Retry) and low <= hint.milliseconds <= high
        assert why == Comment(f"{error.code}: {error.detail}")

    asyncio.run(main())


def test_other_refusals_stay_what_they_are() -> None:
    """404 means give up, and so does any status for who did not ask for events."""
    assert refusal(NotFound("none"), Headers(ACCEPT)) is None
    assert refusal(Unavailable("down"), Headers({"accept": "*/*"})) is None
    assert refusal(Unavailable("down"), Headers({})) is None
    assert wants_events(Headers({"accept": "text/html, TEXT/event-stream;q=0.9"}))


def test_other_scopes_pass_through() -> None:
    """`Unwinding` lets lifespan and plain requests by."""
    seen: list[Any] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(dict(scope))

    async def main() -> None:
        for scope in ({"type": "lifespan"}, {"type": "http", "headers": []}):
            await Unwinding(inner)(scope, no_receive, no_send)

    asyncio.run(main())
    assert seen == [{"type": "lifespan"}, {"type": "http", "headers": []}]


async def no_receive() -> Any:
    raise AssertionError("nothing is received here")


async def no_send(_message: Any) -> None:
    raise AssertionError("nothing is sent here")
