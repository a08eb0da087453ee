"""Server-sent events from bytes, without any input or output of its own (sans-IO).

One parser serves every transport and is tested once, cut at every byte. Source of the rules:
WHATWG HTML, section 9.2.6 "Interpreting an event stream". Two things go beyond it: comments are
handed out, because a heartbeat is the sign that a quiet connection lives; and lines are bounded,
because the bytes come from a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_EVENT_BYTES: Final = 32 * 1024 * 1024
"""Longest line, and longest sum of an event's data lines. Output events are at most 64 KiB on the
wire; the largest are raw claude lines with a screenshot or two in base64, a few MiB."""

_BOM: Final = b"\xef\xbb\xbf"


class EventTooLong(ValueError):
    """An event is larger than `MAX_EVENT_BYTES`: no rdev server sends that."""


@dataclass(frozen=True, slots=True)
class Event:
    """One dispatched event. `id` is the last event id in force, so it may be an earlier one's."""

    type: str
    data: str
    id: str


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment line; by itself it means no more than "I live"."""

    text: str


@dataclass(frozen=True, slots=True)
class Retry:
    """The server's wish how long to wait before reconnecting."""

    milliseconds: int


class Parser:
    """Feed it bytes as they come; get back what they complete.

    An event that the end of the stream cuts off is never dispatched: drop the parser with the
    connection and make a new one for the next.
    """

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._line = bytearray()
        self._at_start = True
        self._skip_newline = False
        self._type = ""
        self._data: list[str] = []
        self._data_bytes = 0
        self._id = ""

    def feed(self, chunk: bytes) -> list[Event | Comment | Retry]:
        """What `chunk` completes, in order.

        Raises EventTooLong, after which the parser is of no more use.
        """
        found: list[Event | Comment | Retry] = []
        for piece in self._pieces(chunk):
            if piece[-1:] in (b"\n", b"\r"):
                self._line += piece.rstrip(b"\r\n")
                item = self._take_line()
                if item is not None:
                    found.append(item)
            else:
                self._line += piece
            if len(self._line) > self._max:
                raise EventTooLong(f"a line is longer than {self._max} bytes")
        return found

    def _pieces(self, chunk: bytes) -> list[bytes]:
        """`chunk` cut after each CR LF, LF or CR; a CR LF torn between two chunks is one end."""
        if self._skip_newline and chunk:
            self._skip_newline = False
            chunk = chunk.removeprefix(b"\n")
        if chunk.endswith(b"\r"):
            self._skip_newline = True
        # bytes.splitlines cuts at exactly these three; str.splitlines would cut at eight more.
        return chunk.splitlines(keepends=True)

    def _take_line(self) -> Event | Comment | Retry | None:
        line = bytes(self._line)
        self._line.clear()
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._dispatch()
        # Decoding whole lines is safe: no UTF-8 sequence contains a CR or LF.
        name, _, value = line.decode("utf-8", errors="replace").partition(":")
        value = value.removeprefix(" ")
        if not name:
            return Comment(value)
        return self._field(name, value, len(line))

    def _field(self, name: str, value: str, size: int) -> Retry | None:
        if name == "data":
            self._data_bytes += size
            if self._data_bytes > self._max:
                raise EventTooLong(f"an event is longer than {self._max} bytes")
            self._data.append(value)
        elif name == "event":
            self._type = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit() and len(value) <= 9:
            # Nine digits are eleven days; int() refuses absurd lengths, and so do we.
            return Retry(int(value))
        return None

    def _dispatch(self) -> Event | None:
        event = None
        if self._data:
            event = Event(self._type or "message", "\n".join(self._data), self._id)
        self._type = ""
        self._data = []
        self._data_bytes = 0
        return event
