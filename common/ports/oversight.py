"""Port: the queue as a whole, pausing it, and what was used."""

from __future__ import annotations

from typing import Protocol

from common.domain.keys import Caller
from common.domain.oversight import ProjectQueue, Usage, UsageFilter
from common.ports.commands import Origin


class Oversight(Protocol):
    def queues(self, projects: frozenset[str] | None) -> list[ProjectQueue]:
        """By name, those of `projects` (None: all) that are not gone."""
        ...

    def pause(self, project: str, caller: Caller, origin: Origin, *, paused: bool) -> bool:
        """Pause or resume, with its audit row; False when there is no such project."""
        ...

    def usage(self, wanted: UsageFilter) -> list[Usage]:
        """Sums by the dimensions asked for, newest day first."""
        ...
