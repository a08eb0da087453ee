"""The benchmark "SSE throughput": what an idle stream weighs and what a delivery costs.

`python -m tests.load.bench_stream` prints, as ratios of one run with the absolute beside them:
memory per idle stream (bound: 20 KB), and CPU of the server per event delivered to 200 subscribers
in bursts of 20 (bound: 0.5 of a plain Starlette StreamingResponse on the same server), and the rate
of one replayed stream. Each server is a process of its own on loopback; the readers are here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import re
import resource
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

IDLE_STREAMS = 2000
SUBSCRIBERS = 200
BURST = 20
BURSTS = 50
REPLAY_BYTES = 64 * 1024 * 1024
_END_OF_EVENT = re.compile(rb"\n\n")


# The servers -------------------------------------------------------------------------------------


def _serve(kind: str) -> None:
    """One server process; prints its port when it listens."""
    import uvicorn

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(4096)
    app = _ours() if kind.startswith("ours") else _starlette()
    config = uvicorn.Config(
        app,
        http="h11" if kind.endswith("h11") else "httptools",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        backlog=4096,
        timeout_graceful_shutdown=1,
    )
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(config).run(sockets=[listener])


async def _answer(send: Callable[[Any], Awaitable[None]], body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    headers = [(b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": data, "more_body": False})


def _ours() -> Any:
    """The real function as it is served, over a store in memory instead of PostgreSQL."""
    import common.bootstrap
    from common.adapters.telemetry import start
    from common.bootstrap import App
    from common.domain.keys import Caller, new_key
    from common.ports.keys import Grant
    from common.settings import Settings
    from tests.load.stream_store import StreamStore

    caller = Caller(UUID(int=1), "bench", frozenset({"commands:read"}), None, unlimited=True)
    key = new_key()

    class Keys:
        """One key, which may do anything."""

        def authorise(self, *_: Any, **__: Any) -> Grant:
            return Grant("ok", caller)

    store = StreamStore()
    ports = {"events": store, "signals": store, "bell": store, "keys": Keys()}
    made = App(Settings(), ports)
    common.bootstrap.app = lambda: made  # type: ignore[assignment]  # before `serve` takes it
    from common.entrypoints import serve

    start("stream", "error")
    function, _ = serve.asgi(str(Path(__file__).parents[2] / "functions" / "stream" / "main.py"))
    command = store.create()

    async def control(scope: Any, receive: Any, send: Any) -> None:
        _, verb, count = f"{scope['path']}/0".split("/")[:3]
        if verb == "burst":
            _burst(store, command, int(count))
        elif verb == "fill":
            store.quiet = True
            for number in range(int(count) // 65536):
                store.print(command, b"x" * 65535 + b"\n", number * 65536)
        ids = [store.create() for _ in range(int(count))] if verb == "create" else [command]
        paths = [f"/v1/streams/commands/cmd_{id_.hex}" for id_ in ids]
        await _answer(send, {"cpu": time.process_time(), "paths": paths, "key": key})

    return _split(function, control)


def _burst(store: Any, command: UUID, events: int) -> None:
    transaction = store.begin()
    for _ in range(events):
        transaction.append(command, "output", b"a line of output\n", stream="merged", offset=1)
    transaction.commit()
    store.notify_of(command)


def _starlette() -> Any:
    """The plain way: a queue per subscriber, a StreamingResponse that sends each event."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    from common.domain import sse
    from common.domain.events import Event
    from tests.load.stream_store import AT

    paths = ["/v1/streams/all"]
    queues: set[asyncio.Queue[bytes]] = set()
    seq = 0

    async def events() -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        queues.add(queue)
        try:
            yield b": hello\n\n"
            while True:
                yield await queue.get()
        finally:
            queues.discard(queue)

    async def stream(_request: Request) -> StreamingResponse:
        return StreamingResponse(events(), media_type="text/event-stream")

    async def control(scope: Any, receive: Any, send: Any) -> None:
        nonlocal seq
        if scope["path"].startswith("/burst/"):
            for _ in range(int(scope["path"].rpartition("/")[2])):
                seq += 1
                event = Event(UUID(int=1), seq, AT, "output", b"a line of output\n", "merged", 1)
                data = sse.encode(event)
                for queue in queues:
                    queue.put_nowait(data)
        await _answer(send, {"cpu": time.process_time(), "paths": paths, "key": "none"})

    return _split(Starlette(routes=[Route(paths[0], stream)]), control)


def _split(app: Any, control: Any) -> Any:
    async def both(scope: Any, receive: Any, send: Any) -> None:
        chosen = app if scope["path"].startswith("/v1/streams/") else control
        await chosen(scope, receive, send)

    return both


# The readers -------------------------------------------------------------------------------------


class Server:
    """A server process and the control connection to it."""

    def __init__(self, kind: str) -> None:
        command = [sys.executable, "-m", "tests.load.bench_stream", "--serve", kind]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def control(self, path: str) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer

    def cpu(self) -> float:
        return float(self.control("/cpu")["cpu"])

    def rss(self) -> int:
        pages = Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * resource.getpagesize()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def server(kind: str) -> Iterator[Server]:
    running = Server(kind)
    try:
        yield running
    finally:
        running.stop()


class Readers:
    """Many streams open at once, read as they come."""

    def __init__(self, running: Server, count: int, *, own: bool = False) -> None:
        told = running.control(f"/create/{count}" if own else "/cpu")
        paths = told["paths"] if own else told["paths"] * count
        self._selector = selectors.DefaultSelector()
        self._sockets = [self._open(running.port, path, told["key"]) for path in paths]
        self.read_until(lambda _events, heard: heard == count)

    def _open(self, port: int, path: str, key: str) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", port))
        fields = (f"GET {path} HTTP/1.1", "Host: x", "Accept: text/event-stream")
        request = "\r\n".join((*fields, f"Authorization: Bearer {key}", "", ""))
        sock.sendall(request.encode())
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ)
        return sock

    def read_until(self, enough: Callable[[int, int], bool]) -> int:
        """Read until `enough(events, sockets heard of)`; answers the events."""
        events = 0
        heard: set[Any] = set()
        while not enough(events, len(heard)):
            ready = self._selector.select(60)
            if not ready:
                raise TimeoutError(f"{events} events from {len(heard)} streams, then silence")
            for key, _ in ready:
                data = key.fileobj.recv(1 << 20)  # type: ignore[union-attr]
                if not data:
                    raise ConnectionError("a stream ended early")
                events += data.count(b"\ndata: ")
                heard.add(key.fileobj)
        return events

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()
        self._selector.close()


# The measurements --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One printed number. `ratio` is what the bound is about."""

    name: str
    ratio: float
    bound: str
    absolute: str

    def __str__(self) -> str:
        return f"{self.name}: {self.ratio:.2f} ({self.bound}; {self.absolute})"


def idle_bytes(kind: str, *, own: bool, count: int = IDLE_STREAMS) -> float:
    """Resident bytes an idle stream adds, `own`: each on a command of its own."""
    with server(kind) as running:
        warm = Readers(running, 50, own=own)  # imports, pools and caches are not a stream's
        before = running.rss()
        readers = Readers(running, count, own=own)
        after = running.rss()
        readers.close()
        warm.close()
    return (after - before) / count


def delivery_cpu(kind: str, subscribers: int = SUBSCRIBERS) -> float:
    """Seconds of server CPU per event delivered, in bursts of 20 to 200 subscribers."""
    with server(kind) as running:
        readers = Readers(running, subscribers)
        events = 0
        for number in range(BURSTS + 5):
            if number == 5:
                before, events = running.cpu(), 0  # the first bursts warm up
            running.control(f"/burst/{BURST}")
            events += readers.read_until(lambda n, _: n >= BURST * subscribers)
        spent = running.cpu() - before
        readers.close()
    return spent / events


def replay_rate() -> float:
    """Bytes of output per second that one stream replays."""
    with server("ours") as running:
        running.control(f"/fill/{REPLAY_BYTES}")
        begun = time.perf_counter()
        readers = Readers(running, 1)
        readers.read_until(lambda n, _: n >= REPLAY_BYTES // 65536 - 8)
        spent = time.perf_counter() - begun
        readers.close()
    return REPLAY_BYTES / spent


def measure() -> list[Line]:
    """The benchmark "SSE throughput"."""
    idle, idle_own = idle_bytes("ours", own=False), idle_bytes("ours", own=True)
    plain = idle_bytes("starlette", own=False)
    ours, same, h11 = (delivery_cpu(k) for k in ("ours", "starlette", "starlette-h11"))
    rate = replay_rate()
    return [
        Line(
            "SSE throughput, memory of an idle stream over 20 KB",
            idle / 20_000,
            "at most 1",
            f"{idle / 1000:.1f} KB; {idle_own / 1000:.1f} KB with a command each; "
            f"plain StreamingResponse {plain / 1000:.1f} KB",
        ),
        Line(
            "SSE throughput, CPU per delivery over a plain StreamingResponse",
            ours / same,
            "at most 0.5",
            f"{ours * 1e6:.2f} us against {same * 1e6:.2f} us on the same server",
        ),
        Line(
            "SSE throughput, CPU per delivery over a StreamingResponse on h11",
            ours / h11,
            "at most 0.5",
            f"{ours * 1e6:.2f} us against {h11 * 1e6:.2f} us",
        ),
        Line(
            "SSE throughput, replay of one stream in 100 MB/s",
            rate / 1e8,
            "no bound",
            f"{rate / 1e6:.0f} MB/s",
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", metavar="KIND")
    arguments = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 10_000)), hard))
    if arguments.serve:
        _serve(arguments.serve)
        return
    for line in measure():
        print(line, flush=True)


if __name__ == "__main__":
    main()
