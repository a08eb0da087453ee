"""common/entrypoints/intake.py: events in every mode, as the CloudEvents SDK sends them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cloudevents.conversion import to_binary, to_dict, to_structured
from cloudevents.http import CloudEvent
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from common.domain.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType
from common.domain.triggers import MAX_EVENT, Channel, Inbound
from common.entrypoints.intake import BATCH, MAX_BATCH, event_of, events_of

ATTRIBUTES = {
    "type": "com.example.t",
    "source": "/ci",
    "id": "7",
    "time": "2026-01-01T00:00:00+00:00",
    "subject": "main",
    "datacontenttype": "application/json",
    "traceparent": "00-a-b-01",
}
DATA = {"ref": "it's é \u2028", "list": [1, None]}
PLAIN = {"specversion": "1.0", "id": "7", "source": "/ci", "type": "t"}


def sent(mode: str, attributes: dict[str, str], data: Any) -> tuple[Headers, bytes]:
    """As the SDK puts it on the wire."""
    event = CloudEvent(attributes, data)
    if mode == "binary":
        headers, body = to_binary(event, data_marshaller=lambda d: json.dumps(d).encode())
    elif mode == "structured":
        headers, body = to_structured(event)
    else:
        headers, body = {"content-type": BATCH}, json.dumps([to_dict(event)] * 2).encode()
    return Headers(headers), body


@pytest.mark.parametrize("mode", ["binary", "structured", "batch"])
def test_what_the_sdk_sends_is_what_is_read(mode: str) -> None:
    """Every attribute, and the data to the character."""
    for event in events_of(*sent(mode, ATTRIBUTES, DATA)):
        assert event.attributes == ATTRIBUTES | {"specversion": "1.0"}
        assert (event.data, json.loads(event.body)) == (DATA, DATA)
        assert event.channel is Channel.HTTP


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(
        st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from("abc"), x, max_size=3),
    max_leaves=5,
)  # fmt: skip
WORDS = st.text("abcXYZ09-_./:", min_size=1, max_size=20)


@given(st.sampled_from(["binary", "structured", "batch"]), WORDS, WORDS, JSON)
def test_ids_and_data_come_through_every_mode(mode: str, id_: str, source: str, data: Any) -> None:
    """The same event is the same event, however it is sent."""
    attributes = {"type": "t", "source": source, "id": id_, "datacontenttype": "application/json"}
    [first, *_] = events_of(*sent(mode, attributes, data))
    assert (first.id, first.source, first.data) == (id_, source, data)


def test_an_event_needs_no_data() -> None:
    """In any mode; the time that the SDK makes up is not the event's."""
    headers = Headers({f"ce-{name}": value for name, value in PLAIN.items()})
    [binary] = events_of(headers, b"")
    structured = event_of(PLAIN, Channel.BROKER)
    assert binary.attributes == structured.attributes == PLAIN
    assert (binary.data, binary.body, structured.body) == (None, b"", b"")
    assert structured.channel is Channel.BROKER


def test_attributes_in_headers_are_percent_encoded() -> None:
    """As the HTTP binding says; what only looks like it stays."""
    given_ = PLAIN | {"subject": "%C3%A9%20100%"}
    [event] = events_of(Headers({f"ce-{n}": v for n, v in given_.items()}), b"")
    assert event.subject == "é 100%"


def test_data_in_base64_is_read() -> None:
    """JSON when it is some; else there are no values in it."""
    coded = base64.b64encode(b'{"a":1}').decode()
    assert event_of(PLAIN | {"data_base64": coded}, Channel.HTTP).data == {"a": 1}
    text = PLAIN | {"data_base64": base64.b64encode(b"\xff").decode()}
    octets = {"datacontenttype": "application/octet-stream"}
    event = event_of(text | octets, Channel.HTTP)
    assert (event.data, event.body) == (None, b"\xff")


def test_extensions_are_written_canonically() -> None:
    """Booleans and integers of the JSON format as the specification writes them."""
    event = event_of(PLAIN | {"flag": True, "count": 7, "gone": None}, Channel.HTTP)
    assert (event.attributes["flag"], event.attributes["count"]) == ("true", "7")
    assert "gone" not in event.attributes


@pytest.mark.parametrize(
    "change",
    [
        {"id": ""}, {"source": ""}, {"type": ""}, {"id": None}, {"specversion": "0.3"},
        {"Up": "x"}, {"a-b": "x"}, {"x" * 65: "x"}, {"id": "a\nb"}, {"subject": "a\x7fb"},
        {"subject": "x" * 1025}, {"data_base64": "!"}, {"data_base64": 7},
        {"data_base64": "eHg="},
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_event_is_a_bad_request(change: dict[str, Any]) -> None:
    """Before anything is taken; of a batch, with its number."""
    wrong = {k: v for k, v in (PLAIN | change).items() if v is not None}
    with pytest.raises(InvalidRequest):
        event_of(wrong, Channel.HTTP)
    batch = json.dumps([PLAIN, wrong]).encode()
    with pytest.raises(InvalidRequest, match="event 1: "):
        events_of(Headers({"content-type": BATCH}), batch)


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"7", b"[7]", b"[[]]", b"[{}]", b"not json", b'[{"a":1,"a":1}]',
     json.dumps([PLAIN] * (MAX_BATCH + 1)).encode()],
    ids=lambda body: repr(body[:20]),
)  # fmt: skip
def test_what_is_no_batch_is_a_bad_request(body: bytes) -> None:
    """1 to 100 events in an array."""
    with pytest.raises(InvalidRequest):
        events_of(Headers({"content-type": BATCH}), body)


def test_an_event_has_64_kib_at_most() -> None:
    """In every mode; a batch may have more, its events not."""
    fits, large = ["x" * (MAX_EVENT - 4)], ["x" * MAX_EVENT]
    for mode in ("binary", "structured", "batch"):
        attributes = ATTRIBUTES
        assert events_of(*sent(mode, attributes, fits))
        with pytest.raises(PayloadTooLarge):
            events_of(*sent(mode, attributes, large))


@pytest.mark.parametrize(
    ("kind", "body", "good"),
    [
        ("application/json", b"not json", False),
        ("application/vnd.x+json; charset=utf-8", b"{", False),
        ("application/json", b"null", True),
        ("application/json", b"  ", True),
        ("text/plain", b"hello", True),
        ("application/xml", b"<a/>", True),
    ],
)
def test_data_is_what_its_type_says(kind: str, body: bytes, good: bool) -> None:
    """What says to be JSON must be some; other data has no values, and is no flaw."""
    headers = Headers({f"ce-{n}": v for n, v in PLAIN.items()} | {"content-type": kind})
    if good:
        [event] = events_of(headers, body)
        assert isinstance(event, Inbound)
        assert event.data is None
    else:
        with pytest.raises(InvalidRequest, match="not JSON"):
            events_of(headers, body)


def test_an_encoded_body_is_not_opened() -> None:
    """It could be a bomb."""
    with pytest.raises(UnsupportedMediaType):
        events_of(Headers({"content-type": BATCH, "content-encoding": "gzip"}), b"")
