"""The tailer: replay, then live, without gap or duplicate, however things interleave."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from common.domain import sse
from common.domain.command import State
from common.domain.errors import InvalidRequest, NotFound, Unavailable
from common.domain.keys import Caller
from common.ports.signals import OUTPUT as OUTPUT_SIGNAL
from common.services.tailing import Ended, Pace, Subscription, Tailer, pump, reading
from rdev.sse import Event, Parser
from tests.load.stream_store import StreamStore, render

CALLER = Caller(UUID(int=1), "test", frozenset(), None)
FAST = Pace(active_s=0.001, idle_s=0.002, check_s=0.001, ring_s=1000.0, ring_bytes=2000)
NEVER = Pace(active_s=1000.0, idle_s=1000.0, check_s=1000.0)
LONGEST_S = 30  # far beyond what any of these takes: a test that hangs fails


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(LONGEST_S):
            await main()

    asyncio.run(bounded())


@asynccontextmanager
async def tailing(store: StreamStore, pace: Pace) -> AsyncIterator[Tailer]:
    tailer = Tailer(store, store, store, render, pace)
    try:
        yield tailer
    finally:
        await tailer.close()


class Reader:
    """Follows a subscription as a client would: bytes in, events out."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self._parser = Parser()
        self._events: list[Event] = []
        self._feed(subscription.hello())

    def _feed(self, data: bytes) -> None:
        self._events += [e for e in self._parser.feed(data) if isinstance(e, Event)]

    async def event(self) -> Event | None:
        """The next event; None at the end."""
        while not self._events:
            data = await self.subscription.next()
            if data is None:
                return None
            self._feed(data)
        return self._events.pop(0)

    async def events(self, count: int) -> list[Event]:
        found = [await self.event() for _ in range(count)]
        return [e for e in found if e is not None]

    async def rest(self) -> list[Event]:
        found = []
        while (event := await self.event()) is not None:
            found.append(event)
        return found


def ids(events: list[Event]) -> list[int]:
    return [int(event.id) for event in events]


def through(last: int, after: int = 0) -> list[int]:
    return list(range(after + 1, last + 1))


class Writer:
    """Appends at every read of the database, before it happens, until it has ended the command."""

    def __init__(self, store: StreamStore, command: UUID, seed: int, events: int = 30) -> None:
        self._store = store
        self._command = command
        self._random = random.Random(seed)
        self._left = events
        self._lock = threading.Lock()
        store.before_read = self

    def __call__(self, _name: str) -> None:
        with self._lock:
            self._store.quiet = self._random.random() < 0.5
            for _ in range(self._random.choice((0, 0, 1, 2, 7))):
                if self._left > 0:
                    self._store.print(self._command, b"x" * self._random.choice((1, 10, 900)))
                elif self._left == 0:
                    self._store.end(self._command)
                self._left -= 1


@pytest.mark.parametrize("block", range(8))
def test_replay_and_live_meet_without_gap_or_duplicate(block: int) -> None:
    """With appends at every moment of a read, lost wake-ups and a tiny ring: each event once."""

    async def one(seed: int) -> None:
        store = StreamStore()
        command = store.create()
        async with tailing(store, FAST) as tailer:
            Writer(store, command, seed)
            readers = [Reader(await tailer.follow(command, CALLER)) for _ in range(3)]
            found = await asyncio.gather(*(reader.rest() for reader in readers))
        assert [ids(events) for events in found] == [through(store.last(command))] * 3

    async def main() -> None:
        for seed in range(block * 25, block * 25 + 25):
            await one(seed)

    run(main)


def test_a_reconnect_at_every_border_gets_the_rest() -> None:
    """Whichever event was the last received, what follows it comes once and in order."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        for number in range(20):
            store.print(command, b"line %d\n" % number)
        async with tailing(store, NEVER) as tailer:
            open_readers = [
                Reader(await tailer.follow(command, CALLER, str(after))) for after in range(22)
            ]
            waiting = [asyncio.create_task(reader.rest()) for reader in open_readers]
            store.print(command, b"live\n")
            store.end(command)
            last = store.last(command)
            found = await asyncio.gather(*waiting)
            assert [ids(events) for events in found] == [through(last, n) for n in range(22)]
            for after in range(last):
                again = Reader(await tailer.follow(command, CALLER, str(after)))
                assert ids(await again.rest()) == through(last, after)

    run(main)


def test_a_slow_reader_reads_the_database_again() -> None:
    """What has left the ring is replayed, and the ring holds no more than its bound."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        pace = Pace(active_s=1000.0, idle_s=1000.0, check_s=1000.0, ring_bytes=5000)
        async with tailing(store, pace) as tailer:
            slow, quick = [Reader(await tailer.follow(command, CALLER)) for _ in range(2)]
            await slow.events(1)
            for number in range(100):
                store.print(command, b"%d" % number * 100)
                await quick.event()
            ring = tailer._commands._channels[command].ring
            assert 0 < ring.size <= 5000
            assert ring.lost(1)
            store.end(command)
            assert ids(await slow.rest()) == through(102, 1)

    run(main)


def test_an_event_larger_than_the_ring_still_arrives() -> None:
    """A huge agent line passes through the database instead of the ring."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        async with tailing(store, Pace(ring_bytes=100)) as tailer:
            reader = Reader(await tailer.follow(command, CALLER))
            await reader.events(1)
            waiting = asyncio.create_task(reader.events(1))
            store.append(command, "agent", json.dumps({"text": "x" * 9000}).encode())
            [event] = await waiting
            assert json.loads(event.data)["text"] == "x" * 9000

    run(main)


def test_followers_share_one_read_and_one_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A live event is read once and encoded once, however many follow."""
    encoded: list[int] = []
    encode = sse.encode

    def counting(event: Any, **rest: Any) -> bytes:
        encoded.append(event.seq)
        return encode(event, **rest)

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        async with tailing(store, NEVER) as tailer:
            readers = [Reader(await tailer.follow(command, CALLER, "1")) for _ in range(50)]
            waiting = [asyncio.create_task(reader.event()) for reader in readers]
            await all_wait(tailer, readers)
            monkeypatch.setattr(sse, "encode", counting)
            store.reads.clear()
            store.print(command, b"x")
            events = await asyncio.gather(*waiting)
            assert {event.id for event in events if event} == {"2"}
            assert encoded == [2]
            assert "page" not in store.reads

    run(main)


async def all_wait(tailer: Tailer, readers: list[Reader]) -> None:
    """Return once each of these waits for news and the tailer has nothing left to look at."""
    if tailer._starting is not None:
        await tailer._starting
    pumps = [p for p in (tailer._commands._pump, tailer._projects._pump) if p._task is not None]
    await asyncio.sleep(0)
    while not all(reader.subscription._waiter for reader in readers) or any(
        p._rung.is_set() or p._next_at == float("-inf") for p in pumps
    ):
        await asyncio.sleep(0)
        pumps = [p for p in (tailer._commands._pump, tailer._projects._pump) if p._task is not None]


def test_up_to_64_events_leave_in_one_piece() -> None:
    """Events that are there together are taken together, but not more than 64 of them."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        async with tailing(store, NEVER) as tailer:
            reader = Reader(await tailer.follow(command, CALLER, "1"))
            waiting = asyncio.create_task(reader.subscription.next())
            await all_wait(tailer, [reader])
            transaction = store.begin()
            for _ in range(100):
                transaction.append(command, "output", b"x", stream="merged", offset=0)
            transaction.commit()
            store.notify_of(command)
            first, second = await waiting, await reader.subscription.next()
            assert first is not None and second is not None
            assert [first.count(b"id: "), second.count(b"id: ")] == [64, 36]

    run(main)


@pytest.mark.parametrize("state", [State.RUNNING, State.QUEUED])
def test_a_lost_wakeup_costs_a_poll(state: State) -> None:
    """Without any wake-up the poll finds the news, of running and of waiting commands."""

    async def main() -> None:
        store = StreamStore()
        store.quiet = True
        command = store.create(state=state)
        async with tailing(store, FAST) as tailer:
            reader = Reader(await tailer.follow(command, CALLER, "1"))
            waiting = asyncio.create_task(reader.events(2))
            await all_wait(tailer, [reader])
            store.append(command, "state", b'{"state":"running"}')
            store.print(command, b"x")
            assert ids(await waiting) == [2, 3]

    run(main)


def test_a_wakeup_that_says_nothing_means_all() -> None:
    """After a reconnection of LISTEN everything followed is looked at."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        async with tailing(store, NEVER) as tailer:
            reader = Reader(await tailer.follow(command, CALLER, "1"))
            waiting = asyncio.create_task(reader.event())
            await all_wait(tailer, [reader])
            store.quiet = True
            store.print(command, b"x")
            store.notify(OUTPUT_SIGNAL, "no-command demo")
            store.notify(OUTPUT_SIGNAL, "")
            event = await waiting
            assert event is not None and event.id == "2"

    run(main)


def test_a_channel_that_cannot_listen_polls() -> None:
    """LISTEN failing for good leaves the poll."""

    class Deaf(StreamStore):
        def listen(self, *_: Any) -> Any:
            raise Unavailable("no LISTEN here")

    async def main() -> None:
        store = Deaf()
        command = store.create()
        async with tailing(store, FAST) as tailer:
            reader = Reader(await tailer.follow(command, CALLER, "1"))
            store.end(command)
            assert ids(await reader.rest()) == [2]

    run(main)


def test_nothing_is_read_when_nobody_follows() -> None:
    """After the last follower left, wake-ups and time cause no read."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        async with tailing(store, FAST) as tailer:
            reader = Reader(await tailer.follow(command, CALLER))
            await reader.events(1)
            reader.subscription.close()
            reader.subscription.close()
            assert tailer._commands._channels == {}
            assert await reader.subscription.next() is None
            assert await tailer._commands._round() is None
            store.reads.clear()
            for _ in range(3):
                store.print(command, b"x")
                assert await tailer._commands._round() is None
            assert store.reads == {}

    run(main)


def test_a_database_that_comes_back_is_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing read is tried again, and nothing is lost."""
    monkeypatch.setattr(pump, "_FIRST_PAUSE_S", 0.001)

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        failed = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with tailing(store, FAST) as tailer:
            reader = Reader(await tailer.follow(command, CALLER, "1"))
            waiting = asyncio.create_task(reader.event())
            await all_wait(tailer, [reader])
            store.before_read = lambda _name: loop.call_soon_threadsafe(failed.set)
            store.fail = Unavailable("the database is down")
            store.print(command, b"x")
            await failed.wait()
            store.fail = None
            event = await waiting
            assert event is not None and event.id == "2"

    run(main)


def test_a_replay_without_a_database_says_so() -> None:
    """A page that cannot be read raises, for the stream to end with a hint."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        async with tailing(store, NEVER) as tailer:
            reader = Reader(await tailer.follow(command, CALLER))
            store.fail = Unavailable("the database is down")
            with pytest.raises(Unavailable):
                await reader.event()

    run(main)


def test_a_newcomer_wakes_who_missed_the_news() -> None:
    """Whoever learns of events that others still wait for has them read, without any wake-up."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        async with tailing(store, NEVER) as tailer:
            first = Reader(await tailer.follow(command, CALLER, "1"))
            waiting = asyncio.create_task(first.event())
            await all_wait(tailer, [first])
            store.quiet = True
            store.print(command, b"missed")
            second = Reader(await tailer.follow(command, CALLER, "1"))
            for event in (await second.event(), await waiting):
                assert event is not None and event.id == "2"

    run(main)


def test_one_wakeup_brings_more_than_one_read_holds() -> None:
    """News larger than one read arrive whole, without a further wake-up."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        async with tailing(store, NEVER) as tailer:
            reader = Reader(await tailer.follow(command, CALLER, "1"))
            waiting = asyncio.create_task(reader.events(60))
            await all_wait(tailer, [reader])
            transaction = store.begin()
            for _ in range(60):
                transaction.append(command, "output", b"x" * 65536, stream="merged", offset=0)
            transaction.commit()
            store.notify_of(command)
            assert ids(await waiting) == through(61, 1)

    run(main)


def test_a_replay_beyond_the_head_has_the_others_read_on() -> None:
    """A replay meets events nobody was told of: those who wait at the head get them too."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        store.print(command, b"old")
        async with tailing(store, NEVER) as tailer:
            first = Reader(await tailer.follow(command, CALLER, "2"))
            waiting = asyncio.create_task(first.event())
            await all_wait(tailer, [first])
            second = Reader(await tailer.follow(command, CALLER))
            store.quiet = True
            store.print(command, b"missed")
            assert ids(await second.events(3)) == [1, 2, 3]
            also = asyncio.create_task(second.event())
            event = await waiting
            assert event is not None and event.id == "3"
            also.cancel()

    run(main)


def test_a_replay_that_meets_the_end_tells_who_waits() -> None:
    """A replay reads an end nobody was told of: followers and waiters get it too."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        store.print(command, b"old")
        async with tailing(store, NEVER) as tailer:
            first = Reader(await tailer.follow(command, CALLER, "2"))
            waiting = asyncio.create_task(first.rest())
            ending = asyncio.create_task(tailer.wait_for_end(command, 20))
            await all_wait(tailer, [first])
            while "commands" not in store.reads:
                await asyncio.sleep(0)
            second = Reader(await tailer.follow(command, CALLER))
            store.quiet = True

            def between(name: str) -> None:
                if name == "page":
                    store.before_read = None
                    store.end(command)

            store.before_read = between
            assert ids(await second.rest()) == [1, 2, 3]
            assert ids(await waiting) == [3]
            ended = await ending
            assert ended is not None and ended.ended

    run(main)


def test_a_long_outage_is_asked_about_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause after a failed round doubles up to a bound, and starts anew after a success."""

    async def main() -> None:
        fails = [True] * 6 + [False, True]
        pauses: list[float] = []
        over = asyncio.Event()

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)
            loop.rung()

        class Loop:
            async def round(self) -> float | None:
                if not fails:
                    over.set()
                    return None
                if fails.pop(0):
                    raise Unavailable("down")
                return 0.0

            def rung(self) -> None:
                pumping.ring()

        loop = Loop()
        monkeypatch.setattr(asyncio, "sleep", sleep)
        pumping = pump.Pump("test", loop.round)
        pumping.ring()
        await over.wait()
        await pumping.close()
        assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 0.25]

    run(main)


# Beginning and end -------------------------------------------------------------------------------


def test_the_end_is_rendered_from_the_final_row() -> None:
    """`end` carries the resource, live and replayed, and nothing follows it."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        async with tailing(store, NEVER) as tailer:
            live = Reader(await tailer.follow(command, CALLER))
            waiting = asyncio.create_task(live.rest())
            store.end(command, State.FAILED)
            replayed = Reader(await tailer.follow(command, CALLER))
            for events in (await waiting, await replayed.rest()):
                assert [e.type for e in events] == ["state", "end"]
                assert json.loads(events[-1].data)["state"] == "failed"

    run(main)


def test_after_the_end_there_is_nothing() -> None:
    """A reconnect with the id of the `end` is told that it is over."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        store.end(command)
        async with tailing(store, NEVER) as tailer:
            with pytest.raises(Ended):
                await tailer.follow(command, CALLER, "2")

    run(main)


def test_ids_that_cannot_be_are_refused() -> None:
    """No integer or beyond the last event: bad request. Unknown or foreign: not found."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        stranger = Caller(UUID(int=2), "other", frozenset(), frozenset({"elsewhere"}))
        async with tailing(store, NEVER) as tailer:
            for wrong in ("x", "2", "-1"):
                with pytest.raises(InvalidRequest):
                    await tailer.follow(command, CALLER, wrong)
            for who, what in ((CALLER, UUID(int=9)), (stranger, command)):
                with pytest.raises(NotFound):
                    await tailer.follow(what, who, "999")

    run(main)


def test_the_same_answer_for_a_foreign_command_and_none() -> None:
    """Nothing of the error tells a foreign command from one that never was."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        stranger = Caller(UUID(int=2), "other", frozenset(), frozenset())
        async with tailing(store, NEVER) as tailer:
            said = []
            for what in (command, UUID(int=9)):
                with pytest.raises(NotFound) as caught:
                    await tailer.follow(what, stranger)
                said.append(caught.value.detail.replace(what.hex, "…"))
            assert said[0] == said[1]

    run(main)


@pytest.mark.parametrize(
    ("upto", "after", "expected"),
    [
        (3, 0, [("gap", 3), ("output", 4), ("output", 5), ("end", 6)]),
        (3, 2, [("gap", 3), ("output", 4), ("output", 5), ("end", 6)]),
        (3, 3, [("output", 4), ("output", 5), ("end", 6)]),
        (None, 0, [("gap", 5), ("end", 6)]),
        (None, 4, [("gap", 5), ("end", 6)]),
        (None, 5, [("end", 6)]),
    ],
)
def test_expired_events_are_a_gap(
    upto: int | None, after: int, expected: list[tuple[str, int]]
) -> None:
    """What retention took is one `gap`, then comes what is there, then `end`."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        for number in range(4):
            store.print(command, b"%d" % number)
        store.end(command)
        store.expire(command, upto)
        async with tailing(store, NEVER) as tailer:
            events = await Reader(await tailer.follow(command, CALLER, str(after))).rest()
            assert [(e.type, int(e.id)) for e in events] == expected
            if expected[0][0] == "gap":
                assert json.loads(events[0].data) == {"from": after + 1, "to": expected[0][1]}

    run(main)


def test_a_gap_in_a_running_command_goes_on_live() -> None:
    """When the events of a running command have expired, what comes next still comes."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        store.print(command, b"old")
        store.expire(command)
        async with tailing(store, NEVER) as tailer:
            reader = Reader(await tailer.follow(command, CALLER))
            [gap] = await reader.events(1)
            assert (gap.type, gap.id) == ("gap", "2")
            waiting = asyncio.create_task(reader.rest())
            await all_wait(tailer, [reader])
            store.print(command, b"new")
            store.end(command)
            assert ids(await waiting) == [3, 4]

    run(main)


def test_events_that_expire_under_a_waiting_reader_are_a_gap() -> None:
    """News that no longer follow the ring's head are announced as missing."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        async with tailing(store, NEVER) as tailer:
            reader = Reader(await tailer.follow(command, CALLER, "1"))
            waiting = asyncio.create_task(reader.events(2))
            await all_wait(tailer, [reader])
            store.quiet = True
            store.print(command, b"gone")
            store.print(command, b"there")
            store.expire(command, upto=2)
            store.quiet = False
            store.notify_of(command)
            assert [(e.type, e.id) for e in await waiting] == [("gap", "2"), ("output", "3")]

    run(main)


# Dead leases -------------------------------------------------------------------------------------


def test_reading_a_command_whose_runner_died_rings_another() -> None:
    """A silent active command with a dead lease rings its project's runner, not too often."""

    async def main() -> None:
        store = StreamStore()
        dead, alive = store.create("dead"), store.create("alive")
        store.change(dead, lease_dead=True)
        rung, looked = asyncio.Event(), asyncio.Semaphore(0)
        loop = asyncio.get_running_loop()
        store.on_ring = lambda _project: loop.call_soon_threadsafe(rung.set)
        async with tailing(store, FAST) as tailer:
            readers = [Reader(await tailer.follow(c, CALLER, "1")) for c in (dead, alive)]
            waiting = [asyncio.create_task(reader.event()) for reader in readers]
            await rung.wait()
            store.before_read = lambda name: (
                loop.call_soon_threadsafe(looked.release) if name == "commands" else None
            )
            for _ in range(5):
                await looked.acquire()
            assert store.rung == ["dead"]
            for task in waiting:
                task.cancel()

    run(main)


def test_a_command_that_starts_unseen_is_watched() -> None:
    """A queued command that was claimed by a runner that died at once rings too."""

    async def main() -> None:
        store = StreamStore()
        command = store.create(state=State.QUEUED)
        rung = asyncio.Event()
        loop = asyncio.get_running_loop()
        store.on_ring = lambda _project: loop.call_soon_threadsafe(rung.set)
        async with tailing(store, FAST) as tailer:
            reader = Reader(await tailer.follow(command, CALLER, "1"))
            waiting = asyncio.create_task(reader.event())
            await all_wait(tailer, [reader])
            store.change(command, state=State.CLAIMED, lease_dead=True)
            await rung.wait()
            waiting.cancel()

    run(main)


# Waiting for the end -----------------------------------------------------------------------------


@pytest.mark.parametrize("quiet", [False, True])
def test_waiting_for_an_end(quiet: bool) -> None:
    """Who waits gets the final row, by a wake-up or by the poll, without reading any output."""

    async def main() -> None:
        store = StreamStore()
        store.quiet = quiet
        command = store.create()
        async with tailing(store, FAST if quiet else NEVER) as tailer:
            waiting = [asyncio.create_task(tailer.wait_for_end(command, 20)) for _ in range(3)]
            store.print(command, b"x" * 1000)
            while "commands" not in store.reads:
                await asyncio.sleep(0)
            store.end(command)
            for ended in await asyncio.gather(*waiting):
                assert ended is not None and ended.state is State.SUCCEEDED
            assert "news" not in store.reads and "page" not in store.reads
            assert tailer._commands._channels == {}

    run(main)


def test_waiting_for_an_end_that_was() -> None:
    """A command that is over answers at once."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        store.end(command)
        async with tailing(store, NEVER) as tailer:
            ended = await tailer.wait_for_end(command, 20)
            assert ended is not None and ended.ended

    run(main)


def test_waiting_ends_with_its_time() -> None:
    """None when the command takes longer, and nothing is left behind."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        async with tailing(store, NEVER) as tailer:
            assert await tailer.wait_for_end(command, 0.01) is None
            assert tailer._commands._channels == {}

    run(main)


@pytest.mark.parametrize("quiet", [False, True])
def test_waiting_beside_a_stream(quiet: bool) -> None:
    """A stream and a waiter of one command both get the end, whichever came first."""

    async def main(stream_first: bool) -> None:
        store = StreamStore()
        command = store.create()
        for number in range(5):
            store.print(command, b"%d" % number)
        store.quiet = quiet
        async with tailing(store, FAST if quiet else NEVER) as tailer:
            if stream_first:
                reader = Reader(await tailer.follow(command, CALLER, "3"))
            waiting = asyncio.create_task(tailer.wait_for_end(command, 20))
            await asyncio.sleep(0)
            if not stream_first:
                reader = Reader(await tailer.follow(command, CALLER, "3"))
            reading_on = asyncio.create_task(reader.rest())
            store.end(command)
            ended = await waiting
            assert ended is not None and ended.ended
            assert ids(await reading_on) == [4, 5, 6, 7]

    for first in (True, False):
        run(lambda first=first: main(first))  # type: ignore[misc]


def test_pages_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long history arrives page by page, complete and in order."""
    monkeypatch.setattr(reading, "PAGE_BYTES", 1000)

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        for _ in range(50):
            store.print(command, b"x" * 300)
        store.end(command)
        async with tailing(store, NEVER) as tailer:
            assert ids(await Reader(await tailer.follow(command, CALLER)).rest()) == through(52)
            assert store.reads["page"] > 10

    run(main)
