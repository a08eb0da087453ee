"""What the events of a command's stream say, read from their JSON."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from rdev import sse
from rdev.errors import ServerFault


@dataclass(frozen=True, slots=True)
class CommandEvent:
    """One event. `seq` counts a command's events from 1 without gaps; unknown types pass too."""

    seq: int
    type: str
    data: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The event as `-o jsonl` prints it: the SSE fields, the data unpacked."""
        return {"id": self.seq, "event": self.type, "data": self.data}


def sequence(event: sse.Event) -> int:
    """The event's number; raises ServerFault when it has none."""
    if not (event.id.isascii() and event.id.isdigit()):
        raise ServerFault(f"the stream sent an event with the id {event.id!r}, which is no number")
    return int(event.id)


def parse(event: sse.Event) -> CommandEvent:
    """The event with its data unpacked; raises ServerFault when that is not a JSON object."""
    try:
        data = json.loads(event.data)
    except ValueError as error:
        raise ServerFault(f"event {event.id} of the stream is not JSON") from error
    if not isinstance(data, dict):
        raise ServerFault(f"event {event.id} of the stream is not a JSON object")
    return CommandEvent(sequence(event), event.type, data)


def output_of(event: CommandEvent) -> tuple[str, bytes]:
    """Stream name and exact bytes of an `output` event.

    Raises ServerFault when they cannot be restored: guessing would break the byte-exact promise.
    """
    text, encoded = event.data.get("text"), event.data.get("b64")
    try:
        if isinstance(text, str):
            return str(event.data.get("stream", "merged")), text.encode("utf-8")
        if isinstance(encoded, str):
            data = base64.b64decode(encoded, validate=True)
            return str(event.data.get("stream", "merged")), data
    except (UnicodeEncodeError, binascii.Error) as error:
        raise ServerFault(f"event {event.seq} holds output that cannot be decoded") from error
    raise ServerFault(f"event {event.seq} is output without text and b64")


def offset_of(event: CommandEvent) -> int:
    """Where in its stream the bytes of an `output` event begin."""
    offset = event.data.get("offset")
    if not isinstance(offset, int):
        raise ServerFault(f"event {event.seq} is output without an offset")
    return offset


def output_event(event: CommandEvent, stream: str, offset: int, data: bytes) -> CommandEvent:
    """`event` with other bytes: a part of what it held, as b64 because a cut may tear a letter."""
    rest = {k: v for k, v in event.data.items() if k not in ("text", "b64")}
    encoded = base64.b64encode(data).decode("ascii")
    return CommandEvent(
        event.seq, event.type, {**rest, "stream": stream, "offset": offset, "b64": encoded}
    )


def gap_of(event: CommandEvent) -> tuple[int, int]:
    """First and last missing number of a `gap` event."""
    first, last = event.data.get("from"), event.data.get("to")
    if not isinstance(first, int) or not isinstance(last, int):
        raise ServerFault(f"event {event.seq} is a gap without its borders")
    return first, last


def agent_line(event: CommandEvent) -> Any:
    """Claude's own line in an `agent` event; None when it came as output just before.

    A line that is too long for one event comes in pieces of output, and then an `agent` event
    without it, marked `truncated`.
    """
    if event.data.get("truncated") is True:
        return None
    if "raw" in event.data:
        return event.data["raw"]
    return {name: value for name, value in event.data.items() if name not in ("seq", "at")}
