"""Where the stored output and the live stream meet, and where an excerpt begins or stops.

The stream always begins with a command's first event. These are sinks around a sink that leave out
what is not wanted; offsets say exactly which bytes were shown before, so a line is neither missing
nor repeated at the seam.
"""

from __future__ import annotations

import datetime as dt

from rdev import events
from rdev.backlog import End
from rdev.events import CommandEvent
from rdev.follow import Sink
from rdev.resources import Command
from rdev.text import parse_time


class CaughtUp(Exception):
    """The stream has reached the place at which the backlog was measured."""


class Position:
    """Where in the output the events are, against where it ended when it was measured.

    Claude's stdout comes as one `agent` event a line, which has no offset; such lines are counted,
    together with those that came as output because they were no JSON or too long for one event.
    """

    def __init__(self, ends: dict[str, End]) -> None:
        self._ends = ends
        self._bytes = dict.fromkeys(ends, 0)
        self._lines = 0
        self._counts_lines = False

    def advance(self, event: CommandEvent) -> None:
        """Take an event into account."""
        if event.type == "agent":
            self._counts_lines = True
            self._lines += events.agent_line(event) is not None
        elif event.type == "output":
            stream, data = events.output_of(event)
            self._bytes[stream] = events.offset_of(event) + len(data)
            if stream == "stdout":
                self._lines += data.count(b"\n")

    @property
    def is_reached(self) -> bool:
        """Whether every stream is at least where it was measured."""
        return all(self._has(stream, end) for stream, end in self._ends.items())

    def _has(self, stream: str, end: End) -> bool:
        if stream == "stdout" and self.is_past_lines:
            return True
        return self._bytes[stream] >= end.bytes

    @property
    def is_past_lines(self) -> bool:
        """Whether claude's lines are at least where they were measured."""
        return self._counts_lines and self._lines >= self._ends.get("stdout", End()).lines


class UpTo:
    """A sink that stops the following with CaughtUp at the measured ends."""

    def __init__(self, inner: Sink, ends: dict[str, End]) -> None:
        self._inner = inner
        self._position = Position(ends)

    def event(self, event: CommandEvent) -> None:
        """Pass the event on; raises CaughtUp behind the last one that counts."""
        self._inner.event(event)
        self._position.advance(event)
        if self._position.is_reached:
            raise CaughtUp

    def done(self, command: Command) -> None:
        """Pass the end on."""
        self._inner.done(command)


class After:
    """A sink that leaves out the output before the measured ends: it has been shown."""

    def __init__(self, inner: Sink, ends: dict[str, End]) -> None:
        self._inner = inner
        self._ends = ends
        self._lines = 0

    def event(self, event: CommandEvent) -> None:
        """Pass on what is new of the event."""
        if event.type == "agent":
            self._agent(event)
        elif event.type == "output":
            self._output(event)
        else:
            self._inner.event(event)

    def _agent(self, event: CommandEvent) -> None:
        if self._lines >= self._ends.get("stdout", End()).lines:
            self._inner.event(event)
        self._lines += events.agent_line(event) is not None

    def _output(self, event: CommandEvent) -> None:
        stream, data = events.output_of(event)
        start = events.offset_of(event)
        if stream == "stdout":
            self._lines += data.count(b"\n")
        shown = self._ends.get(stream, End()).bytes - start
        if shown <= 0:
            self._inner.event(event)
        elif shown < len(data):
            rest = events.output_event(event, stream, start + shown, data[shown:])
            self._inner.event(rest)

    def done(self, command: Command) -> None:
        """Pass the end on."""
        self._inner.done(command)


class Since:
    """A sink that leaves out what happened before an instant."""

    def __init__(self, inner: Sink, instant: dt.datetime) -> None:
        self._inner = inner
        self._instant = instant

    def event(self, event: CommandEvent) -> None:
        """Pass the event on if it is young enough; an event without a time is."""
        at = parse_time(event.data.get("at"))
        if at is None or at >= self._instant:
            self._inner.event(event)

    def done(self, command: Command) -> None:
        """Pass the end on."""
        self._inner.done(command)
