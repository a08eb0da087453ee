"""claude's stdout: JSON lines, kept byte for byte and shown one event a line.

A line becomes an `agent` event that holds the line's own bytes and their offset in stdout, so the
stream stays byte-exact and nothing is stored twice. A line that does not fit one event on the wire
is stored as plain `output` pieces, followed by an `agent` event that says what it was. Up to 1 MiB
such a line is also parsed; a longer one never is, and only its small members are read on the way.

Who goes on in the middle of a line reads it again from its beginning: what is stored of it is not
given out a second time, and what it says is not lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from common.domain.agent_view import view
from common.domain.events import (
    AGENT,
    MAX_EVENT_BYTES,
    OUTPUT,
    ROOM,
    NewEvent,
    complete_utf8,
    cut,
    dumps,
)
from common.domain.members import MAX_KEPT, MAX_MEMBER, Members, loads

Line = dict[str, Any]
REQUEST: Final = "control_request"
MAX_PARSED: Final = 1024 * 1024
_LONGEST_RESULT: Final = 256 * 1024  # the text of a longer one stays in the stream
_LONGEST_WORD: Final = 100
_ESCAPED: Final = 6  # bytes of JSON that one byte of a line can become: \u0000
# After these claude works on; what else it may say behind its result changes nothing.
_WORKING: Final = frozenset({"assistant", "user", "stream_event"})


@dataclass(frozen=True)
class AgentState:
    """What is stored of claude's lines: where the last one ends, and what was said so far."""

    line_start: int = 0
    init: Line | None = None
    result: Line | None = None
    at_rest: bool = False
    reread: int | None = None  # where the result begins, when its row holds only a part of it

    @classmethod
    def of(cls, line_start: int, rows: Iterable[tuple[str | None, bytes]]) -> AgentState:
        """From (stream, data) of stored agent events, in their order."""
        lines, reread = AgentLines(), None
        for stream, data in rows:
            line = line_in(stream, data) or {}
            lines.heed(line)
            if line.get("type") == "result":
                reread = _start_of_long(stream, data)
        return cls(line_start, lines.init, lines.result, lines.at_rest, reread)


class AgentLines:
    """Cuts stdout into events; remembers what claude said at its beginning and its end.

    It is fed from `start` on; what is stored is not given out again.
    """

    def __init__(self, stored: int = 0, known: AgentState | None = None) -> None:
        known = known or AgentState(stored)
        again = known.line_start if known.reread is None else known.reread
        self.start = self._offset = min(again, known.line_start)
        self._stored = max(stored, known.line_start)
        self._told_until = known.line_start
        self._held = b""
        self._long: _LongLine | None = None
        self.init = known.init
        self.result = known.result
        # Its last word was a result: there is nothing left to do but to exit.
        self.at_rest = known.at_rest
        self.requests: deque[Line] = deque()  # what claude asks, one for each event that is one

    @property
    def held(self) -> int:
        """Bytes waiting for their line's end."""
        return len(self._held)

    def feed(self, data: bytes) -> list[NewEvent]:
        """Events for everything that is complete; the rest waits for its line's end."""
        events: list[NewEvent] = []
        *lines, self._held = (self._held + data).split(b"\n")
        for line in lines:
            events += self._ended(line + b"\n")
        if len(self._held) >= MAX_EVENT_BYTES:
            whole = complete_utf8(self._held)
            events += self._part(self._held[:whole])
            self._held = self._held[whole:]
        return events

    def end(self) -> list[NewEvent]:
        """What is left when the stream has ended: a line without its newline, or its rest."""
        rest, self._held = self._held, b""
        return self._ended(rest) if rest or self._long else []

    def _ended(self, line: bytes) -> list[NewEvent]:
        # What is stored of this line was stored as a part of a long one.
        torn = self._long is not None or self._offset < self._stored
        if not torn and len(line) <= MAX_EVENT_BYTES:
            value = _object(line)
            if value is None:
                return self._pieces(line)
            if _fits(line, value):
                self.heed(value)
                self._ask(value)
                event = NewEvent(AGENT, line, "stdout", self._offset)
                self._offset += len(line)
                return [event]
        return [*self._part(line), *self._told()]

    def _part(self, data: bytes) -> list[NewEvent]:
        if self._long is None:
            self._long = _LongLine(self._offset)
        self._long.feed(data)
        return self._pieces(data)

    def _pieces(self, data: bytes) -> list[NewEvent]:
        """`data` as output, without what is stored."""
        known = min(max(self._stored - self._offset, 0), len(data))
        self._offset += known
        events = []
        for piece in cut(data[known:]):
            events.append(NewEvent(OUTPUT, piece, "stdout", self._offset))
            self._offset += len(piece)
        return events

    def _told(self) -> list[NewEvent]:
        """The event that says what the long line was that has just ended, unless it is stored."""
        assert self._long is not None
        line, self._long = self._long, None
        said, whole = line.said()
        self.heed(whole)
        if self._offset <= self._told_until:
            return []
        self._ask(whole)
        fields = {
            "type": _word(said.get("type")),
            "uuid": _word(said.get("uuid")),
            "size": line.size,
        }
        place = {"stream": "stdout", "offset": line.start}
        said_of_it = {"truncated": True, "raw": said, "view": view(whole)}
        return [NewEvent.of(AGENT, fields | place | said_of_it)]

    def _ask(self, line: Line) -> None:
        if line.get("type") == REQUEST:
            self.requests.append(line)

    def heed(self, line: Line) -> None:
        """Remember what a line says about the beginning or the end."""
        kind = line.get("type")
        if kind == "result":
            self.result, self.at_rest = line, True
        elif kind == "system" and line.get("subtype") == "init":
            self.init, self.at_rest = line, False
        elif kind in _WORKING:
            self.at_rest = False


class _LongLine:
    """A line that is no single event: its bytes while they are few, and its small members."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.size = 0
        self._bytes: bytearray | None = bytearray()
        self._members = Members()

    def feed(self, data: bytes) -> None:
        self.size += len(data)
        if self._bytes is not None:
            self._bytes += data
            if len(self._bytes) <= MAX_PARSED:
                return
            data, self._bytes = bytes(self._bytes), None
        self._members.feed(data)

    def said(self) -> tuple[Line, Line]:
        """Its small members, and as much of it as there is; both are empty when it is no object."""
        if self._bytes is None:
            kept = self._members.kept
            if kept.get("type") == "result" and not self._members.whole:
                kept = {}  # half a result decides nothing
            if "permission_denials" in self._members.too_large:  # there were some, and large ones
                kept["permission_denials"] = [{"tool_name": None, "tool_use_id": None}]
            return kept, kept
        value = _object(bytes(self._bytes))
        if value is None:  # perhaps for one odd number: the rest may be in order
            self._members.feed(bytes(self._bytes))
            value = self._members.kept if self._members.whole else {}
        small = _small(value)
        is_result = value.get("type") == "result"
        return small, small if is_result and self.size > _LONGEST_RESULT else value


def is_request(event: NewEvent) -> bool:
    """Whether an event's line asks something of us."""
    if event.type != AGENT or REQUEST.encode() not in event.data:
        return False
    return (line_in(event.stream, event.data) or {}).get("type") == REQUEST


def line_in(stream: str | None, data: bytes) -> Line | None:
    """The line that a stored agent event holds: itself, or what is kept of a long one."""
    value = _object(data) or {}
    line = value if stream is not None else value.get("raw")
    return line if isinstance(line, dict) else None


def _word(value: Any) -> str | None:
    return value[:_LONGEST_WORD] if isinstance(value, str) else None


def _start_of_long(stream: str | None, data: bytes) -> int | None:
    """Where a long line begins, by its stored event; None for a line that is there whole."""
    place = (_object(data) or {}).get("offset") if stream is None else None
    return place if isinstance(place, int) else None


def _fits(line: bytes, value: Line) -> bool:
    """Whether the line and its view are one event on the wire, where JSON escapes may swell it."""
    room = ROOM - len(dumps(view(value)))
    return len(line) * _ESCAPED <= room or len(dumps(value)) <= room


def _object(line: bytes) -> Line | None:
    try:
        value = loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _small(line: Line) -> Line:
    """What is short of a line, and of denials what was denied."""
    kept, room = {}, MAX_KEPT
    for name, value in line.items():
        shown = _denied(value) if name == "permission_denials" else value
        size = len(name) + len(dumps(shown))
        if size <= min(MAX_MEMBER, room):
            kept[name], room = shown, room - size
    return kept


def _denied(denials: Any) -> list[Line]:
    return [
        {"tool_name": denial.get("tool_name"), "tool_use_id": denial.get("tool_use_id")}
        for denial in (denials if isinstance(denials, list) else [])[:32]
        if isinstance(denial, dict)
    ]
