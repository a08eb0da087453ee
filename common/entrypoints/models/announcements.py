"""Data of the CloudEvents that rdev publishes: the schemas that `dataschema` points at.

Only the generator and tests import them, as those of answers. A consumer must pass over fields it
does not know; a field that is here stays as it is until the type's version changes.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from common.entrypoints.models.resources import CommandId, KeyId, KindName, OutputTotals

PREFIX: Final = "ai.orchard9.rdev."
VERSION: Final = ".v1"


class EventData(BaseModel):
    """Ids and facts; no output, no prompt, no secret."""

    model_config = ConfigDict(extra="allow", frozen=True)


class CommandEvent(EventData):
    """A command is in another state."""

    id: CommandId
    project: str
    kind: KindName
    state: Literal["queued", "running"]


class EventAgent(EventData):
    """What claude reported, without what it said."""

    session_id: str | None
    num_turns: int | None
    cost_usd: float | None
    usage: dict[str, Any] | None


class EventOutcome(EventData):
    """How it ended; a part that would make the event too large is left out."""

    reason: Annotated[str, Field(description="belongs to the state: docs/reference/states.md")]
    exit_code: int | None
    signal: int | None
    orphans_killed: int
    output: OutputTotals
    agent: EventAgent | None


class EndedEvent(EventData):
    """A command has ended; this is its only end."""

    id: CommandId
    project: str
    kind: KindName
    state: Literal["succeeded", "failed", "cancelled", "timed_out", "lost"]
    outcome: EventOutcome


class ProjectEvent(EventData):
    """A project came or went."""

    project: str


class KeyEvent(EventData):
    """A key was made (also by a rotation) or revoked."""

    id: KeyId


class WebhookEvent(EventData):
    """A webhook was disabled: nothing more is sent to it until somebody enables it."""

    id: Annotated[str, Field(pattern=r"^whk_[0-9a-f]{32}$")]
    reason: Literal["gone", "failing", "key_revoked"]


# By the name that webhooks use; the CloudEvents type is PREFIX + name + VERSION.
EVENTS: Final[dict[str, tuple[type[EventData], str]]] = {
    "command.queued": (CommandEvent, "it was accepted, or its `run_at` has come"),
    "command.started": (CommandEvent, "its process runs"),
    "command.succeeded": (EndedEvent, "it ended well"),
    "command.failed": (EndedEvent, "it ended, and not well"),
    "command.cancelled": (EndedEvent, "somebody ended it"),
    "command.timed_out": (EndedEvent, "it waited, ran or was silent for too long"),
    "command.lost": (EndedEvent, "nobody can say how it ended"),
    "project.discovered": (ProjectEvent, "a workspace appeared"),
    "project.removed": (ProjectEvent, "a workspace went away"),
    "key.created": (KeyEvent, "a key was created, or came out of a rotation"),
    "key.revoked": (KeyEvent, "a key was revoked"),
    "webhook.disabled": (WebhookEvent, "a webhook was disabled by rdev"),
}


def type_of(name: str) -> str:
    """The CloudEvents type of an event: `ai.orchard9.rdev.command.lost.v1`."""
    return PREFIX + name + VERSION
