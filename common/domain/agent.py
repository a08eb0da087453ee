"""claude's stdout: JSON lines, kept byte for byte and shown one event a line.

A line becomes an `agent` event that holds the line's own bytes and their offset in stdout, so the
stream stays byte-exact and nothing is stored twice. A line too long for one event is stored as
plain output pieces, followed by an `agent` event that says what it was. The result decides how a
command ended, so a long one is read all the same, and its event keeps what decides.
"""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

from common.domain.events import AGENT, MAX_EVENT_BYTES, OUTPUT, NewEvent, cut, dumps

_HEAD: Final = 4096  # enough of a long line to read its type from
_LONGEST_RESULT: Final = 4 * 1024 * 1024  # of a longer one only the type is known
_LONGEST_TEXT: Final = 256 * 1024  # a longer result stays in the stream, out of the outcome
_DECIDES: Final = (
    "subtype",
    "is_error",
    "num_turns",
    "session_id",
    "total_cost_usd",
    "usage",
    "modelUsage",
)


class AgentLines:
    """Cuts stdout into events; remembers the result line. Offsets continue from `offset`."""

    def __init__(self, offset: int) -> None:
        self._offset = offset
        self._held = b""
        self._long = 0  # bytes of the current overlong line already given out
        self._head = b""  # its beginning, or all of it when it is a result
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
        """What is left when the stream has ended: a line without its newline, or its rest."""
        rest, self._held = self._held, b""
        return self._line(rest) if rest or self._long else []

    def _line(self, line: bytes) -> list[NewEvent]:
        if self._long or len(line) > MAX_EVENT_BYTES:
            return [*self._overlong(line), self._said()]
        value = _object(line)
        if value is None:
            return [self._piece(OUTPUT, line)]
        if value.get("type") == "result":
            self.result = value
        return [self._piece(AGENT, line)]

    def _overlong(self, data: bytes) -> list[NewEvent]:
        result = _type_in((self._head + data)[:_HEAD]) == "result"
        self._head = (self._head + data)[: _LONGEST_RESULT if result else _HEAD]
        self._long += len(data)
        return [self._piece(OUTPUT, piece) for piece in cut(data)]

    def _said(self) -> NewEvent:
        """The event that says what the overlong line was that has just ended."""
        said: dict[str, Any] = {"type": _type_in(self._head), "size": self._long}
        value = _object(self._head) if len(self._head) == self._long else None
        if value is not None and value.get("type") == "result":
            said |= _summary(value)
            self.result = value if self._long <= _LONGEST_TEXT else said
        self._long, self._head = 0, b""
        return NewEvent.of(AGENT, {"raw": said, "truncated": True})

    def _piece(self, type_: str, data: bytes) -> NewEvent:
        event = NewEvent(type_, data, "stdout", self._offset)
        self._offset += len(data)
        return event


def result_in(data: bytes) -> dict[str, Any] | None:
    """The result that a stored agent event holds: the line itself, or the rest of a long one."""
    value = _object(data) or {}
    line = value.get("raw") if value.get("truncated") is True else value
    return line if isinstance(line, dict) and line.get("type") == "result" else None


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        # Decoded first: of bytes, `loads` would also take UTF-16 and UTF-32.
        value = json.loads(line.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _summary(result: dict[str, Any]) -> dict[str, Any]:
    """What of a result decides how the command ended, without what made it long."""
    kept = {name: result.get(name) for name in _DECIDES}
    kept["permission_denials"] = [
        {"tool_name": denial.get("tool_name"), "tool_use_id": denial.get("tool_use_id")}
        for denial in result.get("permission_denials") or []
        if isinstance(denial, dict)
    ]
    try:
        short = len(dumps(kept)) <= _HEAD
    except (ValueError, RecursionError):
        short = False
    return kept if short else {}


def _type_in(head: bytes) -> str | None:
    """The `type` of a line that is only known by its beginning."""
    marker = b'"type":"'
    start = head.find(marker)
    end = head.find(b'"', start + len(marker))
    if start < 0 or end < 0:
        return None
    return head[start + len(marker) : end].decode("utf-8", "replace")
