"""The tailer over a real PostgreSQL: real transactions, real NOTIFY, real visibility."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from uuid import UUID

import pytest

from common.adapters.postgres.events import PgEventReader
from common.adapters.postgres.pool import Database
from common.adapters.postgres.signals import PgSignals
from common.domain.command import Command, State
from common.domain.keys import Caller
from common.ports.queue import Claim
from common.ports.signals import OUTPUT
from common.services.tailing import Pace, Tailer
from rdev.sse import Event
from tests.contract.conftest import World, output, postgres_world
from tests.unit.test_tailing import Reader, ids, through

CALLER = Caller(UUID(int=1), "test", frozenset(), None)
LONGEST_S = 60
BATCHES = 20


class Bells:
    """Nobody's runner."""

    def ring(self, project: str) -> None:
        raise AssertionError(f"nobody died in {project}")


@contextmanager
def connected(url: str) -> Iterator[tuple[Database, World]]:
    db = Database(url)
    world = postgres_world(db)
    try:
        yield db, world
    finally:
        world.close()
        db.close()


@asynccontextmanager
async def tailing(db: Database, url: str, pace: Pace | None = None) -> AsyncIterator[Tailer]:
    tailer = Tailer(PgEventReader(db), PgSignals(db, url), Bells(), pace=pace)
    try:
        yield tailer
    finally:
        await tailer.close()


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(LONGEST_S):
            await main()

    asyncio.run(bounded())


def running(world: World, count: int = 1) -> list[Claim]:
    world.project(limit=count)
    _, caller = world.key()
    return [world.running(caller) for _ in range(count)]


def write(world: World, claim: Claim, seed: int) -> None:
    """Append in batches, wake followers now and then, and finish."""
    chance = random.Random(seed)
    command, offset = claim.command, 0
    for _ in range(BATCHES):
        events = []
        for _ in range(chance.choice((1, 1, 5, 40))):
            data = b"x" * chance.choice((1, 100, 5000))
            events.append(output(data, offset))
            offset += len(data)
        world.queue.append(command.id, claim.token, events)
        if chance.random() < 0.5:
            world.signals.notify(OUTPUT, f"{command.id.hex} {command.project}")
    world.finish(claim)
    world.signals.notify(OUTPUT, f"{command.id.hex} {command.project}")


@pytest.mark.parametrize("seed", range(3))
def test_replay_and_live_meet_on_postgres(database_url: str, seed: int) -> None:
    """While a writer appends, followers that stay and that reconnect get each event once."""

    async def follow(
        tailer: Tailer, command: UUID, chance: random.Random, often: float
    ) -> list[int]:
        seen: list[int] = []
        reader = Reader(await tailer.follow(command, CALLER))
        while (event := await reader.event()) is not None:
            seen.append(int(event.id))
            if chance.random() < often and event.type != "end":
                reader.subscription.close()
                reader = Reader(await tailer.follow(command, CALLER, event.id))
        reader.subscription.close()
        return seen

    async def main() -> None:
        with connected(database_url) as (db, world):
            [claim] = await asyncio.to_thread(running, world)
            async with tailing(db, database_url, Pace(ring_bytes=50_000)) as tailer:
                writing = asyncio.create_task(asyncio.to_thread(write, world, claim, seed))
                found = await asyncio.gather(
                    *(
                        follow(tailer, claim.command.id, random.Random(seed + n), often)
                        for n, often in enumerate((0.0, 0.0, 0.02, 0.2))
                    )
                )
                await writing
            last = world.events.page(claim.command.id, 0, 1).last
            assert found == [through(last)] * 4

    run(main)


@pytest.mark.parametrize("seed", range(3))
def test_project_cursors_survive_late_commits_on_postgres(database_url: str, seed: int) -> None:
    """Several writers, a transaction that stays open among them, readers that change process."""

    async def follow(
        tailers: list[Tailer], reader: Reader, chance: random.Random, often: float, total: int
    ) -> list[Event]:
        found: list[Event] = []
        while sum(event.type == "end" for event in found) < total:
            event = await reader.event()
            assert event is not None and event.type != "gap"
            found.append(event)
            if chance.random() < often:
                reader.subscription.close()
                elsewhere = chance.choice(tailers)
                reader = Reader(await elsewhere.follow_project("demo", event.id, output=True))
        reader.subscription.close()
        return found

    async def main() -> None:
        with connected(database_url) as (db, world):
            claims = await asyncio.to_thread(running, world, 4)
            late, *others = claims
            async with tailing(db, database_url) as one, tailing(db, database_url) as other:
                readers = [Reader(await one.follow_project("demo", output=True)) for _ in range(3)]
                following = [
                    asyncio.create_task(follow([one, other], r, random.Random(seed + n), often, 4))
                    for n, (r, often) in enumerate(zip(readers, (0.0, 0.05, 0.2), strict=True))
                ]
                await asyncio.to_thread(write_with_one_open, db, world, late, others, seed)
                found = await asyncio.gather(*following)
            expected = {
                f"cmd_{claim.command.id.hex}": world.events.page(claim.command.id, 0, 1).last
                for claim in claims
            }
            for events in found:
                assert by_command(events) == {
                    command: list(range(3, last)) for command, last in expected.items()
                }

    run(main)


def write_with_one_open(
    db: Database, world: World, late: Claim, others: list[Claim], seed: int
) -> None:
    """All others write and end while one transaction has begun; then it commits."""
    with db.transaction() as held:
        held.script(
            f"SELECT append_state('{late.command.id}', 'warning', '{{\"code\": \"late\"}}')"
        )
        for number, claim in enumerate(others):
            write(world, claim, seed * 10 + number)
    write(world, late, seed)


def by_command(events: list[Event]) -> dict[str, list[int]]:
    """The seq of each command's events without its `end`, which shows none."""
    found: dict[str, list[int]] = defaultdict(list)
    for event in events:
        body = json.loads(event.data)
        if event.type != "end":
            found[body["command_id"]].append(body["seq"])
    return found


def test_waiting_for_an_end_on_postgres(database_url: str) -> None:
    """The wake-up of a finish answers who waits, with the final row."""

    async def main() -> None:
        with connected(database_url) as (db, world):
            [claim] = await asyncio.to_thread(running, world)
            async with tailing(db, database_url) as tailer:
                waiting = asyncio.create_task(tailer.wait_for_end(claim.command.id, LONGEST_S))
                await asyncio.to_thread(write, world, claim, 1)
                command: Command | None = await waiting
                assert command is not None and command.state is State.SUCCEEDED

    run(main)


def test_a_lost_listener_costs_a_poll_on_postgres(
    database_url: str, run_sql: Callable[..., object]
) -> None:
    """When the server drops every connection, streams go on where they were."""

    async def main() -> None:
        with connected(database_url) as (db, world):
            [claim] = await asyncio.to_thread(running, world)
            command = claim.command.id
            async with tailing(db, database_url) as tailer:
                reader = Reader(await tailer.follow(command, CALLER))
                first = await reader.events(2)
                rest = asyncio.create_task(reader.rest())
                await asyncio.to_thread(
                    run_sql,
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()",
                    database_url,
                )
                with connected(database_url) as (_, writer):
                    await asyncio.to_thread(write, writer, claim, 2)
                    last = writer.events.page(command, 0, 1).last
                assert ids(first) + ids(await rest) == through(last)

    run(main)
