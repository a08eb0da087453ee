"""Which commands are running, as far as followers can tell, and ringing for those nobody runs.

An active command is polled for more often than a waiting one. When it has been silent for a while
its lease is looked at: a dead one means its runner died, and whoever reads it rings the next.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from common.domain.command import ACTIVE, Command, State
from common.domain.events import AGENT, APPROVAL, END, OUTPUT, STATE, Event
from common.ports.outbox import RunnerBell
from common.services.tailing.pace import Pace


def activity_of(event: Event) -> bool | None:
    """Whether the event says that its command is active now; None: it says nothing."""
    if event.type in (OUTPUT, AGENT, APPROVAL):
        return True
    if event.type == END:
        return False
    if event.type != STATE:
        return None
    try:
        return State(json.loads(event.data)["state"]) in ACTIVE
    except (ValueError, KeyError, TypeError):
        return None  # a state this version does not know: the next look at the row tells


@dataclass(slots=True)
class _Watched:
    """Times are the loop's."""

    looked_at: float
    rang_at: float = float("-inf")


class Watch:
    """The active commands of a group of channels."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._commands: dict[UUID, _Watched] = {}

    def __contains__(self, command_id: UUID) -> bool:
        return command_id in self._commands

    def __len__(self) -> int:
        return len(self._commands)

    def add(self, command_id: UUID, now: float) -> None:
        """It is active and was heard of just now."""
        watched = self._commands.get(command_id)
        if watched is None:
            self._commands[command_id] = _Watched(now)
        else:
            watched.looked_at = now

    def discard(self, command_id: UUID) -> None:
        self._commands.pop(command_id, None)

    def heard(self, event: Event, now: float) -> None:
        active = activity_of(event)
        if active:
            self.add(event.command_id, now)
        elif active is False:
            self.discard(event.command_id)

    def silent(self, now: float) -> list[UUID]:
        """Those whose row must be looked at again."""
        return [i for i, w in self._commands.items() if now >= w.looked_at + self._pace.check_s]

    def looked(self, commands: Iterable[Command], now: float) -> list[str]:
        """Take in what the database says; answers the projects whose runner must be rung."""
        projects = []
        for command in commands:
            if command.state not in ACTIVE:
                self.discard(command.id)
                continue
            self.add(command.id, now)
            if command.lease_dead and self._may_ring(self._commands[command.id], now):
                projects.append(command.project)
        return projects

    def _may_ring(self, watched: _Watched, now: float) -> bool:
        if now < watched.rang_at + self._pace.ring_s:
            return False
        watched.rang_at = now
        return True


class Bells:
    """Rings runners in the background: a bell may take its time, followers do not wait."""

    def __init__(self, bell: RunnerBell) -> None:
        self._bell = bell
        self._ringing: set[asyncio.Task[None]] = set()

    def ring(self, projects: Iterable[str]) -> None:
        for project in sorted(set(projects)):
            task = asyncio.create_task(asyncio.to_thread(self._bell.ring, project))
            self._ringing.add(task)
            task.add_done_callback(self._ringing.discard)

    async def close(self) -> None:
        """Wait for those under way; the bell itself bounds how long that is."""
        await asyncio.gather(*self._ringing, return_exceptions=True)
