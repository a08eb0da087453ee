"""Use case: an event that could not be handled becomes a visible row, once."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from uuid import NAMESPACE_URL, uuid5

from common.ports.upkeep import DeadLetter, Upkeep
from common.services import telemetry

MAX_DATA = 64 * 1024


def letter(attributes: Mapping[str, str], body: bytes) -> DeadLetter:
    """A dead letter; its id follows from (source, id), so a repeated delivery is the same row.

    What has no id is known by its content.
    """
    source, event_id = attributes.get("source"), attributes.get("id")
    return DeadLetter(
        id=uuid5(NAMESPACE_URL, f"{source}\n{event_id or sha256(body).hexdigest()}"),
        event_id=event_id,
        source=source,
        type=attributes.get("type"),
        subject=attributes.get("subject"),
        reason=f"delivery_{attributes.get('knativeerrorcode', 'failed')}",
        detail=attributes.get("knativeerrordest", ""),
        attributes=dict(attributes),
        data=body[:MAX_DATA],
    )


class Bury:
    def __init__(self, upkeep: Upkeep) -> None:
        self._upkeep = upkeep

    def __call__(self, dead: DeadLetter) -> None:
        self._upkeep.bury(dead)
        telemetry.event_dead.add(1, {"reason": dead.reason})
