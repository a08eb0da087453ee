"""Ports: the registry of projects, and the source that says which exist."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from common.domain.project import FoundProject, Project


class ProjectStore(Protocol):
    def get(self, name: str) -> Project | None:
        """One that is not gone."""
        ...

    def sync(self, found: Sequence[FoundProject], source: str) -> tuple[list[str], list[str]]:
        """Make the registry say what `source` shows now; answers (appeared, gone)."""
        ...

    def list(self) -> list[Project]:
        """All that are not gone, by name."""
        ...


class ProjectSource(Protocol):
    name: str

    def find(self) -> list[FoundProject]:
        """Every project there is now. Raises Unavailable when the source cannot be read."""
        ...
