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
    """A CloudEvent. `attributes` has every context attribute as text; `data` is JSON or None."""

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
    if structured:
        strict_json.loads(body)
    try:
        event = from_http(dict(headers), body, data_unmarshaller=lambda raw: raw)
    except (GenericException, ValueError, TypeError) as error:
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
        data=_data(event.get_data()),
        body=body,
    )


def _data(raw: Any) -> Any:
    if isinstance(raw, bytes | str) and raw:
        return strict_json.loads(raw if isinstance(raw, bytes) else raw.encode())
    return raw or None
