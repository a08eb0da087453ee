"""The SSE encoder read back by an independent parser, and the cursors of project streams."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.domain import sse
from common.domain.errors import InvalidRequest
from common.domain.events import AGENT, END, OUTPUT, STATE, Event
from rdev.sse import Comment, Parser, Retry
from rdev.sse import Event as Read

AT = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
COMMAND = UUID(int=7)

commands = st.uuids()
seqs = st.integers(min_value=1, max_value=2**63 - 1)
seen = st.dictionaries(commands, seqs, max_size=20)
horizons = st.integers(min_value=0, max_value=2**64 - 1)
projects = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)


def event(type_: str, data: bytes, seq: int = 3, **output: Any) -> Event:
    return Event(COMMAND, seq, AT, type_, data, **output)


def spec_parse(data: bytes) -> list[tuple[str, str, str]]:
    """WHATWG HTML 9.2.6, written down from the text: (id, event, data) of what is dispatched."""
    text = data.decode("utf-8").removeprefix("\ufeff")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    found, last_id, type_, body = [], "", "", ""
    for line in lines[:-1]:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if body:
                found.append((last_id, type_ or "message", body.removesuffix("\n")))
            type_, body = "", ""
        elif field == "data":
            body += value + "\n"
        elif field == "event":
            type_ = value
        elif field == "id" and "\0" not in value:
            last_id = value
    return found


def output_of(data: str) -> bytes:
    body = json.loads(data)
    return base64.b64decode(body["b64"]) if "b64" in body else body["text"].encode()


@given(st.binary(max_size=300), seqs, st.integers(min_value=0, max_value=2**62))
def test_output_comes_back_byte_for_byte(data: bytes, seq: int, offset: int) -> None:
    """Whatever bytes a command prints, both parsers read them back from one block."""
    encoded = sse.encode(event(OUTPUT, data, seq, stream="stdout", offset=offset))
    [(id_, type_, text)] = spec_parse(encoded)
    assert (id_, type_, output_of(text)) == (str(seq), "output", data)
    assert Parser().feed(encoded) == [Read("output", text, str(seq))]
    body = json.loads(text)
    assert (body["seq"], body["stream"], body["offset"]) == (seq, "stdout", offset)
    assert body["at"] == "2026-01-02T03:04:05.678Z"


@given(st.lists(st.binary(max_size=40), max_size=8), st.data())
def test_a_stream_cut_anywhere_is_the_same_stream(pieces: list[bytes], draw: st.DataObject) -> None:
    """However the network cuts the bytes, the events are the same."""
    events = [event(OUTPUT, p, n, stream="merged", offset=0) for n, p in enumerate(pieces, 1)]
    whole = b"".join(sse.encode(e) for e in events)
    cut = draw.draw(st.integers(min_value=0, max_value=len(whole)))
    parser = Parser()
    read = parser.feed(whole[:cut]) + parser.feed(whole[cut:])
    assert [output_of(r.data) for r in read if isinstance(r, Read)] == pieces


@given(st.text(max_size=100))
def test_what_lines_are_made_of_stays_on_one_line(text: str) -> None:
    """CR, LF, U+2028, NUL and a BOM in an agent's line never break the block."""
    raw = json.dumps({"type": "assistant", "text": text}).encode()
    encoded = sse.encode(event(AGENT, raw))
    assert encoded.count(b"\n") == 4
    assert b"\r" not in encoded
    [(_, type_, data)] = spec_parse(encoded)
    assert type_ == "agent"
    assert json.loads(data)["text"] == text


@given(st.binary(max_size=80))
def test_a_row_that_is_no_json_is_shown_as_it_is(raw: bytes) -> None:
    """One unreadable row does not make the rest of a stream unreadable."""
    [(id_, _, data)] = spec_parse(sse.encode(event(AGENT, raw)))
    assert id_ == "3"
    assert json.loads(data)["seq"] == 3


@pytest.mark.parametrize("raw", [b'{"cost":NaN}', b"[1]", b"\xff", b"", b"[" * 100_000])
def test_unshowable_json_keeps_its_text(raw: bytes) -> None:
    """NaN, lists, broken UTF-8, nothing, and nesting beyond the parser's depth."""
    [(_, _, data)] = spec_parse(sse.encode(event(AGENT, raw)))
    assert output_of(data) == raw


def test_end_is_the_final_resource() -> None:
    """`end` shows the resource and nothing of the row."""
    [(id_, type_, data)] = spec_parse(sse.encode(event(END, b"", 9), end={"id": "cmd_1"}))
    assert (id_, type_, json.loads(data)) == ("9", "end", {"id": "cmd_1"})


def test_a_fault_in_the_resource_is_seen() -> None:
    """A final resource that is no JSON is our bug, not something to paper over."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        sse.encode(event(END, b""), end={"cost": float("nan")})


def test_a_project_stream_says_which_command() -> None:
    """In a project's stream the id is the cursor and the data carry the command's id."""
    encoded = sse.encode_in_project(event(STATE, b'{"state":"running"}'), "CURSOR")
    [(id_, type_, data)] = spec_parse(encoded)
    assert (id_, type_) == ("CURSOR", "state")
    body = json.loads(data)
    assert body["command_id"] == f"cmd_{COMMAND.hex}"
    assert body["state"] == "running"


def test_a_gap_says_what_is_gone() -> None:
    """`gap` has the id behind it, so that a reconnect does not meet it again."""
    [(id_, type_, data)] = spec_parse(sse.gap("9", 4, 9))
    assert (id_, type_, json.loads(data)) == ("9", "gap", {"from": 4, "to": 9})


def test_comments_and_retries_are_no_events() -> None:
    """A heartbeat, a hint and an id alone dispatch nothing; the id is remembered."""
    data = sse.comment("a\r\nb") + sse.retry(1500) + sse.id_only("ABC")
    assert Parser().feed(data) == [Comment("a  b"), Retry(1500)]
    assert spec_parse(data) == []
    [(id_, _, _)] = spec_parse(data + b"data: x\n\n")
    assert id_ == "ABC"


@pytest.mark.parametrize("text", ["x", "-1", "1.0", " 1", "1 ", "٣", "9" * 20, "0x1", "cmd_1"])
def test_a_last_event_id_is_an_integer(text: str) -> None:
    """Anything but plain decimal digits is a bad request."""
    with pytest.raises(InvalidRequest):
        sse.seq_of(text)


def test_no_last_event_id_is_the_beginning() -> None:
    """Without an id, or with an empty one, everything is sent."""
    assert [sse.seq_of(None), sse.seq_of(""), sse.seq_of("0"), sse.seq_of("12")] == [0, 0, 0, 12]


@given(projects, horizons, seen)
def test_a_cursor_comes_back(project: str, horizon: int, places: dict[UUID, int]) -> None:
    """Decoding gives the place that was encoded, and its text fits a header line and a URL."""
    text = sse.encode_cursor(project, horizon, places)
    assert sse.decode_cursor(project, text) == sse.Cursor(horizon, places)
    assert text.isascii() and len(text) <= sse.MAX_CURSOR_CHARS
    assert all(c.isalnum() or c in "-_" for c in text)


@given(projects, horizons, seen)
def test_equal_places_have_equal_cursors(
    project: str, horizon: int, places: dict[UUID, int]
) -> None:
    """The order in which commands were seen does not show."""
    other = dict(reversed(places.items()))
    assert sse.encode_cursor(project, horizon, places) == sse.encode_cursor(project, horizon, other)


@given(horizons, st.integers(min_value=600, max_value=700))
def test_a_cursor_too_large_says_so(horizon: int, count: int) -> None:
    """Beyond the bound the place is lost, and the cursor knows it."""
    places = {UUID(int=n): 2**40 for n in range(count)}
    text = sse.encode_cursor("demo", horizon, places)
    assert len(text) <= sse.MAX_CURSOR_CHARS
    assert sse.decode_cursor("demo", text) == sse.Cursor(horizon, {}, lossy=True)


@given(st.one_of(st.text(max_size=200), st.binary(max_size=200).map(lambda b: b.decode("latin-1"))))
def test_garbage_is_no_cursor(text: str) -> None:
    """Whatever was never a cursor is a bad request, not an error of ours."""
    with pytest.raises(InvalidRequest):
        sse.decode_cursor("demo", text)


@given(horizons, seen, st.data())
def test_a_damaged_cursor_is_refused(
    horizon: int, places: dict[UUID, int], draw: st.DataObject
) -> None:
    """One changed character, a lost end, or another project: refused, never another place."""
    text = sse.encode_cursor("demo", horizon, places)
    at = draw.draw(st.integers(min_value=0, max_value=len(text) - 1))
    other = "A" if text[at] != "A" else "B"
    for damaged in (text[:at] + other + text[at + 1 :], text[:at], text + "A"):
        with pytest.raises(InvalidRequest):
            sse.decode_cursor("demo", damaged)
    with pytest.raises(InvalidRequest):
        sse.decode_cursor("other", text)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x80",
        b"\x01" + b"x" * 16,
        b"\x01" + b"x" * 5,
        b"\x80" * 11,
        b"\x01" + (b"x" * 16 + b"\x01") * 2,
    ],
)
def test_a_forged_body_is_refused(body: bytes) -> None:
    """A body that ends early, never ends or names a command twice is refused, checksum or not."""
    with pytest.raises(InvalidRequest):
        sse.decode_cursor("demo", sse._seal("demo", 0, body))


def test_a_cursor_of_another_version_is_refused() -> None:
    """The version byte decides how to read the rest."""
    raw = bytearray(base64.urlsafe_b64decode(sse.encode_cursor("demo", 1, {}) + "=="))
    raw[0] = 2
    with pytest.raises(InvalidRequest):
        sse.decode_cursor("demo", base64.urlsafe_b64encode(raw).rstrip(b"=").decode())
