"""Project streams: cursors that lose nothing, although transactions commit out of order."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections import defaultdict
from uuid import UUID

import pytest

from common.domain import sse
from common.domain.errors import InvalidRequest
from common.domain.identifiers import show
from common.ports.events import Position, ProjectPage
from common.services.tailing import Pace, Tailer
from rdev.sse import Event
from tests.load.stream_store import StreamStore, Transaction
from tests.unit.test_tailing import FAST, NEVER, Reader, all_wait, run, tailing


def name(command: UUID) -> str:
    return show("cmd", command)


def places(events: list[Event]) -> list[tuple[str, int]]:
    """(command, seq) of each event; of an `end` only the command says which."""
    bodies = [json.loads(event.data) for event in events]
    return [(body["command_id"], body.get("seq", 0)) for body in bodies]


class Writers:
    """Transactions of several commands, begun and committed in any order, at every read."""

    def __init__(self, store: StreamStore, seed: int, transactions: int = 15) -> None:
        self._store = store
        self._random = random.Random(seed)
        self._commands = [store.create() for _ in range(3)]
        self._foreign = store.create("elsewhere")
        self._open: list[Transaction] = []
        self._left = transactions
        self._lock = threading.Lock()

    def start(self) -> None:
        self._begin()
        self._store.before_read = lambda _name: self._act()

    def _begin(self) -> None:
        transaction = self._store.begin()
        command = self._random.choice(self._commands)
        for _ in range(self._random.choice((1, 2))):
            transaction.append(command, "warning", b'{"code":"x"}')
        self._open.append(transaction)
        self._left -= 1

    def _act(self) -> None:
        with self._lock:
            for _ in range(self._random.choice((0, 1, 3))):
                if self._left and self._random.random() < 0.6:
                    self._begin()
                elif self._open:
                    self._open.pop(self._random.randrange(len(self._open))).commit()
                    if self._random.random() < 0.5:
                        self._store.notify_of(self._commands[0])
            if self._random.random() < 0.1:
                self._store.print(self._foreign, b"x")

    def all(self) -> dict[str, list[int]] | None:
        """Everything there will ever be beyond each command's first event; None: not yet known."""
        with self._lock:
            if self._left or self._open:
                return None
            wrote = {name(c): list(range(2, self._store.last(c) + 1)) for c in self._commands}
            return {command: seqs for command, seqs in wrote.items() if seqs}


def by_command(events: list[Event]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for command, seq in places(events):
        found[command].append(seq)
    return found


@pytest.mark.parametrize("block", range(8))
def test_late_commits_are_neither_lost_nor_repeated(block: int) -> None:
    """Readers that reconnect at random events, and one that stays: each event once, in order."""

    async def follow(
        tailers: list[Tailer], reader: Reader, writers: Writers, reconnects: float
    ) -> None:
        chance = random.Random(block)
        received: list[Event] = []
        while writers.all() is None or by_command(received) != writers.all():
            event = await reader.event()
            assert event is not None and event.type == "warning"
            received.append(event)
            assert len(set(places(received))) == len(received)
            if chance.random() < reconnects:
                reader.subscription.close()
                elsewhere = chance.choice(tailers)
                reader = Reader(await elsewhere.follow_project("demo", event.id))

    async def case(seed: int) -> None:
        store = StreamStore()
        writers = Writers(store, seed)
        async with tailing(store, FAST) as one, tailing(store, FAST) as other:
            readers = [Reader(await one.follow_project("demo")) for _ in range(4)]
            writers.start()
            often = (0.0, 0.0, 0.1, 0.6)
            await asyncio.gather(
                *(follow([one, other], r, writers, n) for r, n in zip(readers, often, strict=True))
            )

    async def main() -> None:
        for seed in range(block * 25, block * 25 + 25):
            await case(seed)

    run(main)


def test_a_reconnect_at_every_border_of_a_project_gets_the_rest() -> None:
    """From each event's cursor on comes exactly what followed it, in another process too."""

    async def main() -> None:
        store = StreamStore()
        commands = [store.create(), store.create()]
        late = store.begin()
        late.append(commands[1], "warning", b'{"code":"late"}')
        async with tailing(store, NEVER) as tailer, tailing(store, NEVER) as other:
            reader = Reader(await tailer.follow_project("demo", output=True))
            begin = reader.subscription.cursor  # type: ignore[attr-defined]
            reading = asyncio.create_task(reader.events(12))
            for number in range(5):
                for command in commands:
                    store.print(command, b"%d" % number)
            late.commit()
            store.end(commands[0])
            events = await reading
            assert len(set(places(events))) == 12
            for at, cursor in enumerate([begin, *(event.id for event in events)]):
                for process in (tailer, other):
                    again = Reader(await process.follow_project("demo", cursor, output=True))
                    found = await again.events(12 - at)
                    assert sorted(places(found)) == sorted(places(events[at:]))
                    again.subscription.close()

    run(main)


def test_a_late_commit_is_delivered_when_it_becomes_visible() -> None:
    """A transaction that was open while others were delivered loses nothing, and delays nothing."""

    async def main() -> None:
        store = StreamStore()
        slow, quick = store.create(), store.create()
        open_transaction = store.begin()
        open_transaction.append(slow, "warning", b'{"code":"late"}')
        async with tailing(store, NEVER) as tailer:
            reader = Reader(await tailer.follow_project("demo"))
            reading = asyncio.create_task(reader.event())
            store.append(quick, "warning", b'{"code":"early"}')
            early = await reading
            assert early is not None and places([early]) == [(name(quick), 2)]
            open_transaction.commit()
            store.notify_of(slow)
            late = await reader.event()
            assert late is not None and places([late]) == [(name(slow), 2)]
            resumed = Reader(await tailer.follow_project("demo", early.id))
            again = await resumed.event()
            assert again is not None and places([again]) == [(name(slow), 2)]

    run(main)


def test_output_only_on_request() -> None:
    """Without `output` a project's stream has states and ends; with it also what was printed."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        async with tailing(store, NEVER) as tailer:
            plain = Reader(await tailer.follow_project("demo"))
            full = Reader(await tailer.follow_project("demo", output=True))
            reading = [
                asyncio.create_task(reader.events(count))
                for reader, count in ((plain, 2), (full, 4))
            ]
            store.append(command, "state", b'{"state":"running"}')
            store.print(command, b"x")
            store.append(command, "agent", b'{"type":"result"}')
            store.end(command)
            types = [[event.type for event in await task] for task in reading]
            assert types == [["state", "end"], ["state", "output", "agent", "end"]]

    run(main)


def test_an_end_carries_the_resource_and_its_command() -> None:
    """`end` in a project's stream is the final resource with the command's id beside it."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        async with tailing(store, NEVER) as tailer:
            reader = Reader(await tailer.follow_project("demo"))
            reading = asyncio.create_task(reader.event())
            store.end(command)
            event = await reading
            assert event is not None
            body = json.loads(event.data)
            assert (body["command_id"], body["id"], body["state"]) == (
                name(command),
                name(command),
                "succeeded",
            )

    run(main)


def test_followers_of_a_project_share_one_read() -> None:
    """Who is up to date shares the channel, also who came with a cursor."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        async with tailing(store, NEVER) as tailer:
            first = Reader(await tailer.follow_project("demo"))
            reading = asyncio.create_task(first.event())
            store.append(command, "warning", b'{"code":"x"}')
            event = await reading
            assert event is not None
            readers = [first] + [
                Reader(await tailer.follow_project("demo", event.id)) for _ in range(5)
            ]
            readers += [Reader(await tailer.follow_project("demo")) for _ in range(5)]
            waiting = [asyncio.create_task(reader.event()) for reader in readers]
            await all_wait(tailer, readers)
            store.reads.clear()
            store.append(command, "warning", b'{"code":"y"}')
            got = await asyncio.gather(*waiting)
            assert {places([e])[0] for e in got if e} == {(name(command), 3)}
            assert store.reads["project_news"] <= 2

    run(main)


def test_a_cursor_from_elsewhere_joins_the_channel() -> None:
    """A cursor that this process never gave is read up to where the others are, then shared."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        async with tailing(store, NEVER) as tailer, tailing(store, NEVER) as other:
            old = Reader(await other.follow_project("demo")).subscription
            first = Reader(await tailer.follow_project("demo"))
            waiting = [asyncio.create_task(first.event())]
            await all_wait(tailer, [first])
            store.append(command, "warning", b'{"code":"x"}')
            await waiting.pop()
            waiting.append(asyncio.create_task(first.event()))
            await all_wait(tailer, [first])
            joining = Reader(await tailer.follow_project("demo", old.cursor))  # type: ignore[attr-defined]
            missed = await joining.event()
            assert missed is not None and places([missed]) == [(name(command), 2)]
            waiting.append(asyncio.create_task(joining.event()))
            await all_wait(tailer, [first, joining])
            store.reads.clear()
            store.append(command, "warning", b'{"code":"y"}')
            assert len(await asyncio.gather(*waiting)) == 2
            assert store.reads["project_news"] <= 2

    run(main)


def test_a_slow_reader_of_a_project_reads_on_alone() -> None:
    """Who fell out of the ring goes on from its own cursor and misses nothing."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        pace = Pace(active_s=1000.0, idle_s=1000.0, check_s=1000.0, ring_bytes=600)
        async with tailing(store, pace) as tailer:
            slow, quick = [Reader(await tailer.follow_project("demo")) for _ in range(2)]
            for number in range(30):
                reading = asyncio.create_task(quick.event())
                await all_wait(tailer, [quick])
                store.append(command, "warning", b'{"code":"%d"}' % number)
                await reading
            assert places(await slow.events(30)) == [(name(command), n) for n in range(2, 32)]

    run(main)


def test_who_stands_at_the_head_is_not_skipped_when_another_moves_it() -> None:
    """A reader in the middle of a send still gets what another, catching up alone, read past it."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        async with tailing(store, NEVER) as tailer:
            busy = Reader(await tailer.follow_project("demo"))
            old = busy.subscription.cursor  # type: ignore[attr-defined]
            store.append(command, "warning", b'{"code":"x"}')
            other = Reader(await tailer.follow_project("demo", old))
            assert places(await other.events(1)) == [(name(command), 2)]
            assert places(await busy.events(1)) == [(name(command), 2)]

    run(main)


def test_a_lost_wakeup_of_a_project_costs_a_poll() -> None:
    """Without any wake-up the poll finds a project's news."""

    async def main() -> None:
        store = StreamStore()
        store.quiet = True
        command = store.create()
        async with tailing(store, FAST) as tailer:
            reader = Reader(await tailer.follow_project("demo"))
            reading = asyncio.create_task(reader.event())
            await all_wait(tailer, [reader])
            store.append(command, "state", b'{"state":"running"}')
            assert await reading is not None

    run(main)


def test_a_joining_reader_misses_nothing_that_comes_in_between() -> None:
    """News that the channel reads while another catches up reach that one too, and once."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        async with tailing(store, NEVER) as tailer, tailing(store, NEVER) as other:
            old = Reader(await other.follow_project("demo")).subscription
            first = Reader(await tailer.follow_project("demo"))
            staying = asyncio.create_task(first.events(3))
            await all_wait(tailer, [first])
            store.quiet = True
            store.append(command, "warning", b'{"code":"before"}')
            joining = Reader(await tailer.follow_project("demo", old.cursor))  # type: ignore[attr-defined]
            reads = 0

            def between(name: str) -> None:
                nonlocal reads
                reads += name == "project_news"
                if reads in (
                    2,
                    3,
                ):  # after the joining one's own read: twice the channel finds news
                    store.before_read = None
                    store.append(command, "warning", b'{"code":"between"}')
                    store.before_read = between

            store.before_read = between
            expected = [(name(command), n) for n in (2, 3, 4)]
            assert places(await joining.events(3)) == expected
            assert places(await staying) == expected

    run(main)


def test_a_read_that_was_cut_short_proves_nothing() -> None:
    """A page that shows no event but has more behind it does not let a catching-up reader join."""

    class Cut(StreamStore):
        """The third read passes by hidden output only, and stops there."""

        def project_news(
            self, project: str, position: Position, *, output: bool, limit: int
        ) -> ProjectPage:
            if self.reads.get("project_news", 0) == cut_at:
                self._reading("project_news")
                return ProjectPage([], position, more=True)
            return super().project_news(project, position, output=output, limit=limit)

    store = Cut()
    cut_at = -1
    command = store.create()

    async def main() -> None:
        nonlocal cut_at
        async with tailing(store, NEVER) as tailer, tailing(store, NEVER) as other:
            old = Reader(await other.follow_project("demo")).subscription
            first = Reader(await tailer.follow_project("demo"))
            staying = asyncio.create_task(first.event())
            await all_wait(tailer, [first])
            joining = Reader(await tailer.follow_project("demo", old.cursor))  # type: ignore[attr-defined]
            store.quiet = True
            store.append(command, "warning", b'{"code":"behind the cut"}')
            cut_at = store.reads["project_news"] + 1  # after the joining one's own read
            assert places(await joining.events(1)) == [(name(command), 2)]
            second = asyncio.create_task(joining.event())
            assert places([e for e in [await staying] if e]) == [(name(command), 2)]
            store.quiet = False
            store.append(command, "warning", b'{"code":"later"}')
            assert places([e for e in [await second] if e]) == [(name(command), 3)]

    run(main)


def test_a_wakeup_that_says_nothing_means_projects_too() -> None:
    """After a reconnection of LISTEN every followed project is looked at."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        async with tailing(store, NEVER) as tailer:
            reader = Reader(await tailer.follow_project("demo"))
            reading = asyncio.create_task(reader.event())
            await all_wait(tailer, [reader])
            store.quiet = True
            store.append(command, "warning", b'{"code":"x"}')
            store.notify("rdev_output", "")
            assert await reading is not None

    run(main)


def test_a_cursor_that_could_not_be_written_down_is_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resuming from a lossy cursor says that something is missing and goes on from now."""
    monkeypatch.setattr(sse, "MAX_CURSOR_CHARS", 60)

    async def main() -> None:
        store = StreamStore()
        async with tailing(store, NEVER) as tailer:
            held = store.begin()  # keeps the horizon down, so cursors must name every command
            reader = Reader(await tailer.follow_project("demo"))
            reading = asyncio.create_task(reader.events(3))
            commands = [store.create() for _ in range(3)]
            events = await reading
            assert sse.decode_cursor("demo", events[-1].id).lossy
            reader.subscription.close()
            held.commit()
            store.append(commands[0], "warning", b'{"code":"missed"}')
            resumed = Reader(await tailer.follow_project("demo", events[-1].id))
            gap = await resumed.event()
            assert gap is not None and gap.type == "gap"
            assert json.loads(gap.data) == {"from": events[-1].id, "to": gap.id}
            reading_on = asyncio.create_task(resumed.event())
            await all_wait(tailer, [resumed])
            store.append(commands[0], "warning", b'{"code":"seen"}')
            event = await reading_on
            assert event is not None and places([event]) == [(name(commands[0]), 3)]

    run(main)


def test_cursors_that_cannot_be_are_refused() -> None:
    """Garbage, another project's and one from the future: bad requests."""

    async def main() -> None:
        store = StreamStore()
        store.create()
        async with tailing(store, NEVER) as tailer:
            foreign = sse.encode_cursor("other", 1, {})
            future = sse.encode_cursor("demo", 2**62, {})
            for wrong in ("7", "x y", foreign, future):
                for _ in range(2):  # before and after the channel exists
                    with pytest.raises(InvalidRequest):
                        await tailer.follow_project("demo", wrong)
                    await tailer.follow_project("demo")

    run(main)


def test_a_project_whose_runner_died_is_rung() -> None:
    """A command seen running that falls silent with a dead lease rings, once in a while only."""

    async def main() -> None:
        store = StreamStore()
        command = store.create()
        rung = asyncio.Event()
        loop = asyncio.get_running_loop()
        store.on_ring = lambda _project: loop.call_soon_threadsafe(rung.set)
        async with tailing(store, FAST) as tailer:
            reader = Reader(await tailer.follow_project("demo"))
            reading = asyncio.create_task(reader.events(2))
            await all_wait(tailer, [reader])
            store.append(command, "state", b'{"state":"running"}')
            store.change(command, lease_dead=True)
            await rung.wait()
            assert store.rung == ["demo"]
            store.end(command)
            await reading
            [channel] = tailer._projects._channels.values()
            assert len(channel.watch) == 0

    run(main)


def test_the_last_follower_of_a_project_takes_the_channel_along() -> None:
    """Nobody follows, nothing is kept."""

    async def main() -> None:
        store = StreamStore()
        async with tailing(store, NEVER) as tailer:
            subscriptions = [await tailer.follow_project("demo") for _ in range(2)]
            for subscription in subscriptions:
                subscription.close()
            assert tailer._projects._channels == {}

    run(main)
