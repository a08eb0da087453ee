"""Server-sent events as bytes, and the cursor that stands for a place in a project's stream.

Pure and total: whatever bytes a command printed, an event is one block of lines that every parser
reads back (WHATWG HTML, section 9.2.6). Encoding happens once per event and process, however many
read it, so nothing here knows about a reader.

A cursor is opaque to callers. Inside: version, flags, the horizon below which every transaction was
delivered, and per command the last seq delivered beyond it; with a checksum that also covers the
project, so that a damaged cursor, or one of another project, is refused instead of skipping events.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from common.domain import identifiers
from common.domain.errors import InvalidRequest
from common.domain.events import (
    END,
    GAP,
    Event,
    dumps,
    payload,
    text_or_base64,
    timestamp,
)

MAX_CURSOR_CHARS: Final = (
    8 * 1024
)  # proxies commonly allow 8 KiB for one header line, which it must fit

_VERSION: Final = 1
_LOSSY: Final = 1
_HEAD_BYTES: Final = 6  # version, flags, CRC-32
_MAX_VARINT_BYTES: Final = 10  # xid8 and bigint are 64 bits
_BASE64URL: Final = re.compile(r"[-0-9A-Za-z_]+")
_INTEGER: Final = re.compile(r"[0-9]{1,19}")  # a bigint has at most 19 digits


def encode(event: Event, *, end: dict[str, Any] | None = None) -> bytes:
    """An event in the stream of its command: `id` is its seq. `end`: the final resource."""
    return block(str(event.seq), event.type, dumps_of(event, {}, end))


def encode_in_project(event: Event, cursor: str, *, end: dict[str, Any] | None = None) -> bytes:
    """An event in the stream of its project: `id` is the cursor, and the data say which command."""
    extra = {"command_id": identifiers.show(identifiers.COMMAND, event.command_id)}
    return block(cursor, event.type, dumps_of(event, extra, end))


def dumps_of(event: Event, extra: dict[str, Any], end: dict[str, Any] | None) -> bytes:
    """The data line. A row whose JSON cannot be shown is shown as the text it is.

    One such row (say, an agent that printed NaN) must not make the rest of a stream unreadable.
    """
    try:
        body = payload(event, end=end)
        if event.type != END:
            body["seq"] = event.seq  # also where an agent's line has a `seq` of its own
        return dumps(extra | body)
    except (ValueError, TypeError, RecursionError):
        if event.type == END:  # the resource is ours: a fault there is a bug and must be seen
            raise
        raw = {"seq": event.seq, **text_or_base64(event.data), "at": timestamp(event.at)}
        return dumps(extra | raw)


def gap(id_: str, start: int | str, to: int | str) -> bytes:
    """Events `start` to `to` are gone for good; a reconnect after `id_` goes on behind them."""
    return block(id_, GAP, dumps({"from": start, "to": to}))


def block(id_: str, type_: str, data: bytes) -> bytes:
    """One event. `data` must be a single line, as `events.dumps` makes it."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (id_.encode("ascii"), type_.encode("ascii"), data)


def id_only(id_: str) -> bytes:
    """Sets the reader's last event id without an event (9.2.6: no data, nothing is dispatched)."""
    return b"id: %b\n\n" % id_.encode("ascii")


def comment(text: str = "") -> bytes:
    """A comment: proof of life that no reader sees as an event. CR and LF become spaces."""
    return f": {text}".replace("\r", " ").replace("\n", " ").encode() + b"\n\n"


def retry(milliseconds: int) -> bytes:
    """How long the reader shall wait before it reconnects."""
    return b"retry: %d\n\n" % milliseconds


def seq_of(text: str | None) -> int:
    """The position in a command's stream that a `Last-Event-ID` or `?after=` names; none is 0.

    Raises InvalidRequest for anything but a decimal integer.
    """
    if not text:
        return 0
    if not _INTEGER.fullmatch(text):
        raise InvalidRequest("the last event id of a command's stream is an integer")
    return int(text)


@dataclass(frozen=True)
class Cursor:
    """A place in a project's stream. `lossy`: it was too large to write down, events are lost."""

    horizon: int
    seen: dict[UUID, int] = field(default_factory=dict)
    lossy: bool = False


def encode_cursor(project: str, horizon: int, seen: Mapping[UUID, int]) -> str:
    """The cursor as URL-safe text of at most 8 KiB; what does not fit becomes a lossy cursor."""
    body = _varint(horizon) + b"".join(
        command_id.bytes + _varint(seq) for command_id, seq in sorted(seen.items())
    )
    text = _seal(project, 0, body)
    return text if len(text) <= MAX_CURSOR_CHARS else _seal(project, _LOSSY, _varint(horizon))


def decode_cursor(project: str, text: str) -> Cursor:
    """The place behind a cursor. Raises InvalidRequest for one this project never gave."""
    flags, body = _unseal(project, text)
    horizon, at = _read_varint(body, 0)
    seen: dict[UUID, int] = {}
    while at < len(body):
        command_id = UUID(bytes=body[at : at + 16]) if at + 16 < len(body) else None
        if command_id is None or command_id in seen:
            raise _bad_cursor()
        seen[command_id], at = _read_varint(body, at + 16)
    return Cursor(horizon, seen, lossy=bool(flags & _LOSSY))


def _seal(project: str, flags: int, body: bytes) -> str:
    head = bytes((_VERSION, flags))
    raw = head + _checksum(project, head + body) + body
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _unseal(project: str, text: str) -> tuple[int, bytes]:
    if len(text) > MAX_CURSOR_CHARS or not _BASE64URL.fullmatch(text):
        raise _bad_cursor()
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise _bad_cursor() from None
    head, checksum, body = raw[:2], raw[2:_HEAD_BYTES], raw[_HEAD_BYTES:]
    if len(raw) <= _HEAD_BYTES or head[0] != _VERSION or head[1] & ~_LOSSY:
        raise _bad_cursor()
    # Comparing the text too: base64 leaves bits unused, and a cursor has one spelling only.
    if checksum != _checksum(project, head + body) or _seal(project, head[1], body) != text:
        raise _bad_cursor()
    return head[1], body


def _checksum(project: str, data: bytes) -> bytes:
    return zlib.crc32(data, zlib.crc32(project.encode())).to_bytes(4, "big")


def _varint(value: int) -> bytes:
    """Unsigned LEB128: seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(_MAX_VARINT_BYTES):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << (7 * shift)
        if not byte & 0x80:
            return value, at
    raise _bad_cursor()


def _bad_cursor() -> InvalidRequest:
    return InvalidRequest("the last event id is not a cursor of this project's stream")
