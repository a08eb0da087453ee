"""common/domain/agent.py: claude's lines as events, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from common.domain import agent as module
from common.domain.agent import MAX_PARSED, AgentLines, AgentState, line_in
from common.domain.events import (
    AGENT,
    MAX_EVENT_BYTES,
    OUTPUT,
    ROOM,
    Event,
    NewEvent,
    dumps,
    payload,
)

CAPTURES = sorted((Path(__file__).parents[1] / "fixtures" / "claude-2.1.197").glob("*.jsonl"))
WITHOUT_RESULT = {"sigint_no_result.jsonl"}
BORDER = MAX_EVENT_BYTES
AT = datetime(2026, 1, 1, tzinfo=UTC)


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


def shown(event: NewEvent) -> bytes:
    """An event's JSON on the wire."""
    stored = Event(UUID(int=1), 2**63 - 1, AT, event.type, event.data, event.stream, event.offset)
    return dumps(payload(stored))


@given(st.lists(LINES, max_size=4), st.lists(st.integers(0, 10**6), max_size=4))
@settings(max_examples=30)
def test_no_event_is_longer_than_64_kib_on_the_wire(lines: list[bytes], cuts: list[int]) -> None:
    """JSON escapes included, wherever the numbers are as long as they get."""
    for event in run(b"\n".join(lines), cuts, offset=2**50)[0]:
        assert len(shown(event)) <= MAX_EVENT_BYTES


@pytest.mark.parametrize("size", [2 * BORDER, 2 * MAX_PARSED])
def test_what_is_said_of_a_long_line_fits_too(size: int) -> None:
    """Also where all its small members are as large as they get, and swell."""
    members = {f"m{n}": "𝄞" * 700 for n in range(40)}
    blocks = [{"type": "text", "text": "𝄞" * 5000}] * 9
    line = {"type": "user", "uuid": "𝄞" * 700, "message": {"content": blocks}} | members
    raw = json.dumps(line | {"fill": "x" * size}, ensure_ascii=False).encode() + b"\n"
    events, _ = run(raw, [])
    check(raw, events)
    assert events[-1].type == AGENT
    assert all(len(shown(event)) <= MAX_EVENT_BYTES for event in events)


def test_the_longest_line_that_fits_is_one_event() -> None:
    """As long as its JSON fits; the same text in other letters needs more room."""
    fits, too_long = long_line(ROOM - 4, type="x"), long_line(ROOM + 4, type="x")
    assert [e.type for e in run(fits, [])[0]] == [AGENT]
    assert {e.type for e in run(too_long, [])[0]} == {AGENT, OUTPUT}
    letters = json.dumps({"type": "x", "fill": "é" * 20_000}, ensure_ascii=False).encode() + b"\n"
    events, _ = run(letters, [])
    assert len(letters) < MAX_EVENT_BYTES
    assert [e.type for e in events][-2:] == [OUTPUT, AGENT]
    check(letters, events)


@pytest.mark.parametrize("newline", [True, False])
def test_a_longer_line_is_output_and_then_said_to_be(newline: bool) -> None:
    """Its bytes are output, and an agent event says what it was and where it began."""
    raw = long_line(2 * BORDER, type="assistant", uuid="u-1", n=7)
    raw = raw if newline else raw[:-1]
    events, _ = run(raw, [10, BORDER - 1], offset=100)
    check(raw, events, offset=100)
    *pieces, last = events
    assert {e.type for e in pieces} == {OUTPUT}
    assert (last.type, last.stream, last.offset) == (AGENT, None, None)
    assert json.loads(last.data) == {
        "type": "assistant",
        "uuid": "u-1",
        "size": len(raw),
        "stream": "stdout",
        "offset": 100,
        "truncated": True,
        "raw": {"type": "assistant", "uuid": "u-1", "n": 7},
        "view": [],
    }


def test_a_long_line_of_up_to_1_mib_has_its_view() -> None:
    """It is parsed, so one can see what it says."""
    block = {"type": "tool_result", "tool_use_id": "t", "content": "z" * 200_000}
    line = {"type": "user", "message": {"content": [block]}, "uuid": "u"}
    said = json.loads(run(json.dumps(line).encode() + b"\n", [])[0][-1].data)
    [item] = said["view"]
    assert (item["kind"], item["id"], len(item["text"])) == ("tool_result", "t", 1000)
    assert said["raw"] == {"type": "user", "uuid": "u"}


def test_beyond_1_mib_a_line_is_never_parsed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its small members are read on the way, whatever their order."""
    longest: list[int] = []
    loads = module.loads
    monkeypatch.setattr(module, "loads", lambda data: longest.append(len(data)) or loads(data))
    fill = b'"fill":"' + b'\\"x' * MAX_PARSED + b'"'
    raw = b'{"type":"user",' + fill + b',"session_id":"s","uuid":"u-9"}\n'
    events, _ = run(raw, list(range(0, len(raw), 100_000)))
    check(raw, events)
    said = json.loads(events[-1].data)
    assert (said["type"], said["uuid"], said["size"]) == ("user", "u-9", len(raw))
    assert said["raw"] == {"type": "user", "session_id": "s", "uuid": "u-9"}
    assert not longest


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
    assert said == RESULT | {"permission_denials": [{"tool_name": "Bash", "tool_use_id": "t"}]}


def known(events: list[NewEvent]) -> AgentState:
    """What a follower that comes now is told."""
    ends = [e.offset + len(e.data) for e in stored(events) if e.data.endswith(b"\n")]
    said = [(e.stream, e.data) for e in events if e.type == AGENT]
    return AgentState.of(max(ends, default=0), said)


@pytest.mark.parametrize("size", [500, 100_000, 300_000, MAX_PARSED + 100_000])
def test_a_stored_result_is_found_again(size: int) -> None:
    """Short or long, from its event alone."""
    result = known(run(long_line(size, **RESULT), [])[0]).result
    assert result is not None
    assert (result["subtype"], result["num_turns"], result["usage"]) == (
        "success",
        2,
        {"input_tokens": 1},
    )
    assert result["permission_denials"][0]["tool_name"] == "Bash"


@pytest.mark.parametrize(
    ("stream", "data"),
    [
        ("stdout", b'{"type":"user"}'),
        (None, b'{"raw":5,"truncated":true}'),
        (None, b"[]"),
        ("stdout", b"?"),
        ("stdout", b'{"raw":{"type":"result"},"truncated":true}'),  # claude's own words
    ],
)
def test_other_events_hold_no_result(stream: str | None, data: bytes) -> None:
    """Whatever they look like."""
    assert AgentState.of(5, [(stream, data)]) == AgentState(5)
    assert (line_in(stream, data) or {}).get("type") != "result"


def test_large_denials_still_count_as_denials() -> None:
    """A tool call of megabytes that was refused makes the line too long to be parsed."""
    denied = [{"tool_name": "Write", "tool_input": {"content": "x" * 2 * MAX_PARSED}}]
    raw = json.dumps(RESULT | {"permission_denials": denied}).encode() + b"\n"
    _, lines = run(raw, [])
    assert lines.result is not None
    assert lines.result["permission_denials"]


# -- going on ------------------------------------------------------------------------------------

PARSED = 200_000  # in place of 1 MiB, for speed
INIT = {"type": "system", "subtype": "init", "mcp_servers": [{"name": "a", "status": "failed"}]}
STORY = b"".join(
    [
        json.dumps(INIT).encode() + b"\n",
        json.dumps({"type": "user", "text": "é€𝄞" * 9}, ensure_ascii=False).encode() + b"\n",
        b"no json at all\n",
        b"\xff\xfe\n",
        b"\n",
        long_line(BORDER + 50, type="assistant", uuid="u"),
        json.dumps({"type": "user", "t": "𝄞€é" * 30_000}, ensure_ascii=False).encode() + b"\n",
        b"y" * (BORDER + 9) + b"\n",
        long_line(PARSED + 70_000, type="user", uuid="v"),
        long_line(2 * BORDER, **RESULT),
    ]
)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PARSED", PARSED)


def going_on(raw: bytes, deaths: list[int], piece: int) -> tuple[list[NewEvent], AgentLines]:
    """A follower that dies after it has stored so many events, over and over; each goes on."""
    done: list[NewEvent] = []
    for death in [*deaths, None]:
        lines = AgentLines(sum(len(e.data) for e in stored(done)), known(done))
        batches = (lines.feed(raw[n : n + piece]) for n in range(lines.start, len(raw), piece))
        kept = 0
        for batch in batches:  # a batch is stored whole or not at all
            done += batch
            kept += len(batch)
            if death is not None and kept >= death:
                break
        else:
            return done + lines.end(), lines
    raise AssertionError


@given(
    st.lists(st.integers(1, 12), max_size=6),
    st.sampled_from([20_000, 65_536, 99_991, 262_144]),
    st.booleans(),
)
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@pytest.mark.usefixtures("parsed")
def test_who_goes_on_in_the_middle_of_a_line_loses_nothing(
    deaths: list[int], piece: int, ended: bool
) -> None:
    """Every byte once, and every agent event as if nobody had died."""
    raw = STORY if ended else STORY[:-1]
    events, lines = going_on(raw, deaths, piece)
    check(raw, events)
    undisturbed, last = run(raw, [])
    assert [e.data for e in events if e.type == AGENT] == [
        e.data for e in undisturbed if e.type == AGENT
    ]
    assert (lines.result, lines.at_rest) == (last.result, True)
    assert (lines.init or {})["mcp_servers"] == INIT["mcp_servers"]


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_any_byte_of_a_long_line_can_be_the_last_that_was_stored(data: st.DataObject) -> None:
    """Also one in the middle of a character, an escape or a number."""
    start = data.draw(st.sampled_from([0, 40]))
    line = {"type": "result", "n": 12345, "t": 'é€𝄞\\"' * 20_000, "is_error": False}
    raw = b"x" * (start - 1) + b"\n" * (start > 0)
    raw += json.dumps(line, ensure_ascii=False).encode() + b"\n"
    at = data.draw(st.integers(start, len(raw) - 1))
    lines = AgentLines(at, AgentState(start))
    events = lines.feed(raw[lines.start :]) + lines.end()
    check(raw[at:], events, offset=at)
    assert lines.result is not None
    assert lines.result["n"] == 12345
    assert events[-1].type == AGENT


@pytest.mark.parametrize(
    ("behind", "at_rest"),
    [
        (b"", True),
        (b'{"type":"system","subtype":"notification"}\n', True),
        (b'{"type":"system","subtype":"init"}\n', False),
        (b'{"type":"assistant"}\n', False),
        (b'{"type":"assistant"}\n{"type":"result"}\n', True),
    ],
)
def test_after_its_result_claude_is_at_rest_until_it_works_on(behind: bytes, at_rest: bool) -> None:
    """For who was there and for who comes after."""
    events, lines = run(b'{"type":"result"}\n' + behind, [])
    assert lines.at_rest == at_rest
    assert known(events).at_rest == at_rest


def test_a_huge_result_leaves_its_text_in_the_stream() -> None:
    """Beyond 256 KiB the outcome gets what decides, not the text."""
    _, lines = run(long_line(300_000, **RESULT), [])
    assert lines.result is not None
    assert lines.result["subtype"] == "success"
    assert "fill" not in lines.result


@pytest.mark.parametrize(
    "usage", [b"1e999", b'{"a":"' + b"x" * 9000 + b'"}', b"[" * 99 + b"]" * 99]
)
def test_a_long_result_with_odd_numbers_is_a_result(usage: bytes) -> None:
    """What cannot be said in short is left out, and nothing breaks."""
    raw = b'{"type":"result","usage":' + usage + b',"result":"' + b"x" * BORDER + b'"}\n'
    events, lines = run(raw, [])
    check(raw, events)
    assert json.loads(events[-1].data)["raw"]["type"] == "result"
    assert lines.result is not None


@pytest.mark.parametrize("size", [BORDER + 10, MAX_PARSED + 10])
def test_a_long_line_that_is_no_object_has_no_type(size: int) -> None:
    """It passes through as well."""
    said = json.loads(run(b"x" * size, [])[0][-1].data)
    assert (said["type"], said["uuid"], said["size"], said["raw"]) == (None, None, size, {})


def test_a_request_is_kept_for_its_answer() -> None:
    """One for each event that is one, in their order, however long its line is."""
    ask = {"type": "control_request", "request_id": "r1", "request": {"subtype": "can_use_tool"}}
    long = ask | {"request_id": "r2", "pad": "x" * 100_000}
    longest = ask | {"request_id": "r3", "request": {"input": "x" * MAX_PARSED}}
    values = (ask, {"type": "assistant", "a": ask}, long, longest)
    data = b"".join(dumps(value) + b"\n" for value in values)
    lines = AgentLines()
    events = lines.feed(data)
    told = [module.is_request(event) for event in events if event.type == "agent"]
    assert told == [True, False, True, True]
    assert [request["request_id"] for request in lines.requests] == ["r1", "r2", "r3"]
    assert lines.requests[1]["request"] == ask["request"]
    assert "request" not in lines.requests[2]


def test_a_request_that_was_stored_is_not_asked_again() -> None:
    """Who reads a long result once more passes over what came before the stored end."""
    ask = dumps({"type": "control_request", "request_id": "r1", "request": {}}) + b"\n"
    result = dumps({"type": "result", "result": "x" * 100_000}) + b"\n"
    known = AgentState(line_start=len(result) + len(ask), reread=0)
    lines = AgentLines(len(result) + len(ask), known)
    assert lines.feed(result + ask) == []
    assert list(lines.requests) == []
