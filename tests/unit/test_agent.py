"""common/domain/agent.py: claude's lines as events, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.domain.agent import AgentLines, result_in
from common.domain.events import AGENT, MAX_EVENT_BYTES, OUTPUT, NewEvent

CAPTURES = sorted((Path(__file__).parents[1] / "fixtures" / "claude-2.1.197").glob("*.jsonl"))
WITHOUT_RESULT = {"sigint_no_result.jsonl"}
BORDER = MAX_EVENT_BYTES


def chunks(raw: bytes, cuts: list[int]) -> Iterator[bytes]:
    borders = [0, *sorted(c % (len(raw) + 1) for c in cuts), len(raw)]
    return (raw[a:b] for a, b in pairwise(borders))


def run(raw: bytes, cuts: list[int], offset: int = 0) -> tuple[list[NewEvent], AgentLines]:
    lines = AgentLines(offset)
    events = [event for chunk in chunks(raw, cuts) for event in lines.feed(chunk)]
    return events + lines.end(), lines


def stored(events: list[NewEvent]) -> list[NewEvent]:
    return [event for event in events if event.stream is not None]


def check(raw: bytes, events: list[NewEvent], offset: int = 0) -> None:
    """Bytes identical, offsets contiguous, no event too long."""
    assert b"".join(e.data for e in stored(events)) == raw
    for event in stored(events):
        assert event.offset == offset
        assert (event.stream, len(event.data) <= BORDER) == ("stdout", True)
        offset += len(event.data)


def long_line(size: int, **fields: Any) -> bytes:
    """A JSON line of exactly `size` bytes, its newline included."""
    empty = len(json.dumps({**fields, "fill": ""}, separators=(",", ":"))) + 1
    return (
        json.dumps({**fields, "fill": "x" * (size - empty)}, separators=(",", ":")).encode() + b"\n"
    )


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda p: p.stem)
@given(cuts=st.lists(st.integers(0, 10**6), max_size=8))
def test_captures_come_through_whole_however_they_arrive(capture: Path, cuts: list[int]) -> None:
    """Every line of real claude output is one agent event, whatever the chunks."""
    raw = capture.read_bytes()
    events, lines = run(raw, cuts)
    check(raw, events)
    assert [e.data for e in events] == raw.splitlines(keepends=True)
    assert {e.type for e in events} == {AGENT}
    assert (lines.result is None) == (capture.name in WITHOUT_RESULT)


LINES = st.one_of(
    st.binary(max_size=30),
    st.text(max_size=30).map(lambda t: json.dumps({"type": "user", "text": t}).encode()),
    st.integers(BORDER - 4, BORDER + 4).map(lambda n: long_line(n, type="assistant")[:-1]),
    st.integers(BORDER - 2, 2 * BORDER + 2).map(lambda n: b"\xc3\xa9" * (n // 2) + b"x" * (n % 2)),
)


@given(st.lists(LINES, max_size=5), st.lists(st.integers(0, 10**6), max_size=6), st.booleans())
@example([b"x" * BORDER], [], False)
def test_any_bytes_come_through_whole(lines: list[bytes], cuts: list[int], ended: bool) -> None:
    """Whatever is printed in whatever pieces, the stored bytes are the printed bytes."""
    raw = b"\n".join(lines) + (b"\n" if ended else b"")
    check(raw, run(raw, cuts)[0])


@given(st.lists(LINES, max_size=3), st.lists(st.integers(0, 10**6), max_size=6))
def test_chunks_do_not_change_what_was_said(lines: list[bytes], cuts: list[int]) -> None:
    """Agent events depend on the lines alone, not on how they arrived."""
    raw = b"\n".join(lines)
    said = [e.data for e in run(raw, cuts)[0] if e.type == AGENT]
    assert said == [e.data for e in run(raw, [])[0] if e.type == AGENT]


def test_offsets_go_on_from_where_the_stored_bytes_end() -> None:
    """An adopter continues the predecessor's count."""
    raw = b'{"type":"a"}\n{"type":"b"}\n'
    check(raw, run(raw, [5], offset=1000)[0], offset=1000)


def test_half_a_line_waits() -> None:
    """Nothing is stored of a line until it is complete."""
    lines = AgentLines(0)
    assert lines.feed(b'{"type":') == []
    assert lines.held == 8
    assert [e.type for e in lines.feed(b'"x"}\n')] == [AGENT]
    assert lines.held == 0


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"[1]",
        b'"text"',
        b'{"a":NaN}',
        b"\xff{}",
        b"\xef\xbb\xbf{}",
        b"",
        '{"type":"result"}'.encode("utf-16-le"),
        b"[" * 50_000,
        b'{"n":' + b"9" * 5000 + b"}",
    ],
    ids=lambda line: repr(line[:20]),
)
def test_what_is_no_json_object_is_plain_output(line: bytes) -> None:
    """Warnings and the like between claude's lines are kept as output."""
    events, lines = run(line + b"\n", [])
    check(line + b"\n", events)
    assert {e.type for e in events} == {OUTPUT}
    assert lines.result is None


def test_the_longest_line_that_fits_is_one_event() -> None:
    """A line of exactly 64 KiB with its newline is an agent event."""
    events, _ = run(long_line(BORDER, type="assistant"), [])
    assert [e.type for e in events] == [AGENT]


@pytest.mark.parametrize("newline", [True, False])
def test_a_longer_line_is_output_and_then_said_to_be(newline: bool) -> None:
    """One byte more: its bytes are output, and an agent event names its type and size."""
    raw = long_line(BORDER + 1, type="assistant")
    raw = raw if newline else raw[:-1] + b"}"
    events, _ = run(raw, [10, BORDER - 1])
    check(raw, events)
    *pieces, last = events
    assert {e.type for e in pieces} == {OUTPUT}
    assert (last.type, last.stream, last.offset) == (AGENT, None, None)
    assert json.loads(last.data) == {
        "raw": {"type": "assistant", "size": len(raw)},
        "truncated": True,
    }


def test_a_line_after_a_long_one_is_whole_again() -> None:
    """What follows an overlong line is read as usual."""
    raw = long_line(3 * BORDER, type="user") + b'{"type":"result"}\n'
    events, lines = run(raw, list(range(0, 3 * BORDER, 9999)))
    check(raw, events)
    assert events[-1].data == b'{"type":"result"}\n'
    assert lines.result == {"type": "result"}


def test_the_last_result_counts() -> None:
    """Of several result lines the newest decides."""
    _, lines = run(b'{"type":"result","n":1}\n{"type":"result","n":2}\n', [])
    assert lines.result == {"type": "result", "n": 2}


def test_a_result_without_a_newline_is_found_at_the_end() -> None:
    """A process killed right after its result has still said it."""
    assert run(b'{"type":"result"}', [])[1].result == {"type": "result"}


RESULT: dict[str, Any] = {
    "type": "result",
    "subtype": "success",
    "is_error": False,
    "num_turns": 2,
    "session_id": "s",
    "total_cost_usd": 0.5,
    "usage": {"input_tokens": 1},
    "modelUsage": {"opus": {"inputTokens": 1}},
    "permission_denials": [{"tool_name": "Bash", "tool_use_id": "t", "tool_input": {"a": "b"}}],
}


@pytest.mark.parametrize("cuts", [[], list(range(0, 100_000, 777))])
def test_a_result_longer_than_one_event_is_read_too(cuts: list[int]) -> None:
    """A long answer is no reason to say there was no result."""
    raw = long_line(100_000, **RESULT)
    events, lines = run(raw, cuts)
    check(raw, events)
    assert lines.result == json.loads(raw)


def test_the_event_of_a_long_result_keeps_what_decides() -> None:
    """Who comes after can conclude from the stored event alone."""
    said = json.loads(run(long_line(100_000, **RESULT), [])[0][-1].data)["raw"]
    assert said == RESULT | {
        "size": 100_000,
        "permission_denials": [{"tool_name": "Bash", "tool_use_id": "t"}],
    }


@pytest.mark.parametrize("size", [500, 100_000])
def test_a_stored_result_is_found_again(size: int) -> None:
    """Short or long, from the event alone; other lines are none."""
    found = [result_in(e.data) for e in run(long_line(size, **RESULT), [])[0] if e.type == AGENT]
    assert len(found) == 1
    assert found[0] is not None
    assert (found[0]["subtype"], found[0]["num_turns"]) == ("success", 2)


@pytest.mark.parametrize(
    "data",
    [b'{"type":"user"}', b'{"raw":5,"truncated":true}', b"[]", b"?", b'{"raw":{"type":"result"}}'],
)
def test_other_events_hold_no_result(data: bytes) -> None:
    """Whatever they look like."""
    assert result_in(data) is None


def test_a_huge_result_leaves_its_text_in_the_stream() -> None:
    """Beyond 256 KiB the outcome gets what decides, not the text."""
    _, lines = run(long_line(300_000, **RESULT), [])
    assert lines.result is not None
    assert lines.result["subtype"] == "success"
    assert "fill" not in lines.result


@pytest.mark.parametrize(
    "usage", [b"1e999", b'{"a":"' + b"x" * 9000 + b'"}', b"[" * 99 + b"]" * 99]
)
def test_a_long_result_with_odd_numbers_says_its_type_only(usage: bytes) -> None:
    """What cannot be said in short is left out, and nothing breaks."""
    raw = b'{"type":"result","usage":' + usage + b',"result":"' + b"x" * BORDER + b'"}\n'
    events, lines = run(raw, [])
    check(raw, events)
    assert json.loads(events[-1].data)["raw"]["type"] == "result"
    assert lines.result is not None


def test_beyond_4_mib_a_result_is_only_named() -> None:
    """Memory is bounded: such a line counts as no result."""
    raw = long_line(4 * 1024 * 1024 + 1, type="result")
    events, lines = run(raw, [])
    check(raw, events)
    assert lines.result is None
    assert json.loads(events[-1].data)["raw"] == {"type": "result", "size": len(raw)}


def test_a_type_that_is_not_at_the_beginning_is_unknown() -> None:
    """A long line whose head has no type is said to have none."""
    raw = b"x" * (BORDER + 10)
    assert json.loads(run(raw, [])[0][-1].data)["raw"] == {"type": None, "size": len(raw)}
