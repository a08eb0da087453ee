"""CloudEvents over HTTP, as a broker must read and send them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infra.local import events
from infra.local.events import Event, EventError

BINARY = [(b"ce-specversion", b"1.0"), (b"ce-id", b"1"), (b"ce-source", b"/s"), (b"ce-type", b"t")]
STRUCTURED = [(b"content-type", b"application/cloudevents+json; charset=utf-8")]


def structured(**more: Any) -> bytes:
    return json.dumps(
        {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"} | more
    ).encode()


def test_a_binary_event_keeps_its_data_and_content_type_byte_for_byte() -> None:
    """What came in binary mode goes out in binary mode unchanged."""
    headers = [*BINARY, (b"content-type", b"text/x"), (b"ce-traceparent", b"00-a-b-01")]
    event = events.parse(headers, b"\xff\x00")
    assert event.attributes["traceparent"] == "00-a-b-01"
    sent = dict(event.to_binary())
    assert sent == {**dict(headers), b"content-length": b"2"}
    assert event.data == b"\xff\x00"


@pytest.mark.parametrize(
    ("more", "data", "content_type"),
    [
        ({}, b"", None),
        ({"data": {"a": 1}}, b'{"a": 1}', "application/json"),
        ({"data": "text"}, b'"text"', "application/json"),
        ({"data": "text", "datacontenttype": "text/plain"}, b"text", "text/plain"),
        ({"data_base64": "/wA="}, b"\xff\x00", None),
    ],
)
def test_a_structured_event_becomes_binary(
    more: dict[str, Any], data: bytes, content_type: str | None
) -> None:
    """Structured data is unpacked as the CloudEvents JSON format says."""
    event = events.parse(STRUCTURED, structured(**more))
    assert (event.data, event.content_type) == (data, content_type)


def test_numbers_and_booleans_become_text() -> None:
    """Attributes travel as text in headers, whatever their JSON type was."""
    event = events.parse(STRUCTURED, structured(count=3, late=True, none=None))
    assert (event.attributes["count"], event.attributes["late"]) == ("3", "true")
    assert "none" not in event.attributes


def test_attributes_survive_the_way_through_headers() -> None:
    """Spaces, quotes, percents and non-ASCII characters are percent-encoded and come back."""
    odd = 'a "b" 100% ü\r\n'
    event = Event({"specversion": "1.0", "id": odd, "source": "/s", "type": "t"})
    headers = event.to_binary()
    assert all(byte < 0x7F and byte > 0x20 for _, value in headers for byte in value)
    assert events.parse(headers, b"").attributes["id"] == odd


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([], b""),
        (BINARY[1:], b""),
        (BINARY[:-1], b""),
        ([(b"ce-specversion", b"0.3"), *BINARY[1:]], b""),
        ([*BINARY, (b"ce-not_allowed", b"x")], b""),
        ([(b"content-type", b"application/cloudevents-batch+json")], b"[]"),
        (STRUCTURED, b"not json"),
        (STRUCTURED, b"[" * 100_000),
        (STRUCTURED, b"[1]"),
        (STRUCTURED, structured(type="")),
        (STRUCTURED, structured(nested={"a": 1})),
        (STRUCTURED, structured(datacontenttype=5)),
        (STRUCTURED, structured(data_base64="%")),
    ],
)
def test_what_is_no_event_is_refused(headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """Missing or wrong attributes, other versions, batches and broken JSON are errors."""
    with pytest.raises(EventError):
        events.parse(headers, body)


def test_a_message_claims_to_be_an_event_by_its_headers() -> None:
    """Only ce-specversion or the structured content type make a reply an event."""
    assert events.is_event(BINARY)
    assert events.is_event(STRUCTURED)
    assert not events.is_event([(b"content-type", b"application/json")])
