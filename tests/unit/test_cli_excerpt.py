"""Tails, and the seam between what is stored and what comes."""

from __future__ import annotations

import base64
import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from rdev import events
from rdev.backlog import End, Tail
from rdev.events import CommandEvent
from rdev.excerpt import After, CaughtUp, Since, UpTo
from rdev.resources import Command


class Record:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.seen: list[CommandEvent] = []

    def event(self, event: CommandEvent) -> None:
        self.seen.append(event)

    def done(self, command: Command) -> None:
        del command

    def bytes(self, stream: str) -> bytes:
        found = (events.output_of(e) for e in self.seen if e.type == "output")
        return b"".join(data for name, data in found if name == stream)


def output_events(stream: str, pieces: list[bytes]) -> list[CommandEvent]:
    found, offset = [], 0
    for seq, piece in enumerate(pieces, 1):
        encoded = base64.b64encode(piece).decode()
        data = {"stream": stream, "offset": offset, "b64": encoded}
        found.append(CommandEvent(seq, "output", data))
        offset += len(piece)
    return found


PIECES = st.lists(st.binary(min_size=1, max_size=5), min_size=1, max_size=8)


@given(st.lists(st.binary(max_size=8), max_size=8), st.integers(1, 5))
def test_a_tail_is_the_last_lines(pieces: list[bytes], count: int) -> None:
    """However the bytes are cut, the tail is what `tail -n` prints."""
    tail = Tail(count)
    for piece in pieces:
        tail.write(piece)
    *ended, rest = b"".join(pieces).split(b"\n")
    lines = [line + b"\n" for line in ended] + ([rest] if rest else [])
    assert tail.content() == b"".join(lines[-count:])
    assert tail.is_whole == (len(lines) > count)


@given(PIECES, st.data())
def test_nothing_is_missing_or_doubled_at_the_seam(
    pieces: list[bytes], data: st.DataObject
) -> None:
    """Stored bytes up to any place, then the stream after it, are the whole output."""
    whole = b"".join(pieces)
    shown = data.draw(st.integers(0, len(whole)))
    record = Record()
    sink = After(record, {"stdout": End(shown)})
    for event in output_events("stdout", pieces):
        sink.event(event)
    assert whole[:shown] + record.bytes("stdout") == whole


@given(PIECES, st.data())
def test_stops_where_the_output_was_measured(pieces: list[bytes], data: st.DataObject) -> None:
    """Without -f, everything up to the measured end is shown and nothing is waited for."""
    whole = b"".join(pieces)
    end = data.draw(st.integers(1, len(whole)))
    record = Record()
    sink = UpTo(record, {"merged": End(end)})
    caught_up = False
    for event in output_events("merged", pieces):
        try:
            sink.event(event)
        except CaughtUp:
            caught_up = True
            break
    assert caught_up
    assert len(record.bytes("merged")) >= end


def agent(seq: int) -> CommandEvent:
    return CommandEvent(seq, "agent", {"seq": seq, "type": "assistant"})


def test_counts_the_lines_of_claude() -> None:
    """Agent events have no offset; they and lines that came as output are counted together."""
    record = Record()
    sink = After(record, {"stdout": End(bytes=30, lines=2), "stderr": End()})
    plain = {"stream": "stdout", "offset": 10, "text": "no json\n"}
    for event in (agent(1), CommandEvent(2, "output", plain), agent(3), agent(4)):
        sink.event(event)
    assert [event.seq for event in record.seen] == [3, 4]


def test_stops_behind_the_measured_lines_of_claude() -> None:
    """The excerpt of a running claude ends at the last line that was stored."""
    sink = UpTo(Record(), {"stdout": End(bytes=30, lines=2), "stderr": End()})
    sink.event(agent(1))
    try:
        sink.event(agent(2))
    except CaughtUp:
        return
    raise AssertionError("it went on")


def test_since_leaves_out_what_is_older() -> None:
    """Only events from the instant on are shown."""
    record = Record()
    sink = Since(record, dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC))
    for seq, hour in enumerate((11, 12, 13), 1):
        sink.event(CommandEvent(seq, "output", {"at": f"2026-01-01T{hour}:00:00Z"}))
    assert [event.seq for event in record.seen] == [2, 3]
