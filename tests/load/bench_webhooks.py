"""Webhooks: deliveries per second against a plain httpx loop, and what a dead endpoint costs.

One sender in this process on a real PostgreSQL; the receiver is a process of its own that does next
to nothing. `plain` is the least a sender can be: one httpx client that POSTs the same bytes in a
loop, without a queue, a signature, a record or a guard. The dead endpoint takes connections and
never answers, and 10,000 deliveries wait for it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import statistics
import tempfile
import time
from ipaddress import ip_network
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import httpx

from common.adapters.fernet import FernetSealer
from common.adapters.http.courier import HttpCourier
from common.adapters.postgres.migrate import migrate
from common.adapters.postgres.pool import Database
from common.adapters.postgres.webhooks import PgDeliveryQueue, PgWebhookStore
from common.domain.identifiers import new_id
from common.domain.keys import Caller
from common.domain.webhooks import Endpoint, Payload, new_secret
from common.ports.commands import Origin
from common.services.sender import Sender
from infra.local.postgres import EmbeddedPostgres
from tests.unit import fakes

DELIVERIES: Final = 2000  # of one round
ROUNDS: Final = 3  # plain and ours in turns, so that a neighbour's noise meets both
WAITING: Final = 10_000
EVENTS: Final = 500  # whose latency is measured
EVERY_S: Final = 0.02
SEALER: Final = FernetSealer(["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="])
ANSWER: Final = b"HTTP/1.1 204 No Content\r\n\r\n"

_EVENTS: Final = """INSERT INTO outbox (id, type, subject, data)
SELECT gen_random_uuid(), 'ai.orchard9.rdev.project.{what}.v1', 'projects/p',
       jsonb_build_object('project', 'p' || n) FROM generate_series(1, {count}) n"""


class Taker(asyncio.Protocol):
    """Answers every request at once, and notes when it came."""

    came: list[float]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        self.rest += data
        while b"\r\n\r\n" in self.rest:
            head, _, body = self.rest.partition(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            [length] = [int(x[15:]) for x in lines if x.startswith(b"content-length:")]
            if len(body) < length:
                return
            self.rest = body[length:]
            self.came.append(time.monotonic())
            self.transport.write(ANSWER)  # type: ignore[attr-defined]


def take(pipe: Connection) -> None:
    """The receiver's process: its port first, then, whenever asked, when requests came."""
    came: list[float] = []
    kind = type("Mine", (Taker,), {"came": came})

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(kind, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        while await asyncio.to_thread(pipe.recv):
            pipe.send(list(came))
            came.clear()

    asyncio.run(serve())


class Bench:
    """A database, a sender, and a receiver that can be asked."""

    def __init__(self, url: str) -> None:
        migrate(url)
        self.db = Database(url)
        self.store, self.queue = PgWebhookStore(self.db), PgDeliveryQueue(self.db)
        key = new_id()
        self.script(
            "INSERT INTO api_keys (id, name, prefix, key_hash, scopes) "
            f"VALUES ('{key}', 'k', 'rdev_k', '\\x{key.hex}', '{{webhooks:write}}')"
        )
        self.caller = Caller(key, "bench", frozenset({"webhooks:write"}), None)
        self.courier = HttpCourier([ip_network("127.0.0.0/8")])
        relay, bell = fakes.FakeRelay(), fakes.FakeSenderBell()
        self.sender = Sender(self.queue, self.courier, SEALER, relay, bell)  # type: ignore[arg-type]
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=take, args=(theirs,), daemon=True)
        self.process.start()
        self.port: int = self.pipe.recv()

    def script(self, sql: str) -> None:
        with self.db.session() as connection:
            connection.script(sql)

    def endpoint(self, port: int, what: str) -> Endpoint:
        url = f"http://127.0.0.1:{port}/hook"
        wanted = Endpoint(
            new_id(), self.caller.key_id, url, Payload.THIN, fakes.AT,
            event_types=frozenset({f"project.{what}"}),
        )  # fmt: skip
        secret = SEALER.seal(new_secret().encode())
        made = self.store.create(wanted, None, secret, self.caller, Origin("req_1"), None)
        return made.endpoint

    def enable(self, endpoint: Endpoint, *, enabled: bool) -> None:
        """Let an endpoint be tried anew, or left alone once what is under way has ended."""
        while endpoint.id in self.sender.sending:
            time.sleep(0.1)
        changes = {"enabled": enabled}
        self.store.update(endpoint.id, changes, None, self.caller, Origin("req_1"))
        self.sender.ring()

    def happens(self, what: str, count: int) -> None:
        self.script(_EVENTS.format(what=what, count=count))
        while self.queue.fan_out(1000):
            pass

    def came(self) -> list[float]:
        self.pipe.send(True)
        answer: list[float] = self.pipe.recv()
        return answer

    def wait(self, count: int) -> list[float]:
        """When they came, once all have."""
        found: list[float] = []
        while len(found) < count:
            time.sleep(0.02)
            found += self.came()
        return found


def ours_per_s(bench: Bench) -> float:
    """Deliveries per second, from the ring to the last arrival, what is recorded included."""
    bench.happens("discovered", DELIVERIES)
    began = time.monotonic()
    bench.sender.ring()
    found = bench.wait(DELIVERIES)
    while bench.sender.sending:
        time.sleep(0.001)
    return DELIVERIES / (max(*found, time.monotonic()) - began)


def plain_per_s(bench: Bench) -> float:
    """The same number of POSTs of the same size from a loop."""
    body = b"x" * 110
    began = time.monotonic()
    with httpx.Client(trust_env=False) as client:
        for _ in range(DELIVERIES):
            client.post(f"http://127.0.0.1:{bench.port}/hook", content=body).raise_for_status()
    took = time.monotonic() - began
    bench.wait(DELIVERIES)
    return DELIVERIES / took


def p99_ms(bench: Bench) -> float:
    """From an event's commit to its arrival, one every 20 ms."""
    late = []
    for _ in range(EVENTS):
        due = time.monotonic() + EVERY_S
        bench.happens("discovered", 1)
        committed = time.monotonic()
        bench.sender.ring()
        [arrived] = bench.wait(1)
        late.append((arrived - committed) * 1000)
        time.sleep(max(0.0, due - time.monotonic()))
    return statistics.quantiles(late, n=100)[98]


def measure(url: str) -> dict[str, float]:
    """Every figure by name. The database must be empty, and is left full."""
    bench = Bench(url)
    bench.endpoint(bench.port, "discovered")
    rates = [(plain_per_s(bench), ours_per_s(bench)) for _ in range(ROUNDS)]
    figures = {
        "plain httpx loop: POSTs per s": statistics.median(plain for plain, _ in rates),
        "one sender: deliveries per s": statistics.median(ours for _, ours in rates),
        "one sender against the plain loop": statistics.median(o / p for p, o in rates),
    }
    with socket.create_server(("127.0.0.1", 0)) as silent:
        dead = bench.endpoint(silent.getsockname()[1], "removed")
        bench.happens("removed", WAITING)
        alone, beside = [], []
        for _ in range(ROUNDS):
            bench.enable(dead, enabled=False)
            alone.append(p99_ms(bench))
            bench.enable(dead, enabled=True)
            beside.append(p99_ms(bench))
    figures |= {
        "event to arrival, alone: p99 ms": statistics.median(alone),
        f"the same beside a dead endpoint with {WAITING} waiting: p99 ms": statistics.median(
            beside
        ),
        "beside it against alone": statistics.median(
            b / a for a, b in zip(alone, beside, strict=True)
        ),
    }
    bench.sender.stop()
    bench.courier.close()
    bench.db.close()
    bench.pipe.send(False)
    bench.process.join()
    return figures


def main() -> None:
    with tempfile.TemporaryDirectory() as home, EmbeddedPostgres(Path(home)) as server:
        figures = measure(server.url)
    for name, value in figures.items():
        print(f"{value:10.2f}  {name}")


if __name__ == "__main__":
    main()
