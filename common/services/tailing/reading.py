"""Reading and encoding, in threads of our own: the event loop only ever joins finished bytes.

Everything here blocks on the database and is called through `Reading.run`. An `end` event holds
nothing, so the command's final row is read with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TypeVar
from uuid import UUID

from common.domain import sse
from common.domain.command import Command
from common.domain.events import END, Event
from common.ports.events import EventReader, Page, Position
from common.services import telemetry

P = ParamSpec("P")
T = TypeVar("T")

PAGE_BYTES: Final = 256 * 1024
NEWS_BYTES: Final = 1024 * 1024
PROJECT_EVENTS: Final = 64  # of up to 64 KiB each


@dataclass(frozen=True, slots=True)
class Encoded:
    """An event ready to send. `event` says what it was; its data is not kept in the ring."""

    event: Event
    data: bytes


@dataclass(frozen=True, slots=True)
class Replay:
    """One page: bytes to send, the position after them, and whether they end with `end`."""

    data: bytes
    upto: int
    ended: bool


@dataclass(frozen=True, slots=True)
class Opening:
    """What is known of a command when somebody starts to follow it."""

    command: Command | None
    last: int


@dataclass(frozen=True, slots=True)
class ProjectReplay:
    """News of a project: encoded events, each with its cursor, and the position after all."""

    items: list[Encoded]
    position: Position
    more: bool


class Reading:
    def __init__(
        self, reader: EventReader, render: Callable[[Command], dict[str, Any]], threads: int
    ) -> None:
        self._reader = reader
        self._render = render
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="tailing")

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`work` in one of our threads."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: work(*args, **kwargs))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def opening(self, command_id: UUID) -> Opening:
        """The command first: once it has ended, the number of its last event no longer moves."""
        command = self._reader.commands([command_id]).get(command_id)
        if command is None:
            return Opening(None, 0)
        return Opening(command, self._reader.page(command_id, _BEYOND, 1).last)

    def commands(self, ids: Sequence[UUID]) -> dict[UUID, Command]:
        return self._reader.commands(ids) if ids else {}

    def news(self, heads: Sequence[tuple[UUID, int]]) -> list[Encoded]:
        events = self._reader.news(heads, NEWS_BYTES)
        finals = self._finals(events)
        return [Encoded(e, sse.encode(e, end=finals.get(e.command_id))) for e in events]

    def page(self, command_id: UUID, after: int) -> Replay:
        """What comes after a position; what has expired becomes a `gap`, then what is there."""
        with telemetry.span("rdev.stream.replay", rdev__command__id=str(command_id)):
            return self._page(command_id, after)

    def _page(self, command_id: UUID, after: int) -> Replay:
        page = self._reader.page(command_id, after, PAGE_BYTES)
        missing = _missing(page, after)
        telemetry.stream_resume_replayed.add(len(page.events))
        if missing is not None:
            telemetry.stream_resume_gap.add(1)
        if not page.events and missing is not None:
            return self._expired(command_id, after, missing)
        parts = [] if missing is None else [sse.gap(str(missing), after + 1, missing)]
        finals = self._finals(page.events)
        parts += [sse.encode(e, end=finals.get(command_id)) for e in page.events]
        upto = page.events[-1].seq if page.events else after
        return Replay(b"".join(parts), upto, bool(finals))

    def _expired(self, command_id: UUID, after: int, upto: int) -> Replay:
        """No rows are left: a gap, and for a command that is over its `end`, from the final row."""
        command = self._reader.commands([command_id]).get(command_id)
        if command is None or not command.ended:
            return Replay(sse.gap(str(upto), after + 1, upto), upto, ended=False)
        parts = [sse.gap(str(upto - 1), after + 1, upto - 1)] if upto - 1 > after else []
        at = command.finished_at or command.created_at
        end = Event(command_id, upto, at, END, b"")
        parts.append(sse.encode(end, end=self._render(command)))
        return Replay(b"".join(parts), upto, ended=True)

    def project_now(self, project: str) -> Position:
        return self._reader.project_now(project)

    def project_news(self, project: str, position: Position, *, output: bool) -> ProjectReplay:
        page = self._reader.project_news(project, position, output=output, limit=PROJECT_EVENTS)
        finals = self._finals(page.events)
        items: list[Encoded] = []
        seen = dict(position.seen)
        for number, event in enumerate(page.events, start=1):
            seen[event.command_id] = event.seq
            # Inside a page the old horizon and what was delivered since; then the new position.
            at_end = number == len(page.events)
            place = page.position if at_end else Position(position.horizon, seen)
            cursor = sse.encode_cursor(project, place.horizon, place.seen)
            end = finals.get(event.command_id)
            items.append(Encoded(event, sse.encode_in_project(event, cursor, end=end)))
        return ProjectReplay(items, page.position, page.more)

    def _finals(self, events: Sequence[Event]) -> dict[UUID, dict[str, Any]]:
        ended = [event.command_id for event in events if event.type == END]
        return {id_: self._render(command) for id_, command in self.commands(ended).items()}


_BEYOND: Final = 2**62  # after every event there can be: asks for the number of the last only


def _missing(page: Page, after: int) -> int | None:
    """The last event after `after` that has expired, if any has."""
    if page.last <= after:
        return None
    if page.first is None:
        return page.last
    return page.first - 1 if page.first > after + 1 else None
