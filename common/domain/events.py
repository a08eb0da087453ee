"""What happens to a command, as numbered events; the number is the SSE id.

Every event is one row: `seq` runs from 1 without gaps under the command's lock. Output keeps its
raw bytes and the offset in its stream; all others keep their JSON. `end` keeps nothing: it is
rendered from the command's final row, so there is one truth and it survives the events' retention.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from common.domain.agent_view import view

MAX_EVENT_BYTES: Final = (
    64 * 1024
)  # the JSON of one event on the wire; intermediaries forward at least this much
ROOM: Final = MAX_EVENT_BYTES - 512  # of it for what was printed: the rest are numbers and names

_PLAIN: Final = bytes(set(range(0x20, 0x7F)) - set(b'"\\'))  # what JSON writes as it is
_SHORT: Final = b'"\\\b\f\n\r\t'

STATE, OUTPUT, AGENT, APPROVAL, USAGE = "state", "output", "agent", "approval", "usage"
WARNING, TRUNCATED, GAP, END = "warning", "truncated", "gap", "end"


@dataclass(frozen=True)
class NewEvent:
    """An event that has no number yet. `stream` and `offset` only for output."""

    type: str
    data: bytes
    stream: str | None = None
    offset: int | None = None

    @classmethod
    def of(cls, type_: str, fields: dict[str, Any]) -> NewEvent:
        return cls(type_, dumps(fields))


@dataclass(frozen=True)
class Event:
    """A stored event of one command."""

    command_id: UUID
    seq: int
    at: datetime
    type: str
    data: bytes
    stream: str | None = None
    offset: int | None = None


def dumps(value: Any) -> bytes:
    """Compact JSON in ASCII: one line whatever the text holds (U+2028 and CR included)."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def payload(event: Event, *, end: dict[str, Any] | None = None) -> dict[str, Any]:
    """The JSON object of an event as api.md shows it; `end` is the final resource."""
    if event.type == END:
        return end or {}
    if event.type == OUTPUT:
        body: dict[str, Any] = {"stream": event.stream, "offset": event.offset}
        body |= text_or_base64(event.data)
    elif event.type == AGENT and event.stream is not None:  # the row holds claude's own line
        raw = json.loads(event.data)
        body = {"stream": event.stream, "offset": event.offset, "raw": raw, "view": view(raw)}
    else:
        body = json.loads(event.data)
    return {"seq": event.seq, **body, "at": timestamp(event.at)}


def timestamp(at: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, whatever zone `at` was given in."""
    text = at.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def text_or_base64(data: bytes) -> dict[str, str]:
    """`{"text"}` when the bytes are UTF-8, else `{"b64"}`: bytes are never changed to fit."""
    try:
        return {"text": data.decode("utf-8")}
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(data).decode("ascii")}


def complete_utf8(data: bytes) -> int:
    """How many leading bytes of `data` do not end inside a UTF-8 sequence: all but 3 at least."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        width = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return len(data) - back if width > back else len(data)
    return len(data)


def cut(data: bytes, room: int = ROOM) -> Iterator[bytes]:
    """Pieces of which each is at most `room` bytes as JSON, escapes included.

    Cut between characters where the bytes are UTF-8. `room` is enough for any one of them.
    """
    start = 0
    while start < len(data):
        piece = _head(data, start, room)
        while (size := shown_size(piece)) > room:
            piece = _head(data, start, min(len(piece) - 1, len(piece) * room // size))
        yield piece
        start += len(piece)


def _head(data: bytes, start: int, size: int) -> bytes:
    piece = data[start : start + max(1, size)]
    return piece if start + size >= len(data) else piece[: complete_utf8(piece)] or piece


def shown_size(data: bytes) -> int:
    """How long `data` is as a string of JSON: as text, or as base64 where it is none.

    Counted where it can be: writing it all out would take longer than storing it.
    """
    if data.isascii():
        escaped = data.translate(None, _PLAIN)
        long = len(escaped.translate(None, _SHORT))  # \u0000; the others are \n and the like
        return 2 + len(data) + len(escaped) + 4 * long
    try:
        return len(dumps(data.decode()))
    except UnicodeDecodeError:
        return 2 + 4 * ((len(data) + 2) // 3)
