"""The one tailer of a process: who follows a command or a project asks it, and it asks Postgres.

A wake-up (`NOTIFY`, heard in a thread of its own) makes it look at once; polling stands behind,
so a lost wake-up costs a moment and no event. With nobody following it does nothing at all: even
listening begins with the first follower.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

from common.domain import sse
from common.domain.command import Command
from common.domain.keys import Caller
from common.domain.resources import command_resource
from common.ports.events import EventReader
from common.ports.outbox import RunnerBell
from common.ports.signals import OUTPUT, Listening, Signals
from common.services import telemetry
from common.services.tailing.activity import Bells
from common.services.tailing.commands import CommandTail, Ended
from common.services.tailing.pace import Pace
from common.services.tailing.projects import ProjectTail
from common.services.tailing.reading import Reading
from common.services.tailing.subscription import Subscription

__all__ = ["Ended", "Pace", "Tailer"]

_log = telemetry.logger("rdev.tailing")


class Tailer:
    """Everything but `heard` belongs to the event loop's thread.

    `render` makes the final resource of a command, as its `end` event shows it.
    """

    def __init__(
        self,
        reader: EventReader,
        signals: Signals,
        bell: RunnerBell,
        render: Callable[[Command], dict[str, Any]] = command_resource,
        pace: Pace | None = None,
    ) -> None:
        pace = pace or Pace()
        self._reading = Reading(reader, render, pace.threads)
        self._bells = Bells(bell)
        self._commands = CommandTail(self._reading, self._bells, pace)
        self._projects = ProjectTail(self._reading, self._bells, pace)
        self._signals = signals
        self._listening: Listening | None = None
        self._starting: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def follow(
        self, command_id: UUID, caller: Caller, last_event_id: str | None = None
    ) -> Subscription:
        """Events of a command after the one named, from the first without a name.

        Raises NotFound (also for what the caller may not see), InvalidRequest (no integer, or
        beyond the last event), Ended (answer 204: the `end` was delivered) and Unavailable.
        """
        after = sse.seq_of(last_event_id)
        self._listen()
        return await self._commands.follow(command_id, caller, after)

    async def follow_project(
        self, project: str, last_event_id: str | None = None, *, output: bool = False
    ) -> Subscription:
        """Events of a project's commands after a cursor, or from now on; with or without output.

        Whether the caller may see the project was checked before. Raises InvalidRequest for what
        is no cursor of this project, and Unavailable.
        """
        self._listen()
        return await self._projects.follow(project, last_event_id, output=output)

    async def wait_for_end(self, command_id: UUID, seconds: float) -> Command | None:
        """The command once it has ended; None when that takes longer than this.

        A waiter holds neither a thread nor a connection.
        """
        self._listen()
        try:
            async with asyncio.timeout(seconds):
                return await self._commands.end_of(command_id)
        except TimeoutError:
            return None

    async def close(self) -> None:
        """Stop listening and reading; followers get nothing more."""
        if self._starting is not None:
            await self._starting
        if self._listening is not None:
            await asyncio.to_thread(self._listening.close)
            self._listening = None
        await self._commands.close()
        await self._projects.close()
        await self._bells.close()
        self._reading.close()

    def _listen(self) -> None:
        if self._starting is None:
            self._loop = asyncio.get_running_loop()
            self._starting = self._loop.create_task(self._start_listening(), name="listening")

    async def _start_listening(self) -> None:
        """Best effort by nature: the poll finds what nobody rings for."""
        try:
            self._listening = await asyncio.to_thread(self._signals.listen, (OUTPUT,), self.heard)
        except Exception:
            _log.exception("cannot listen for wake-ups; polling goes on without")

    def heard(self, _channel: str, payload: str) -> None:
        """A wake-up, from any thread: "<command hex> <project>", or "" after a reconnection."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._heard, payload)

    def _heard(self, payload: str) -> None:
        command, _, project = payload.partition(" ")
        if not project:
            self._commands.heard_of_all()
            self._projects.heard_of_all()
            return
        try:
            self._commands.heard(UUID(hex=command))
        except ValueError:
            _log.warning("a wake-up names no command", payload=payload[:100])
        self._projects.heard(project)
