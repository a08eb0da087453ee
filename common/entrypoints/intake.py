"""Events from outside, as whoever sent them is answered: what is wrong with them, and what became
of them.
"""

from __future__ import annotations

import base64
import re
from typing import Any, Final

from starlette.datastructures import Headers

from common.domain import identifiers
from common.domain.errors import InvalidRequest, PayloadTooLarge, RdevError, UnsupportedMediaType
from common.domain.events import dumps, timestamp
from common.domain.resources import match_resource
from common.domain.triggers import MAX_EVENT, Channel, Inbound
from common.entrypoints import cloud_events, strict_json
from common.entrypoints.cloud_events import STRUCTURED, IncomingEvent
from common.ports.dead_letters import DeadLetter
from common.services.manage_triggers import DryRun
from common.services.receive import Received

BATCH: Final = "application/cloudevents-batch+json"
MAX_BATCH: Final = 100  # events of one request
_NAME: Final = re.compile(r"[a-z0-9]{1,64}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_STRUCTURED: Final = Headers({"content-type": STRUCTURED})


def inbound(event: IncomingEvent, channel: Channel) -> Inbound:
    """The event as the services take it. Raises InvalidRequest and PayloadTooLarge."""
    if event.flaw:
        raise InvalidRequest(event.flaw)
    for name, value in event.attributes.items():
        if not _NAME.fullmatch(name):
            raise InvalidRequest(f"{name[:60]!r} is no attribute's name (a to z and 0 to 9)")
        if _CONTROL.search(value):
            raise InvalidRequest(f"{name}: control characters are not allowed")
    if event.attributes.get("specversion") != "1.0":
        raise InvalidRequest("specversion must be 1.0")
    if not (event.id and event.source and event.type):
        raise InvalidRequest("id, source and type must not be empty")
    if len(event.body) > MAX_EVENT:
        raise PayloadTooLarge(f"the data of an event may have {MAX_EVENT} bytes at most")
    if event.data is None and _claims_json(event):
        raise InvalidRequest("its data is not JSON, as its content type says")
    return Inbound(channel, event.attributes, event.data, event.body)


def _claims_json(event: IncomingEvent) -> bool:
    kind = event.attributes.get("datacontenttype", "application/json").partition(";")[0].strip()
    json = kind == "application/json" or kind.endswith("+json")
    return json and event.body.strip() not in (b"", b"null")


def events_of(headers: Headers, body: bytes) -> list[Inbound]:
    """One event, in binary or structured mode, or a batch. All are read before any is taken.

    Raises InvalidRequest and PayloadTooLarge; the event of a batch is named by its number.
    """
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("send the body without content-encoding")
    if not headers.get("content-type", "").startswith(BATCH):
        return [inbound(cloud_events.parse(headers, body), Channel.HTTP)]
    batch = strict_json.loads(body)
    if not isinstance(batch, list):
        raise InvalidRequest("a batch is a JSON array of events")
    if not 0 < len(batch) <= MAX_BATCH:
        raise InvalidRequest(f"a batch has 1 to {MAX_BATCH} events")
    return [_item(number, item) for number, item in enumerate(batch)]


def _item(number: int, item: Any) -> Inbound:
    try:
        return event_of(item, Channel.HTTP)
    except RdevError as error:
        raise type(error)(f"event {number}: {error.detail}") from None


def event_of(envelope: Any, channel: Channel) -> Inbound:
    """An event in the JSON format. Raises InvalidRequest and PayloadTooLarge."""
    return inbound(cloud_events.parse(_STRUCTURED, dumps(envelope)), channel)


def received_resource(received: Received) -> dict[str, Any]:
    """What became of an event, for who sent it."""
    return {
        "id": received.event.id,
        "source": received.event.source,
        "outcome": received.outcome,
        "triggers": [
            {
                "trigger_id": identifiers.show(identifiers.TRIGGER, result.match.trigger_id),
                "duplicate": result.duplicate,
            }
            | {
                name: value
                for name, value in match_resource(result.match).items()
                if name in ("outcome", "command_id", "reason")
            }
            for result in received.results
        ],
    }


def dry_run_resource(done: DryRun) -> dict[str, Any]:
    """What an event would give."""
    command = done.command
    would = {
        "project": command.project,
        "kind": str(command.kind),
        "priority": command.priority.label,
        "labels": command.labels,
        "spec": command.spec | {"env": dict.fromkeys(command.env)},
    } if command else None  # fmt: skip
    return {
        "matches": done.matches,
        "command": would,
        "reason": done.reason,
        "detail": done.detail,
    }


def letter_resource(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter without its data."""
    at = letter.created_at
    trigger = letter.trigger_id
    return {
        "id": identifiers.show(identifiers.LETTER, letter.id),
        "created_at": timestamp(at) if at else None,
        "reason": letter.reason,
        "detail": letter.detail,
        "channel": letter.channel,
        "project": letter.project,
        "trigger_id": identifiers.show(identifiers.TRIGGER, trigger) if trigger else None,
        "event_id": letter.event_id,
        "source": letter.source,
        "type": letter.type,
        "subject": letter.subject,
        "size": letter.size,
        "replayable": letter.whole,
        "replayed_at": timestamp(letter.replayed_at) if letter.replayed_at else None,
    }


def whole_letter_resource(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter with its attributes and data: JSON where it is some, else base64."""
    shown = letter_resource(letter) | {
        "attributes": letter.attributes,
        "data": None,
        "data_base64": None,
    }
    try:
        return shown | {"data": strict_json.loads(letter.data) if letter.data else None}
    except InvalidRequest:
        return shown | {"data_base64": base64.b64encode(letter.data).decode()}
