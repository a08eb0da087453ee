"""Triggers: "when an event like this arrives, run this command there".

Events carry no authority. What one may do is said by a trigger, which runs with the rights that its
owner has at that moment, and never in a project that its command does not name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from common.domain import event_filters, identifiers
from common.domain.keys import Caller, RateLimit

COMMAND_REQUESTED: Final = "ai.orchard9.rdev.command.requested.v1"
OWN_SOURCE: Final = "/rdev"
MAX_EVENT: Final = (
    64 * 1024
)  # bytes of data; intermediaries need not forward more (CloudEvents 1.0)
MAX_TRIGGERS: Final = 200  # of all keys together: every event is compared with each of them
STALE: Final = timedelta(days=30)  # as long as seen events are kept, so older ones could run twice


class Channel(StrEnum):
    """How an event came."""

    HTTP = "http"  # POST /v1/events, with a key that has events:write
    GITHUB = "github"  # signed with the trigger's secret
    BROKER = "broker"  # from anybody in the cluster


class Outcome(StrEnum):
    """What became of an event at a trigger."""

    SUBMITTED = "submitted"
    REFUSED = "refused"


@dataclass(frozen=True)
class Trigger:
    """A stored trigger. `command` has no secrets: they are in `sealed_parts`."""

    id: UUID
    name: str
    key_id: UUID
    filter: dict[str, Any]
    command: dict[str, Any]
    accept: frozenset[str]
    rate_limit: RateLimit
    created_at: datetime
    updated_at: datetime
    enabled: bool = True
    version: int = 1
    sealed_parts: bytes | None = field(default=None, repr=False)

    @property
    def takes_data(self) -> bool:
        """Whether the command comes whole from the event's data."""
        return self.command.get("from") == "data"

    @property
    def projects(self) -> frozenset[str]:
        """Where its commands may run."""
        return frozenset(self.command["projects"] if self.takes_data else [self.command["project"]])

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset(self.command["kinds"] if self.takes_data else [self.command["kind"]])

    def is_for(self, event: Inbound) -> bool:
        """Whether the filter fits, and a command from data is one that it may be."""
        if not event_filters.matches(self.filter, event.attributes):
            return False
        if not self.takes_data:
            return True
        data = event.data if isinstance(event.data, dict) else {}
        project, kind = data.get("project"), data.get("kind")
        named = isinstance(project, str) and isinstance(kind, str)
        return named and project in self.projects and kind in self.kinds


@dataclass(frozen=True)
class Inbound:
    """An event from outside; `body` is its data as it came."""

    channel: Channel
    attributes: Mapping[str, str]
    data: Any
    body: bytes = field(repr=False)

    @property
    def id(self) -> str:
        return self.attributes.get("id", "")

    @property
    def source(self) -> str:
        return self.attributes.get("source", "")

    @property
    def type(self) -> str:
        return self.attributes.get("type", "")

    @property
    def subject(self) -> str | None:
        return self.attributes.get("subject")

    @property
    def identity(self) -> str:
        """What tells it from others of its source.

        GitHub signs the body and not the header with the id, which anybody can write anew.
        """
        if self.channel is Channel.GITHUB:
            return "sha256:" + hashlib.sha256(self.body).hexdigest()
        return self.id

    @property
    def is_ours(self) -> bool:
        """Whether rdev says to have sent it."""
        return self.source == OWN_SOURCE or self.source.startswith(OWN_SOURCE + "/")

    @property
    def named_project(self) -> str | None:
        """The project that a request for a command names."""
        wanted = self.data.get("project") if isinstance(self.data, dict) else None
        return wanted if self.type == COMMAND_REQUESTED and isinstance(wanted, str) else None

    def is_stale(self, now: datetime) -> bool:
        """Whether its own time is too long ago; one without a readable time is not."""
        try:
            at = datetime.fromisoformat(self.attributes.get("time", ""))
        except ValueError:
            return False
        return at.tzinfo is not None and at < now - STALE

    def seen_as(self, trigger: UUID) -> bytes:
        """What makes it once per trigger. Lengths keep (a, bc) apart from (ab, c)."""
        parts = (trigger.hex, self.source, self.identity)
        text = "".join(f"{len(part)}:{part}" for part in parts)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True)
class Match:
    """What became of one event at one trigger that was for it. `number` grows."""

    trigger_id: UUID
    event_id: str
    source: str
    type: str
    outcome: Outcome
    command_id: UUID | None = None
    reason: str | None = None
    detail: str = ""
    number: int = 0
    at: datetime | None = None

    @property
    def id(self) -> UUID:
        return identifiers.numbered(self.number)


@dataclass(frozen=True)
class Owner:
    """Whose rights a trigger has now. `status`: ok, revoked, expired or unknown."""

    status: str
    caller: Caller | None = None
