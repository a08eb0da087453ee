"""Ports: what rdev depends on, and the breakers that stand before it.

A breaker's row is shared by processes that come and go: read when a process first asks, written
when the state changes. Losing the database loses only the sharing; each process still has its own
count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from common.domain.breaker import State

KUBERNETES: Final = "kubernetes"  # the API server


def workspace(project: str) -> str:
    """The name of a project's workspace among the dependencies."""
    return f"workspace/{project}"


@dataclass(frozen=True)
class Row:
    """A stored breaker; `open_for_s` is what is left of its opening by the database's clock."""

    state: State
    failures: int
    open_for_s: float
    detail: str | None


class Dependencies(Protocol):
    """The table. Every method raises Unavailable when the database is away."""

    def read(self, name: str) -> Row | None: ...

    def write(
        self, name: str, state: State, failures: int, open_for_s: float, detail: str | None
    ) -> None:
        """Keep a breaker's state; it counts as checked now."""
        ...

    def take_probe(self, name: str, probe_s: float) -> bool:
        """Whether this caller may try an open dependency: one does, for `probe_s` seconds."""
        ...

    def forget(self, name: str) -> None:
        """It is closed and nobody needs to know (a workspace's: there may be thousands)."""
        ...


class Breaker(Protocol):
    """One breaker. `allow` first, then exactly one of the others with what came of it."""

    def allow(self) -> None:
        """Raises Unavailable (with `retry_after`) while the dependency is not to be asked."""
        ...

    def succeeded(self) -> None: ...

    def failed(self, detail: str, retry_after_s: float | None = None) -> None:
        """`retry_after_s`: it said itself when to come back (429), which opens at once."""
        ...


class Breakers(Protocol):
    def of(self, name: str) -> Breaker: ...
