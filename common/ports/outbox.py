"""Ports: events on their way out (rows first, then the broker), and the runner's bell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID


@dataclass(frozen=True)
class OutgoingEvent:
    """A CloudEvent: ids only, no output, no secret; `id` is stable over retries.

    `webhooks`: an endpoint may want to hear it.
    """

    id: UUID
    type: str
    subject: str
    data: dict[str, Any]
    traceparent: str | None = None
    webhooks: bool = False


class Outbox(Protocol):
    def take(self, ids: Sequence[UUID]) -> list[OutgoingEvent]:
        """The rows with these ids that are still unsent."""
        ...

    def take_left(self, limit: int) -> list[OutgoingEvent]:
        """The oldest rows nobody published in time; each is given to one taker for 5 s."""
        ...

    def sent(self, ids: Sequence[UUID]) -> None:
        """Forget rows the broker has accepted."""
        ...


class Publisher(Protocol):
    def publish(self, event: OutgoingEvent) -> None:
        """Hand one event to the broker. Raises Unavailable when it did not take it."""
        ...


class RunnerBell(Protocol):
    def ring(self, project: str) -> None:
        """Tell the runner directly (not through the broker) to look at a project. Never raises."""
        ...
