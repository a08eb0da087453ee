"""CloudEvents over HTTP, read by us.

Not by the framework's `cloud_event` decorator: it answers `200 OK` with a body, which brokers take
for a failed delivery (docs/decisions/0004). An event carries ids and no authority; what it says is
looked up again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from cloudevents.exceptions import GenericException
from cloudevents.http import from_http
from starlette.datastructures import Headers

from common.domain.errors import InvalidRequest
from common.entrypoints import strict_json

MAX_ATTRIBUTE: Final = 1024


@dataclass(frozen=True)
class IncomingEvent:
    """A CloudEvent. `attributes` has every context attribute as text.

    `data` is its JSON, None when it has none: data that is something else is in `body`.
    """

    id: str
    source: str
    type: str
    subject: str | None
    attributes: dict[str, str]
    data: Any
    body: bytes

    @property
    def traceparent(self) -> str | None:
        return self.attributes.get("traceparent")


def parse(headers: Headers, body: bytes) -> IncomingEvent:
    """A CloudEvent in binary or structured mode. Raises InvalidRequest."""
    structured = headers.get("content-type", "").startswith("application/cloudevents+json")
    envelope = strict_json.loads(body) if structured else None
    try:
        event = from_http(dict(headers), body, data_unmarshaller=lambda raw: raw)
    except (GenericException, ValueError, TypeError, AttributeError, KeyError) as error:
        raise InvalidRequest(f"this is no CloudEvent: {error}"[:300]) from None
    attributes = {
        name: str(value) for name, value in event.get_attributes().items() if value is not None
    }
    if any(len(value) > MAX_ATTRIBUTE for value in attributes.values()):
        raise InvalidRequest(f"an attribute has more than {MAX_ATTRIBUTE} characters")
    return IncomingEvent(
        id=attributes["id"],
        source=attributes["source"],
        type=attributes["type"],
        subject=attributes.get("subject"),
        attributes=attributes,
        data=envelope.get("data") if isinstance(envelope, dict) else _json(body),
        body=body,
    )


def salvage(headers: Headers, body: bytes) -> IncomingEvent:
    """Whatever came, with what can be read of it: behind the dead letters there is nobody."""
    try:
        return parse(headers, body)
    except InvalidRequest as error:
        attributes = {
            name.removeprefix("ce-"): value[:MAX_ATTRIBUTE]
            for name, value in headers.items()
            if name.startswith("ce-")
        }
        attributes.setdefault("knativeerrorcode", "unreadable")
        attributes.setdefault("knativeerrordest", error.detail)
        return IncomingEvent(
            id=attributes.get("id", ""),
            source=attributes.get("source", ""),
            type=attributes.get("type", ""),
            subject=attributes.get("subject"),
            attributes=attributes,
            data=None,
            body=body,
        )


def _json(body: bytes) -> Any:
    try:
        return strict_json.loads(body)
    except InvalidRequest:
        return None
