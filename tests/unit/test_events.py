"""common/domain/events.py: events, their JSON, and cutting bytes between characters."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.domain.events import (
    AGENT,
    END,
    MAX_EVENT_BYTES,
    OUTPUT,
    STATE,
    Event,
    NewEvent,
    complete_utf8,
    cut,
    dumps,
    payload,
    shown_size,
    text_or_base64,
    timestamp,
)

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def event(type_: str, data: bytes, **more: Any) -> Event:
    return Event(UUID(int=1), 7, AT, type_, data, **more)


@given(st.text(max_size=60), st.data())
def test_a_cut_at_any_byte_leaves_whole_characters(text: str, data: st.DataObject) -> None:
    """The longest part that is complete decodes, and at most 3 bytes are left out."""
    raw = text.encode()
    at = data.draw(st.integers(0, len(raw)))
    whole = complete_utf8(raw[:at])
    raw[:whole].decode()
    assert at - 3 <= whole <= at
    if whole < at:
        with pytest.raises(UnicodeDecodeError):
            raw[:at].decode()


@given(st.binary(max_size=40))
def test_bytes_that_are_no_text_are_held_back_by_3_at_most(raw: bytes) -> None:
    """Nothing waits for a character that can never be complete."""
    assert len(raw) - 3 <= complete_utf8(raw) <= len(raw)


@given(st.binary(max_size=300) | st.text(max_size=99).map(str.encode), st.integers(16, 60))
def test_pieces_are_the_bytes_and_none_is_too_long(raw: bytes, room: int) -> None:
    """Whatever the bytes, the pieces put together are the bytes, and as JSON each fits."""
    pieces = list(cut(raw, room))
    assert b"".join(pieces) == raw
    for piece in pieces:
        [shown] = text_or_base64(piece).values()
        assert 0 < len(dumps(shown)) <= room


@given(
    st.binary(max_size=60)
    | st.text(max_size=60).map(str.encode)
    | st.text('\0\x7f\n"\\a ').map(str.encode)
)
def test_the_size_that_is_counted_is_the_size_that_is_written(raw: bytes) -> None:
    """Escape by escape."""
    [shown] = text_or_base64(raw).values()
    assert shown_size(raw) == len(dumps(shown))


@pytest.mark.parametrize("piece", [b"x", b"\n", b"\0", "é".encode(), "𝄞".encode(), b"\xff"])
def test_few_pieces_are_made(piece: bytes) -> None:
    """They are about as large as the room allows."""
    raw = piece * 1_000_000
    least = len(dumps(next(iter(text_or_base64(raw).values())))) / MAX_EVENT_BYTES
    assert len(list(cut(raw))) <= least * 1.1 + 1


@given(st.text(max_size=300), st.integers(16, 60))
def test_text_is_cut_between_characters(text: str, limit: int) -> None:
    """Every piece of UTF-8 is UTF-8."""
    for piece in cut(text.encode(), limit):
        piece.decode()


@given(st.binary(max_size=100))
def test_output_is_shown_as_text_or_base64_and_comes_back_identical(raw: bytes) -> None:
    """No byte is changed to fit into JSON."""
    shown = payload(event(OUTPUT, raw, stream="stdout", offset=5))
    assert (shown["stream"], shown["offset"], shown["seq"]) == ("stdout", 5, 7)
    back = shown["text"].encode() if "text" in shown else base64.b64decode(shown["b64"])
    assert back == raw


def test_text_wins_over_base64_when_bytes_are_utf8() -> None:
    """UTF-8 is shown as text, everything else as base64."""
    assert text_or_base64("é\0".encode()) == {"text": "é\0"}
    assert text_or_base64(b"\xff") == {"b64": "/w=="}


@given(st.text())
def test_json_is_one_ascii_line(text: str) -> None:
    """Line separators, CR and everything else outside printable ASCII are escaped."""
    line = dumps({"text": text})
    assert line.isascii()
    assert not any(byte < 0x20 for byte in line)
    assert json.loads(line) == {"text": text}


def test_json_never_holds_nan() -> None:
    """What is not JSON is refused where it is made."""
    with pytest.raises(ValueError, match="JSON"):
        dumps(float("nan"))


def test_other_events_keep_their_own_json() -> None:
    """A state's or an agent's fields stand beside seq and at."""
    made = NewEvent.of(STATE, {"state": "running"})
    assert payload(event(STATE, made.data)) == {
        "seq": 7,
        "state": "running",
        "at": "2026-01-02T03:04:05.678Z",
    }
    assert payload(event(AGENT, b'{"type":"x"}'))["type"] == "x"


def test_the_end_is_the_final_resource() -> None:
    """`end` holds nothing of its own."""
    assert payload(event(END, b"{}"), end={"id": "cmd_1"}) == {"id": "cmd_1"}
    assert payload(event(END, b"{}")) == {}


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (AT, "2026-01-02T03:04:05.678Z"),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00.000Z"),
        (datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), "2026-01-01T00:00:00.000Z"),
    ],
)
def test_times_are_shown_in_utc_with_milliseconds(at: datetime, text: str) -> None:
    """A time in any zone is shown as the same moment in UTC."""
    assert timestamp(at) == text


def test_an_agent_event_shows_the_line_under_raw() -> None:
    """The row holds claude's own bytes; the event has them as JSON, with their place in stdout."""
    line = b'{"type":"assistant","seq":99,"at":"never"}\n'
    event = Event(UUID(int=1), 3, datetime(2026, 1, 1, tzinfo=UTC), "agent", line, "stdout", 10)
    shown = payload(event)
    assert (shown["seq"], shown["offset"], shown["stream"]) == (3, 10, "stdout")
    assert shown["raw"] == {"type": "assistant", "seq": 99, "at": "never"}
