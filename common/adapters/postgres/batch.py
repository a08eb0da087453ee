"""A batch of events on its way in: which bytes of which stream it holds, and its COPY form.

Streams go on exactly where their stored bytes end, so a batch whose COMMIT was lost on the way can
be sent again: what is stored already falls out of it, and nothing is ever stored twice.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Final
from uuid import UUID

from common.adapters.postgres.connection import Row
from common.adapters.postgres.rows import OTHER_STREAM
from common.domain.events import NewEvent

# PostgreSQL manual, COPY, "Binary Format": signature, flags, length of the header's extension.
_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
_TRAILER: Final = struct.pack("!h", -1)
_NULL: Final = struct.pack("!i", -1)
_FIELDS: Final = struct.pack("!h", 9)
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_EPOCH_DAY: Final = date(2000, 1, 1)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True)
class Span:
    """Bytes [start, end) of one stream; no bytes at all when `start` is None."""

    start: int | None = None
    end: int = 0

    def as_range(self) -> str | None:
        """The int8range parameter; NULL when the batch holds none of the stream."""
        return None if self.start is None else f"[{self.start},{self.end})"


class Batch:
    """Events in their order. Raises ValueError when a stream has a hole inside the batch."""

    def __init__(self, events: Sequence[NewEvent]) -> None:
        self.events = events
        self.size = sum(len(event.data) for event in events)
        self.out = _span([e for e in events if e.stream and e.stream != OTHER_STREAM])
        self.err = _span([e for e in events if e.stream == OTHER_STREAM])

    def without_stored(self, out_offset: int, err_offset: int) -> Batch:
        """What is not stored yet. Raises ValueError when bytes before it are missing."""
        left: list[NewEvent] = []
        for event in self.events:
            stored = err_offset if event.stream == OTHER_STREAM else out_offset
            rest = event if event.stream is None else _after(event, stored)
            if rest is not None:
                left.append(rest)
        batch = Batch(left)
        for span, stored in ((batch.out, out_offset), (batch.err, err_offset)):
            if span.start is not None and span.start != stored:
                raise ValueError(f"output goes on at byte {stored}, not at {span.start}")
        if batch.out.start is None and batch.err.start is None:
            return Batch([])  # all its output is stored, hence its other events too
        return batch

    def binary(self, command_id: UUID, reserved: Row) -> Iterator[bytes]:
        """The batch as a binary COPY, numbered from the reserved seq on."""
        before_seq = _FIELDS + _field(struct.pack("!i", (reserved["day"] - _EPOCH_DAY).days))
        before_seq += _field(command_id.bytes)
        at = struct.pack("!q", (reserved["at"] - _EPOCH) // _MICROSECOND)
        after_seq = _field(reserved["project"].encode()) + _field(at)
        yield _HEADER
        for seq, event in enumerate(self.events, reserved["first_seq"]):
            head = before_seq + _field(struct.pack("!q", seq)) + after_seq
            yield head + _own_fields(event)
        yield _TRAILER


def _span(events: Sequence[NewEvent]) -> Span:
    at: int | None = None
    for event in events:
        if at is not None and event.offset != at:
            raise ValueError(f"output goes on at byte {at}, not at {event.offset}")
        at = (event.offset or 0) + len(event.data)
    start = events[0].offset or 0 if events else None
    return Span() if start is None or at is None or at == start else Span(start, at)


def _after(event: NewEvent, stored: int) -> NewEvent | None:
    start = event.offset or 0
    if start >= stored:
        return event
    data = event.data[stored - start :]
    return replace(event, data=data, offset=stored) if data else None


def _own_fields(event: NewEvent) -> bytes:
    stream = _NULL if event.stream is None else _field(event.stream.encode())
    offset = _NULL if event.offset is None else _field(struct.pack("!q", event.offset))
    return _field(event.type.encode()) + stream + offset + _field(event.data)


def _field(data: bytes) -> bytes:
    return struct.pack("!i", len(data)) + data
