"""Use case: an event that could not be handled becomes a visible row, once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from uuid import NAMESPACE_URL, UUID, uuid5

from common.domain.triggers import Inbound
from common.ports.dead_letters import UNREADABLE, DeadLetter, DeadLetters
from common.services import telemetry

MAX_DATA = 64 * 1024
MAX_DETAIL = 500
_STATUS = re.compile(r"[0-9]{3}")  # anybody may write the attribute, and reasons are counted


def letter(attributes: Mapping[str, str], body: bytes, flaw: str = "") -> DeadLetter:
    """What the broker could not deliver; with a `flaw`, nor could anybody read it.

    Its id follows from (source, id), so a repeated delivery is the same row. What has no id is
    known by its content.
    """
    code = attributes.get("knativeerrorcode", "")
    why = UNREADABLE if flaw else code if _STATUS.fullmatch(code) else "failed"
    detail = flaw or attributes.get("knativeerrordest", "")
    return _letter("delivery", attributes, body, f"delivery_{why}", detail)


def inbound_letter(
    event: Inbound,
    reason: str,
    detail: str = "",
    *,
    trigger: UUID | None = None,
    project: str | None = None,
) -> DeadLetter:
    """An event from outside that nothing came of; told apart by the way it came."""
    way = f"{event.channel} {trigger.hex if trigger else ''}"
    made = _letter(way, event.attributes, event.body, reason, detail, known_by=event.identity)
    return DeadLetter(
        **made.__dict__
        | {
            "channel": str(event.channel),
            "trigger_id": trigger,
            "project": project or event.named_project,
        }
    )


def _letter(
    way: str,
    attributes: Mapping[str, str],
    body: bytes,
    reason: str,
    detail: str,
    known_by: str | None = None,
) -> DeadLetter:
    source, event_id = attributes.get("source"), attributes.get("id")
    known_by = known_by or event_id or sha256(body).hexdigest()
    return DeadLetter(
        id=uuid5(NAMESPACE_URL, f"{way}\n{source}\n{known_by}"),
        event_id=event_id,
        source=source,
        type=attributes.get("type"),
        subject=attributes.get("subject"),
        reason=reason,
        detail=detail[:MAX_DETAIL],
        attributes=dict(attributes),
        data=body[:MAX_DATA],
        size=len(body),
    )


class Bury:
    def __init__(self, letters: DeadLetters) -> None:
        self._letters = letters

    def __call__(self, dead: DeadLetter) -> None:
        self._letters.bury(dead)
        telemetry.event_dead.add(1, {"reason": dead.reason})
