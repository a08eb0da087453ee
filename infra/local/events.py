"""CloudEvents over HTTP: read in binary or structured mode, always sent on in binary mode.

Written here because `infra.local` must not import `common`, and because the SDK invents what is
missing (`id`, `time`) where a broker has to refuse.
"""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from infra.local.wire import Headers

STRUCTURED = "application/cloudevents+json"
_BATCH = "application/cloudevents-batch+json"
_REQUIRED = ("specversion", "id", "source", "type")
_NAME = re.compile(r"[a-z0-9]+")
# CloudEvents HTTP binding 3.1.3.2: everything else is percent-encoded, space and quote included.
_UNESCAPED = "".join(map(chr, range(0x21, 0x7F))).replace('"', "").replace("%", "")


class EventError(ValueError):
    """A request or reply that is no CloudEvent."""


@dataclass(frozen=True)
class Event:
    """One CloudEvent; `attributes` hold context attributes and extensions, without content type."""

    attributes: Mapping[str, str]
    data: bytes = b""
    content_type: str | None = None

    def extended(self, **extensions: str) -> "Event":
        return Event({**self.attributes, **extensions}, self.data, self.content_type)

    def to_binary(self) -> Headers:
        """Return the headers that carry this event beside its data."""
        headers = [
            (b"ce-" + name.encode(), quote(value, safe=_UNESCAPED).encode())
            for name, value in self.attributes.items()
        ]
        if self.content_type is not None:
            headers.append((b"content-type", self.content_type.encode("latin-1")))
        headers.append((b"content-length", b"%d" % len(self.data)))
        return headers


def is_event(headers: Headers) -> bool:
    """Tell whether a message claims to be a CloudEvent, valid or not."""
    names = dict(headers)
    return b"ce-specversion" in names or _media_type(names) == STRUCTURED


def parse(headers: Headers, body: bytes) -> Event:
    """Read an event; raise EventError when it is none or is not valid."""
    names = dict(headers)
    media_type = _media_type(names)
    if media_type == _BATCH:
        raise EventError("batches of events are not accepted")
    event = _structured(body) if media_type == STRUCTURED else _binary(names, body)
    missing = [name for name in _REQUIRED if not event.attributes.get(name)]
    if missing:
        raise EventError(f"the event has no {', '.join(missing)}")
    if event.attributes["specversion"] != "1.0":
        raise EventError(f"specversion {event.attributes['specversion']!r} is not 1.0")
    odd = [name for name in event.attributes if not _NAME.fullmatch(name)]
    if odd:
        raise EventError(f"attribute names are a-z and 0-9, not {', '.join(odd)}")
    return event


def _media_type(names: Mapping[bytes, bytes]) -> str:
    return names.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")


def _binary(names: Mapping[bytes, bytes], body: bytes) -> Event:
    attributes = {
        name[3:].decode("latin-1"): unquote(value.decode("latin-1"))
        for name, value in names.items()
        if name.startswith(b"ce-")
    }
    content_type = names.get(b"content-type")
    return Event(attributes, body, content_type.decode("latin-1") if content_type else None)


def _structured(body: bytes) -> Event:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise EventError(f"the event is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise EventError("the event is not a JSON object")
    attributes = {
        name: _attribute(name, value)
        for name, value in document.items()
        if name not in {"data", "data_base64", "datacontenttype"} and value is not None
    }
    content_type = document.get("datacontenttype")
    if not isinstance(content_type, str | None):
        raise EventError("datacontenttype is not text")
    return Event(attributes, _data(document, content_type), content_type or _default_type(document))


def _attribute(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    raise EventError(f"attribute {name} is neither text, number nor boolean")


def _default_type(document: Mapping[str, Any]) -> str | None:
    """Structured JSON data without a content type is JSON (CloudEvents JSON format 3.1)."""
    return "application/json" if "data" in document else None


def _data(document: Mapping[str, Any], content_type: str | None) -> bytes:
    if "data_base64" in document:
        try:
            return base64.b64decode(document["data_base64"], validate=True)
        except (ValueError, TypeError) as error:
            raise EventError(f"data_base64 is not base64: {error}") from error
    if "data" not in document:
        return b""
    data = document["data"]
    is_json = content_type is None or "json" in content_type
    return data.encode() if isinstance(data, str) and not is_json else json.dumps(data).encode()
