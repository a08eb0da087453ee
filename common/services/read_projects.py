"""Use case: show projects. What a key may not see is not there."""

from __future__ import annotations

from common.domain.errors import NotFound
from common.domain.keys import Caller
from common.domain.project import Project
from common.ports.projects import ProjectStore


class ReadProjects:
    def __init__(self, store: ProjectStore) -> None:
        self._store = store

    def many(self, caller: Caller) -> list[Project]:
        return [p for p in self._store.list() if caller.sees(p.name)]

    def one(self, name: str, caller: Caller) -> Project:
        """Raises NotFound, the same for a foreign project as for none."""
        project = self._store.get(name) if caller.sees(name) else None
        if project is None:
            raise NotFound(f"there is no project {name[:80]!r}")
        return project
