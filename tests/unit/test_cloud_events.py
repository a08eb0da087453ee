"""common/entrypoints/cloud_events.py: events in, in either mode, poison included."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from common.domain.errors import InvalidRequest
from common.entrypoints.cloud_events import MAX_ATTRIBUTE, parse, salvage

BINARY = {
    "ce-specversion": "1.0",
    "ce-id": "evt_1",
    "ce-source": "/rdev",
    "ce-type": "t.v1",
    "ce-subject": "projects/demo",
    "ce-traceparent": "00-a-b-01",
    "content-type": "application/json",
}
STRUCTURED = {"content-type": "application/cloudevents+json; charset=utf-8"}
ENVELOPE: dict[str, Any] = {
    "specversion": "1.0",
    "id": "evt_1",
    "source": "/rdev",
    "type": "t.v1",
    "subject": "projects/demo",
    "traceparent": "00-a-b-01",
    "data": {"project": "demo"},
}


def structured(**changes: Any) -> bytes:
    return json.dumps({k: v for k, v in (ENVELOPE | changes).items() if v is not ...}).encode()


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_both_modes_say_the_same(mode: str) -> None:
    """Attributes as text, data as JSON."""
    if mode == "binary":
        event = parse(Headers(BINARY), b'{"project":"demo"}')
    else:
        event = parse(Headers(STRUCTURED), structured())
    assert (event.id, event.source, event.type) == ("evt_1", "/rdev", "t.v1")
    assert (event.subject, event.traceparent) == ("projects/demo", "00-a-b-01")
    assert event.data == {"project": "demo"}
    assert event.attributes["specversion"] == "1.0"


@pytest.mark.parametrize(
    "body", [b"", b"not json", b'{"a":NaN}', b'{"a":1,"a":2}', b"\xff", b'"\\ud800"', b"[" * 99_999]
)
def test_data_that_is_no_json_is_no_data(body: bytes) -> None:
    """An event says only `look`; its bytes are still there for who buries it."""
    event = parse(Headers(BINARY), body)
    assert (event.data, event.body) == (None, body)


@pytest.mark.parametrize(
    ("data", "expected"),
    [("text", "text"), ('{"a":1}', '{"a":1}'), ([1], [1]), (0, 0), (None, None)],
)
def test_structured_data_is_taken_as_it_stands(data: Any, expected: Any) -> None:
    """A JSON string is a string, not JSON in a string."""
    assert parse(Headers(STRUCTURED), structured(data=data)).data == expected


def test_structured_base64_data_is_left_in_the_body() -> None:
    """Nothing of ours sends it, and nothing acts on it."""
    body = structured(data=..., data_base64=base64.b64encode(b"\xff").decode())
    assert parse(Headers(STRUCTURED), body).data is None


@pytest.mark.parametrize("name", ["specversion", "id", "source", "type"])
def test_what_lacks_an_attribute_is_no_event(name: str) -> None:
    """In both modes."""
    with pytest.raises(InvalidRequest):
        parse(Headers({k: v for k, v in BINARY.items() if k != f"ce-{name}"}), b"{}")
    with pytest.raises(InvalidRequest):
        parse(Headers(STRUCTURED), structured(**{name: ...}))


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (STRUCTURED, b""),
        (STRUCTURED, b"[]"),
        (STRUCTURED, b'"x"'),
        (STRUCTURED, b"5"),
        (STRUCTURED, b"null"),
        (STRUCTURED, b"{}"),
        (STRUCTURED, b"not json"),
        (STRUCTURED, structured(id="\ud800")),
        (STRUCTURED, structured(id="a\0")),
        (STRUCTURED, structured(specversion="9.9")),
        (STRUCTURED, structured(specversion=1)),
        (STRUCTURED, structured(specversion=[1])),
        ({"content-type": "application/cloudevents-batch+json"}, b"[" + structured() + b"]"),
        ({}, b""),
        ({}, b"{}"),
        ({"content-type": "text/plain"}, b"hello"),
        (BINARY | {"ce-specversion": "0.1"}, b"{}"),
        (BINARY | {"ce-long": "x" * (MAX_ATTRIBUTE + 1)}, b"{}"),
    ],
)
def test_poison_is_a_bad_request(headers: dict[str, str], body: bytes) -> None:
    """400, so that the broker hands it to the dead letters instead of trying again."""
    with pytest.raises(InvalidRequest) as caught:
        parse(Headers(headers), body)
    assert len(caught.value.detail) <= 300


@given(
    st.dictionaries(
        st.sampled_from([*BINARY, "ce-x"]), st.text(st.characters(max_codepoint=255), max_size=20)
    ),
    st.binary(max_size=60) | st.just(structured()),
)
def test_anything_can_be_salvaged(headers: dict[str, str], body: bytes) -> None:
    """Behind the dead letters there is nobody: whatever came is kept."""
    event = salvage(Headers(headers), body)
    assert event.body in (body, b'{"project":"demo"}')  # structured: the data of what was read


def test_salvage_keeps_what_can_be_read() -> None:
    """And what was wrong with it; what the broker said of it stays beside that."""
    event = salvage(Headers({"ce-id": "x", "ce-type": "y" * 5000}), b"?")
    assert (event.id, event.source, len(event.type)) == ("x", "", MAX_ATTRIBUTE)
    assert "CloudEvent" in event.flaw
    told = salvage(Headers({"ce-knativeerrorcode": "500"}), b"")
    assert told.attributes["knativeerrorcode"] == "500"


def test_salvage_of_a_good_event_is_the_event() -> None:
    """Nothing is added."""
    headers = Headers(BINARY | {"ce-time": "2026-01-01T00:00:00Z"})
    assert salvage(headers, b"{}") == parse(headers, b"{}")
