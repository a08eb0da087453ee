"""CloudEvents over HTTP, read by us.

Not by the framework's `cloud_event` decorator: it answers `200 OK` with a body, which brokers take
for a failed delivery (docs/decisions/0004). An event carries ids and no authority; what it says is
looked up again.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from cloudevents.exceptions import GenericException
from cloudevents.http import from_http
from starlette.datastructures import Headers

from common.domain.errors import InvalidRequest
from common.domain.events import dumps
from common.entrypoints import strict_json

STRUCTURED: Final = "application/cloudevents+json"
MAX_ATTRIBUTE: Final = 1024


@dataclass(frozen=True)
class IncomingEvent:
    """A CloudEvent. `attributes` has every context attribute as text.

    `data` is its JSON, None when it has none. `body` is its data as it came, whatever it is; of
    what could not be read it is everything, and `flaw` says why.
    """

    id: str
    source: str
    type: str
    subject: str | None
    attributes: dict[str, str]
    data: Any
    body: bytes
    flaw: str = ""

    @property
    def traceparent(self) -> str | None:
        return self.attributes.get("traceparent")


def parse(headers: Headers, body: bytes) -> IncomingEvent:
    """A CloudEvent in binary or structured mode. Raises InvalidRequest."""
    structured = headers.get("content-type", "").startswith(STRUCTURED)
    envelope = strict_json.loads(body) if structured else None
    if isinstance(envelope, dict) and any(name != name.lower() for name in envelope):
        raise InvalidRequest("names of attributes have no capitals")  # the SDK would merge them
    try:
        event = from_http(dict(headers), body, data_unmarshaller=lambda raw: raw)
    except (GenericException, ValueError, TypeError, AttributeError, KeyError) as error:
        raise InvalidRequest(f"this is no CloudEvent: {error}"[:300]) from None
    attributes = {
        name: _text(value) for name, value in event.get_attributes().items() if value is not None
    }
    if "time" not in (envelope if isinstance(envelope, dict) else _binary_attributes(headers)):
        attributes.pop("time", None)  # the SDK invents one
    if not structured:
        attributes = {name: _decoded(value) for name, value in attributes.items()}
    if any(len(value) > MAX_ATTRIBUTE for value in attributes.values()):
        raise InvalidRequest(f"an attribute has more than {MAX_ATTRIBUTE} characters")
    data, raw = _data(envelope) if isinstance(envelope, dict) else (_json(body), body)
    return IncomingEvent(
        id=attributes["id"],
        source=attributes["source"],
        type=attributes["type"],
        subject=attributes.get("subject"),
        attributes=attributes,
        data=data,
        body=raw,
    )


def _binary_attributes(headers: Headers) -> dict[str, str]:
    return {
        name.removeprefix("ce-"): value for name, value in headers.items() if name.startswith("ce-")
    }


def _text(value: Any) -> str:
    """The canonical text of an attribute (CloudEvents 1.0.2, 3.1)."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _decoded(value: str) -> str:
    """Attributes in headers are percent-encoded UTF-8 (CloudEvents HTTP binding, 3.1.3.2)."""
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise InvalidRequest("an attribute is not percent-encoded UTF-8") from None


def _data(envelope: dict[str, Any]) -> tuple[Any, bytes]:
    if "data_base64" not in envelope:
        data = envelope.get("data")
        return data, b"" if data is None else dumps(data)
    try:
        raw = base64.b64decode(envelope["data_base64"], validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise InvalidRequest("data_base64 is not base64") from None
    return _json(raw), raw


def salvage(headers: Headers, body: bytes) -> IncomingEvent:
    """Whatever came, with what can be read of it: behind the dead letters there is nobody."""
    try:
        return parse(headers, body)
    except InvalidRequest as error:
        return unreadable(headers, body, error.detail)


def unreadable(headers: Headers, body: bytes, flaw: str) -> IncomingEvent:
    """What is left of an event that cannot be read."""
    found = _binary_attributes(headers)
    attributes = {name: value[:MAX_ATTRIBUTE] for name, value in found.items()}
    return IncomingEvent(
        id=attributes.get("id", ""),
        source=attributes.get("source", ""),
        type=attributes.get("type", ""),
        subject=attributes.get("subject"),
        attributes=attributes,
        data=None,
        body=body,
        flaw=flaw,
    )


def _json(body: bytes) -> Any:
    try:
        return strict_json.loads(body)
    except InvalidRequest:
        return None
