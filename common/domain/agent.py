"""claude's stdout: JSON lines, kept byte for byte and shown one event a line.

A line becomes an `agent` event that holds the line's own bytes and their offset in stdout, so the
stream stays byte-exact and nothing is stored twice. A line too long for one event is stored as
plain output pieces, followed by an `agent` event that says what it was.
"""

from __future__ import annotations

import json
from typing import Any, Final

from common.domain.events import AGENT, MAX_EVENT_BYTES, OUTPUT, NewEvent, cut

_HEAD: Final = 4096  # enough of a long line to read its type from


class AgentLines:
    """Cuts stdout into events; remembers the result line. Offsets continue from `offset`."""

    def __init__(self, offset: int) -> None:
        self._offset = offset
        self._held = b""
        self._long = 0  # bytes of the current overlong line already given out
        self._head = b""
        self.result: dict[str, Any] | None = None

    @property
    def held(self) -> int:
        """Bytes waiting for their line's end."""
        return len(self._held)

    def feed(self, data: bytes) -> list[NewEvent]:
        """Events for everything that is complete; the rest waits for its line's end."""
        events: list[NewEvent] = []
        *lines, self._held = (self._held + data).split(b"\n")
        for line in lines:
            events += self._line(line + b"\n")
        if len(self._held) >= MAX_EVENT_BYTES:
            events += self._overlong(self._held)
            self._held = b""
        return events

    def end(self) -> list[NewEvent]:
        """What is left when the stream has ended: a line without its newline, or its start."""
        rest, self._held = self._held, b""
        if not rest:
            return []
        return self._line(rest)

    def _line(self, line: bytes) -> list[NewEvent]:
        if self._long or len(line) > MAX_EVENT_BYTES:
            events = self._overlong(line)
            said = {"type": _type_in(self._head), "size": self._long}
            events.append(NewEvent.of(AGENT, {"raw": said, "truncated": True}))
            self._long, self._head = 0, b""
            return events
        value = _object(line)
        if value is None:
            return [self._piece(OUTPUT, line)]
        if value.get("type") == "result":
            self.result = value
        return [self._piece(AGENT, line)]

    def _overlong(self, data: bytes) -> list[NewEvent]:
        self._head = (self._head + data[:_HEAD])[:_HEAD]
        self._long += len(data)
        return [self._piece(OUTPUT, piece) for piece in cut(data)]

    def _piece(self, type_: str, data: bytes) -> NewEvent:
        event = NewEvent(type_, data, "stdout", self._offset)
        self._offset += len(data)
        return event


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _type_in(head: bytes) -> str | None:
    """The `type` of a line that is only known by its beginning."""
    marker = b'"type":"'
    start = head.find(marker)
    end = head.find(b'"', start + len(marker))
    if start < 0 or end < 0:
        return None
    return head[start + len(marker) : end].decode("utf-8", "replace")
