"""Following single commands: a channel per followed command, one query a round for all of them.

A channel's ring is filled only while somebody waits at its head. Who is still replaying, or stuck
in a send, costs no reading; a wake-up that arrives meanwhile is remembered in `rung`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import groupby
from typing import Final
from uuid import UUID

from common.domain.command import ACTIVE, Command
from common.domain.errors import InvalidRequest, NotFound
from common.domain.events import END
from common.domain.identifiers import COMMAND, show
from common.domain.keys import Caller
from common.services.tailing.activity import Bells, Watch
from common.services.tailing.pace import Pace
from common.services.tailing.pump import Pump
from common.services.tailing.reading import NEWS_BYTES, Encoded, Reading, Replay
from common.services.tailing.ring import Ring
from common.services.tailing.subscription import Subscription

# As many events of one command are a reason to look again, however small they are.
_MANY_EVENTS: Final = 256


class Ended(Exception):
    """The command is over and its last event was already delivered: there is nothing to stream."""


class Channel:
    """One followed command. `ended`: the ring's head is its last event.

    `rung`: there may be news; `read_at`: when they were last looked for.
    """

    __slots__ = ("command_id", "ended", "read_at", "ring", "rung", "users", "waiters")

    def __init__(self, command_id: UUID, head: int, *, ended: bool = False) -> None:
        self.command_id = command_id
        self.ring = Ring(head)
        self.ended = ended
        self.rung = False
        self.read_at = float("-inf")
        self.users = 0
        self.waiters: set[asyncio.Future[Command]] = set()

    @property
    def reading(self) -> bool:
        """Whether somebody waits for events."""
        return bool(self.ring.waiting) and not self.ended

    @property
    def wanted(self) -> bool:
        """Whether a look at the database would serve anybody."""
        return self.reading or bool(self.waiters)

    def add(self, encoded: Sequence[Encoded], limit: int) -> None:
        """Take the news in; those that a replay has overtaken are known already."""
        fresh = [item for item in encoded if item.event.seq > self.ring.head]
        if not fresh:
            return
        if fresh[0].event.seq > self.ring.head + 1:
            self.ring.jump(
                fresh[0].event.seq - 1
            )  # some have expired: who waits replays and is told
        self.ended = fresh[-1].event.type == END
        self.ring.extend((item.data for item in fresh), limit)


class CommandSubscription(Subscription):
    """A position in one command's events: the seq of the last one taken."""

    __slots__ = ("_channel", "_tail", "position")

    def __init__(self, tail: CommandTail, channel: Channel, position: int) -> None:
        super().__init__(channel.ring)
        self._tail = tail
        self._channel = channel
        self.position = position

    def take(self) -> bytes | None:
        batch = self._ring.take(self.position)
        if batch is None:
            return None
        self.position = batch.upto
        return batch.data

    @property
    def behind(self) -> bool:
        return self._ring.lost(self.position)

    @property
    def done(self) -> bool:
        return self._channel.ended and self.position >= self._ring.head

    async def fetch(self) -> bytes:
        replay = await self._tail.page(self._channel.command_id, self.position)
        self.position = replay.upto
        if replay.ended:
            self._tail.over(self._channel, replay.upto)
        return replay.data

    def _before_wait(self) -> None:
        self._tail.waits(self._channel, self.position)

    def _leave(self) -> None:
        self._tail.leave(self._channel)


class CommandTail:
    """All followed commands of this process."""

    def __init__(self, reading: Reading, bells: Bells, pace: Pace) -> None:
        self._reading = reading
        self._bells = bells
        self._pace = pace
        self._channels: dict[UUID, Channel] = {}
        self._watch = Watch(pace)
        self._pump = Pump("commands", self._round)

    async def close(self) -> None:
        await self._pump.close()

    def heard(self, command_id: UUID) -> None:
        """There may be news of one command."""
        channel = self._channels.get(command_id)
        if channel is not None:
            channel.rung = True
            if channel.wanted:
                self._pump.ring()

    def heard_of_all(self) -> None:
        """There may be news of any: wake-ups were lost."""
        for command_id in self._channels:
            self.heard(command_id)

    # Following -----------------------------------------------------------------------------------

    async def follow(self, command_id: UUID, caller: Caller, after: int) -> CommandSubscription:
        """Events after a seq.

        Raises NotFound (also for what the caller may not see), InvalidRequest (`after` lies beyond
        the last event) and Ended.
        """
        opening = await self._reading.run(self._reading.opening, command_id)
        command = opening.command
        if command is None or not caller.sees(command.project):
            raise NotFound(f"there is no {show(COMMAND, command_id)!r}")
        if after > opening.last:
            raise InvalidRequest(f"the last event of this command is {opening.last}")
        if command.ended and after == opening.last:
            raise Ended
        return CommandSubscription(self, self._enter(command, opening.last), after)

    def _enter(self, command: Command, last: int) -> Channel:
        channel = self._channels.get(command.id)
        if channel is None:
            channel = Channel(command.id, last, ended=command.ended)
            if command.ended:
                return channel  # nothing new can come: a replay needs no reader behind it
            self._channels[command.id] = channel
        if command.state in ACTIVE and not channel.ended:
            self._watch.add(command.id, _now())
        channel.rung |= last > channel.ring.head
        channel.users += 1
        return channel

    def leave(self, channel: Channel) -> None:
        channel.users -= 1
        if channel.users <= 0 and self._channels.get(channel.command_id) is channel:
            del self._channels[channel.command_id]
            self._watch.discard(channel.command_id)

    def waits(self, channel: Channel, position: int) -> None:
        """A subscriber starts to wait at `position`; a replay may have taken it beyond the head."""
        if position > channel.ring.head:
            if len(channel.ring.waiting) == 1:
                channel.ring.jump(position)
            else:
                channel.rung = True  # the others miss what it has seen
        if channel.rung:
            self._pump.ring()
        else:
            self._pump.plan(channel.read_at + self._pause_of(channel))

    def over(self, channel: Channel, last: int) -> None:
        """A replay met the end before the ring did: who still waits will replay too."""
        if last > channel.ring.head:
            channel.ring.jump(last)
        channel.ended = True
        channel.ring.wake_all()
        self._watch.discard(channel.command_id)
        self.heard(channel.command_id)  # for those who wait for the end only

    async def page(self, command_id: UUID, after: int) -> Replay:
        return await self._reading.run(self._reading.page, command_id, after)

    async def end_of(self, command_id: UUID) -> Command:
        """The command, once it has ended. Only its row is read, however much it prints."""
        channel = self._channels.get(command_id)
        if channel is None:
            channel = self._channels[command_id] = Channel(command_id, 0)
        future: asyncio.Future[Command] = asyncio.get_running_loop().create_future()
        channel.users += 1
        channel.waiters.add(future)
        self.heard(command_id)
        try:
            return await future
        finally:
            channel.waiters.discard(future)
            self.leave(channel)

    # Rounds --------------------------------------------------------------------------------------

    async def _round(self) -> float | None:
        now = _now()
        due = [c for c in self._channels.values() if c.wanted and self._is_due(c, now)]
        looking = {c.command_id for c in due if c.waiters or (not c.rung and self._is_idle(c))}
        looking.update(self._watch.silent(now))
        for channel in due:
            channel.rung = False
            channel.read_at = now
        await self._read([c for c in due if c.reading])
        await self._look(list(looking))
        return self._pause()

    def _is_idle(self, channel: Channel) -> bool:
        return channel.command_id not in self._watch

    def _pause_of(self, channel: Channel) -> float:
        return self._pace.idle_s if self._is_idle(channel) else self._pace.active_s

    def _is_due(self, channel: Channel, now: float) -> bool:
        return channel.rung or now >= channel.read_at + self._pause_of(channel)

    def _pause(self) -> float | None:
        if any(c.rung and c.wanted for c in self._channels.values()):
            return 0.0
        if len(self._watch):
            return self._pace.active_s
        return self._pace.idle_s if self._channels else None

    async def _read(self, channels: list[Channel]) -> None:
        """The news of these channels, in one query that gives each its share of the bytes."""
        if not channels:
            return
        heads = [(c.command_id, c.ring.head) for c in channels]
        news = await self._reading.run(self._reading.news, heads)
        self._take_in(news, NEWS_BYTES // len(heads))

    def _take_in(self, news: list[Encoded], share: int) -> None:
        limit = self._pace.ring_limit(len(self._channels))
        now = _now()
        for command_id, items in groupby(news, key=lambda item: item.event.command_id):
            channel = self._channels.get(command_id)
            if channel is None:
                continue
            found = list(items)
            for item in found:
                self._watch.heard(item.event, now)
            channel.add(found, limit)
            channel.rung |= _fills(found, share)  # a share used up: there may be more behind it

    async def _look(self, ids: list[UUID]) -> None:
        """Read rows: to answer who waits for an end, and to find commands whose runner died."""
        commands = await self._reading.run(self._reading.commands, ids) if ids else {}
        for command in commands.values():
            channel = self._channels.get(command.id)
            if channel is None:
                self._watch.discard(command.id)
            elif command.ended:
                _answer(channel, command)
        followed = [c for c in commands.values() if c.id in self._channels]
        self._bells.ring(self._watch.looked(followed, _now()))


def _answer(channel: Channel, command: Command) -> None:
    channel.rung = True  # its last events may not have been read yet
    for future in channel.waiters:
        if not future.done():
            future.set_result(command)


def _fills(found: list[Encoded], share: int) -> bool:
    size = sum(len(item.event.data) for item in found)
    return size >= share or len(found) >= _MANY_EVENTS


def _now() -> float:
    return asyncio.get_running_loop().time()
