"""Ports: the cluster where projects are found, and the registry that keeps what was seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from common.domain.discovery import Found
from common.domain.project import FoundProject


@dataclass(frozen=True)
class Synced:
    """The names of projects that are new, and of those that are gone."""

    appeared: list[str]
    gone: list[str]


class DiscoveryStore(Protocol):
    def own(self, source: str) -> list[str]:
        """From now on this source is the only one; answers the projects that are gone by that."""
        ...

    def begin(self) -> int:
        """The number of a look at the cluster, taken before looking."""
        ...

    def holders(self, source: str) -> dict[str, str]:
        """The lives that have the source's projects (`FoundProject.pod_uid`), by project."""
        ...

    def sync(
        self, source: str, generation: int, found: Sequence[FoundProject], notes: Sequence[str]
    ) -> Synced | None:
        """Make the registry say what a look showed; None when a later look was stored already."""
        ...

    def notes(self) -> list[str]:
        """What is wrong with the source and belongs to no project."""
        ...


class Cluster(Protocol):
    name: str

    def look(self, holders: Mapping[str, str]) -> Found:
        """All projects now, asked live; `holders`: see `merge`. Raises Unavailable."""
        ...

    def watch(self, changed: Callable[[], None]) -> ClusterWatch:
        """Begin to watch from a thread of its own.

        `changed` is called after the first list and after every change, from that thread. A lost
        watch is taken up again, with a new list when the server has forgotten where it was.
        """
        ...


class ClusterWatch(Protocol):
    def found(self, holders: Mapping[str, str]) -> Found | None:
        """All projects as of the last event, as `look` does; None before the first list."""
        ...

    def close(self) -> None:
        """Stop watching; returns when the thread has ended."""
        ...
