"""Port: reading events, for streams and waiters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from common.domain.command import Command
from common.domain.events import Event


@dataclass(frozen=True)
class Page:
    """Events of one command after a seq. `first`: the oldest seq still stored (None: none are).

    `last`: the newest seq ever given, also when its row has expired.
    """

    events: list[Event]
    first: int | None
    last: int


@dataclass(frozen=True)
class Position:
    """A place in a project's stream: everything of transactions below `horizon` was delivered, and
    of each command in `seen` everything up to that seq.
    """

    horizon: int
    seen: dict[UUID, int]


@dataclass(frozen=True)
class ProjectPage:
    """New events of a project in per-command order, and the position after them."""

    events: list[Event]
    position: Position
    more: bool


class EventReader(Protocol):
    def page(self, command_id: UUID, after: int, max_bytes: int) -> Page:
        """One page of a command's events after `after`, about `max_bytes` of data."""
        ...

    def news(self, heads: Sequence[tuple[UUID, int]], max_bytes: int) -> list[Event]:
        """Events after (command, seq) of many commands in one query, ordered by command and seq."""
        ...

    def project_now(self, project: str) -> Position:
        """The position at which a stream of this project that starts now begins."""
        ...

    def project_news(
        self, project: str, position: Position, *, output: bool, limit: int
    ) -> ProjectPage:
        """Events of a project after `position`; output and agent lines only when `output`."""
        ...

    def commands(self, ids: Sequence[UUID]) -> dict[UUID, Command]:
        """Final rows behind `end` events, and liveness of active ones."""
        ...
