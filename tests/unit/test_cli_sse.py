"""The SSE parser: every rule of WHATWG 9.2.6, and every way to cut the bytes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdev.sse import Comment, Event, EventTooLong, Parser, Retry


def parse(*chunks: bytes) -> list[Event | Comment | Retry]:
    parser = Parser()
    return [item for chunk in chunks for item in parser.feed(chunk)]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_ends_lines_at_lf_cr_and_crlf(end: bytes) -> None:
    """Each of the three line ends closes a field, and two in a row an event."""
    assert parse(end.join([b"id: 7", b"event: output", b"data: x", b"", b""])) == [
        Event("output", "x", "7")
    ]


def test_takes_a_torn_crlf_as_one_end() -> None:
    """A CR at the end of a chunk and an LF at the start of the next are one line end."""
    assert parse(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n") == [Event("message", "a\nb", "")]


def test_takes_cr_before_an_empty_chunk_as_an_end() -> None:
    """An empty chunk between the halves of a CR LF changes nothing."""
    assert parse(b"data: a\r", b"", b"\n\r", b"", b"\n") == [Event("message", "a", "")]


def test_strips_one_byte_order_mark() -> None:
    """A BOM at the very start is no part of the first field's name; a second one is."""
    assert parse(b"\xef\xbb\xbfdata: a\n\n") == [Event("message", "a", "")]
    assert parse(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n") == []


def test_strips_one_space_only() -> None:
    """Exactly one space after the colon belongs to the syntax."""
    assert parse(b"data:  a\ndata:b\n\n") == [Event("message", " a\nb", "")]


def test_joins_data_lines() -> None:
    """Several data fields are lines of one text."""
    assert parse(b"data\ndata:\ndata: x\n\n") == [Event("message", "\n\nx", "")]


def test_dispatches_nothing_without_data() -> None:
    """An event without data is dropped, but its id holds for the next."""
    assert parse(b"id: 3\nevent: x\n\ndata: y\n\n") == [Event("message", "y", "3")]


def test_ignores_an_id_with_nul() -> None:
    """An id that holds NUL leaves the last one in force."""
    assert parse(b"id: 1\nid: 2\x003\ndata: x\n\n") == [Event("message", "x", "1")]


def test_an_empty_id_resets_it() -> None:
    """`id` without a value sets the last event id to the empty string."""
    assert parse(b"id: 1\ndata: x\n\nid\ndata: y\n\n")[-1] == Event("message", "y", "")


def test_hands_out_comments_and_retry() -> None:
    """Heartbeats and the reconnection time reach the caller."""
    assert parse(b": heartbeat\n:\nretry: 1500\n") == [
        Comment("heartbeat"),
        Comment(""),
        Retry(1500),
    ]


@pytest.mark.parametrize("value", [b"1.5", b"-1", b"x", b"", "１".encode(), b"9" * 5000])
def test_ignores_a_retry_that_is_no_plain_number(value: bytes) -> None:
    """Only ASCII digits of a sensible length are a reconnection time."""
    assert parse(b"retry: " + value + b"\n") == []


def test_ignores_unknown_fields() -> None:
    """A field of a later version does no harm."""
    assert parse(b"later: 1\ndata: x\nnothing\n\n") == [Event("message", "x", "")]


def test_replaces_invalid_utf8() -> None:
    """Bytes that are not UTF-8 become replacement characters instead of an error."""
    assert parse(b"data: \xff\n\n") == [Event("message", "�", "")]


def test_does_not_end_lines_at_other_separators() -> None:
    """U+2028, U+0085 and form feeds are content, not line ends."""
    text = "a\u2028b\u0085c\x0cd\x1ce"
    assert parse(f"data: {text}\n\n".encode()) == [Event("message", text, "")]


def test_drops_what_the_end_cuts_off() -> None:
    """An event without its blank line was not sent completely, so it is no event."""
    assert parse(b"data: a\n\ndata: b\n") == [Event("message", "a", "")]


def test_bounds_one_line() -> None:
    """A line longer than the limit is refused while it comes, not after."""
    parser = Parser(max_event_bytes=10)
    parser.feed(b"data: 7890")
    with pytest.raises(EventTooLong):
        parser.feed(b"1")


def test_bounds_the_sum_of_data_lines() -> None:
    """Many short lines are bounded like one long one."""
    parser = Parser(max_event_bytes=20)
    with pytest.raises(EventTooLong):
        parser.feed(b"data: x\n" * 4)


def test_bounds_each_event_by_itself() -> None:
    """A stream may be long; only one event of it may not."""
    parser = Parser(max_event_bytes=20)
    assert len(parser.feed(b"data: x\n\n" * 1000)) == 1000


_LINE_TEXT = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))
_ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
_EVENT = st.tuples(
    st.lists(_LINE_TEXT, min_size=1, max_size=4),
    st.sampled_from(["output", "state", "end"]),
    st.integers(min_value=0, max_value=10**6),
)


def encode(events: list[tuple[list[str], str, int]], end: bytes) -> bytes:
    lines: list[bytes] = []
    for data, kind, number in events:
        lines += [f"id: {number}".encode(), f"event: {kind}".encode()]
        lines += [f"data: {text}".encode() for text in data]
        lines += [b": heartbeat", b""]
    return b"".join(line + end for line in lines)


@given(st.lists(_EVENT, max_size=5), _ENDS, st.data())
def test_reads_back_what_was_written_however_it_is_cut(
    events: list[tuple[list[str], str, int]], end: bytes, data: st.DataObject
) -> None:
    """Whatever is encoded comes back, for every line end and every cut."""
    wire = encode(events, end)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    borders = [0, *cuts, len(wire)]
    chunks = [wire[a:b] for a, b in pairwise(borders)]
    found = [item for item in parse(*chunks) if isinstance(item, Event)]
    assert found == [Event(kind, "\n".join(text), str(n)) for text, kind, n in events]


@given(st.binary(max_size=200))
def test_gives_the_same_byte_by_byte(wire: bytes) -> None:
    """Any bytes at all mean the same whole and one by one."""
    assert parse(wire) == parse(*(wire[i : i + 1] for i in range(len(wire))))
