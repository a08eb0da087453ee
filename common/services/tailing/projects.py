"""Following whole projects: one channel per project and kind, shared by who is up to date.

Positions in a project are sets, not numbers: transactions commit out of order, so a cursor says
below which horizon all was delivered and, per command, how far beyond it. A subscriber that comes
with a cursor therefore reads on its own until it stands exactly where the channel stands. That is
known when three reads follow each other, the channel's, the subscriber's, the channel's again, and
the last finds nothing: what is visible only grows, so all three saw the same. While events keep
arriving in between it simply reads on, which delivers them just as well.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from common.domain import sse
from common.domain.errors import InvalidRequest
from common.ports.events import Position
from common.services import telemetry
from common.services.tailing.activity import Bells, Watch
from common.services.tailing.pace import Pace
from common.services.tailing.pump import Pump
from common.services.tailing.reading import ProjectReplay, Reading
from common.services.tailing.ring import Ring
from common.services.tailing.subscription import Subscription

_ID: Final = b"id: "


class Channel:
    """One project, with or without output. `position`: what its ring's head stands for.

    `lock` is held while it is read, so that its position moves by one read at a time.
    """

    __slots__ = ("key", "lock", "position", "read_at", "ring", "rung", "users", "watch")

    def __init__(self, key: tuple[str, bool], position: Position, pace: Pace) -> None:
        self.key = key
        self.position = position
        self.ring = Ring(0)
        self.rung = False
        self.read_at = float("-inf")
        self.users = 0
        self.watch = Watch(pace)
        self.lock = asyncio.Lock()

    @property
    def project(self) -> str:
        return self.key[0]

    @property
    def output(self) -> bool:
        return self.key[1]

    @property
    def cursor(self) -> str:
        return sse.encode_cursor(self.project, self.position.horizon, self.position.seen)

    def add(self, news: ProjectReplay, limit: int, now: float) -> None:
        self.position = news.position
        for item in news.items:
            self.watch.heard(item.event, now)
        if news.items:
            self.ring.extend((item.data for item in news.items), limit)

    def restart(self, position: Position) -> None:
        """Go on from elsewhere.

        Everybody else, also who had taken everything, now is behind the ring and reads on alone,
        from the cursor it holds.
        """
        self.position = position
        self.ring.jump(self.ring.head + 1)


class ProjectSubscription(Subscription):
    """`cursor`: after what was taken last. `index`: its place in the ring; None: reading alone."""

    __slots__ = ("_channel", "_tail", "cursor", "index")

    def __init__(self, tail: ProjectTail, channel: Channel, cursor: str, index: int | None) -> None:
        super().__init__(channel.ring)
        self._tail = tail
        self._channel = channel
        self.cursor = cursor
        self.index = index

    def hello(self) -> bytes:
        """The cursor it begins at: who is cut off before the first event resumes there."""
        return sse.id_only(self.cursor)

    def take(self) -> bytes | None:
        if self.index is None:
            return None
        batch = self._ring.take(self.index)
        if batch is None:
            return None
        self.index = batch.upto
        self.cursor = _cursor_of(batch.last)
        return batch.data

    @property
    def behind(self) -> bool:
        return self.index is None or self._ring.lost(self.index)

    @property
    def done(self) -> bool:
        return False

    async def fetch(self) -> bytes:
        read = await self._tail.catch_up(self._channel, self.cursor)
        self.cursor = read.cursor
        self.index = read.index
        return read.data

    def _before_wait(self) -> None:
        self._tail.waits(self._channel)

    def _leave(self) -> None:
        self._tail.leave(self._channel)


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """What a subscriber read alone, the cursor after it, and its place in the ring if any."""

    data: bytes
    cursor: str
    index: int | None


class ProjectTail:
    """All followed projects of this process."""

    def __init__(self, reading: Reading, bells: Bells, pace: Pace) -> None:
        self._reading = reading
        self._bells = bells
        self._pace = pace
        self._channels: dict[tuple[str, bool], Channel] = {}
        self._pump = Pump("projects", self._round)

    async def close(self) -> None:
        await self._pump.close()

    def heard(self, project: str) -> None:
        """There may be news of one project."""
        for output in (False, True):
            channel = self._channels.get((project, output))
            if channel is not None:
                self._ring(channel)

    def heard_of_all(self) -> None:
        """There may be news of any: wake-ups were lost."""
        for channel in self._channels.values():
            self._ring(channel)

    def _ring(self, channel: Channel) -> None:
        channel.rung = True
        if channel.ring.waiting:
            self._pump.ring()

    # Following -----------------------------------------------------------------------------------

    async def follow(
        self, project: str, cursor: str | None, *, output: bool
    ) -> ProjectSubscription:
        """From a cursor, or from now on. Raises InvalidRequest for what is no cursor of ours."""
        key = (project, output)
        if cursor and key in self._channels:
            sse.decode_cursor(project, cursor)
            channel = self._channels[key]
            index = channel.ring.position_of(_ID + cursor.encode("ascii") + b"\n")
            if index is not None:
                return self._subscribe(channel, cursor, index)
        now = await self._reading.run(self._reading.project_now, project)
        channel = self._channels.get(key) or Channel(key, now, self._pace)
        if not cursor:
            return self._subscribe(channel, channel.cursor, channel.ring.head)
        if sse.decode_cursor(project, cursor).horizon > now.horizon:
            raise InvalidRequest("the last event id lies beyond the last event of this project")
        return self._subscribe(channel, cursor, None)

    def _subscribe(self, channel: Channel, cursor: str, index: int | None) -> ProjectSubscription:
        self._channels[channel.key] = channel
        channel.users += 1
        return ProjectSubscription(self, channel, cursor, index)

    def leave(self, channel: Channel) -> None:
        channel.users -= 1
        if channel.users == 0:
            del self._channels[channel.key]

    def waits(self, channel: Channel) -> None:
        if channel.rung:
            self._pump.ring()
        else:
            self._pump.plan(channel.read_at + self._pause_of(channel))

    async def catch_up(self, channel: Channel, text: str) -> CaughtUp:
        """One page after a cursor, and a place in the ring where that is exactly its head."""
        cursor = sse.decode_cursor(channel.project, text)
        if cursor.lossy:
            return await self._lost(channel, text)
        position = Position(cursor.horizon, cursor.seen)
        async with channel.lock:
            news = await self._news(channel, position)
            telemetry.stream_resume_replayed.add(len(news.items))
            after = _cursor_at(channel.project, news.position)
            data = b"".join(item.data for item in news.items)
            if news.more:
                return CaughtUp(data, after, None)
            if channel.ring.waiting:
                found = await self._read_locked(channel)
                return CaughtUp(data, after, None if found else channel.ring.head)
            # Nobody stands at the head: the channel goes on from here instead.
            channel.restart(news.position)
            return CaughtUp(data, after, channel.ring.head)

    async def _lost(self, channel: Channel, text: str) -> CaughtUp:
        """The cursor could not hold its place: say what is missing, and go on from now."""
        now = await self._reading.run(self._reading.project_now, channel.project)
        after = _cursor_at(channel.project, now)
        telemetry.stream_resume_gap.add(1)
        return CaughtUp(sse.gap(after, text, after), after, None)

    async def _news(self, channel: Channel, position: Position) -> ProjectReplay:
        return await self._reading.run(
            self._reading.project_news, channel.project, position, output=channel.output
        )

    # Rounds --------------------------------------------------------------------------------------

    async def _round(self) -> float | None:
        now = _now()
        due = [c for c in self._channels.values() if c.ring.waiting and self._is_due(c, now)]
        for channel in due:
            channel.rung = False
            channel.read_at = now
        await asyncio.gather(*(self._read(channel) for channel in due))
        await self._look(now)
        return self._pause()

    def _is_due(self, channel: Channel, now: float) -> bool:
        return channel.rung or now >= channel.read_at + self._pause_of(channel)

    def _pause_of(self, channel: Channel) -> float:
        return self._pace.active_s if len(channel.watch) else self._pace.idle_s

    def _pause(self) -> float | None:
        channels = self._channels.values()
        if any(c.rung and c.ring.waiting for c in channels):
            return 0.0
        return min((self._pause_of(c) for c in channels), default=None)

    async def _read(self, channel: Channel) -> None:
        async with channel.lock:
            await self._read_locked(channel)

    async def _read_locked(self, channel: Channel) -> bool:
        """Read the channel's next page into its ring; whether there was, or may be, any event."""
        news = await self._news(channel, channel.position)
        channel.add(news, self._pace.ring_limit(len(self._channels)), _now())
        channel.rung |= news.more
        return bool(news.items) or news.more

    async def _look(self, now: float) -> None:
        """Ring for commands that were running and are silent, and whose runner has died."""
        silent = {id_: c for c in self._channels.values() for id_ in c.watch.silent(now)}
        if not silent:
            return
        commands = await self._reading.run(self._reading.commands, list(silent))
        for id_, channel in silent.items():
            command = commands.get(id_)
            if command is None:
                channel.watch.discard(id_)
            else:
                self._bells.ring(channel.watch.looked([command], _now()))


def _cursor_at(project: str, position: Position) -> str:
    return sse.encode_cursor(project, position.horizon, position.seen)


def _cursor_of(block: bytes) -> str:
    """The id of an encoded event."""
    return block[len(_ID) : block.index(b"\n")].decode("ascii")


def _now() -> float:
    return asyncio.get_running_loop().time()
