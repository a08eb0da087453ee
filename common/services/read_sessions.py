"""Use case: show the claude sessions of a project."""

from __future__ import annotations

from uuid import UUID

from common.domain.errors import NotFound
from common.domain.keys import Caller
from common.domain.session import SESSION_ID, Session
from common.ports.sessions import SessionStore
from common.services.read_projects import ReadProjects


class ReadSessions:
    """One session or many, of a project that the caller may see."""

    def __init__(self, store: SessionStore, projects: ReadProjects) -> None:
        self._store = store
        self._projects = projects

    def many(self, project: str, before: UUID | None, limit: int, caller: Caller) -> list[Session]:
        """Last used first. Raises NotFound, the same for a foreign project as for none."""
        self._projects.one(project, caller)
        return self._store.list(project, before, limit)

    def one(self, project: str, session_id: str, caller: Caller) -> Session:
        """Raises NotFound."""
        self._projects.one(project, caller)
        known = SESSION_ID.fullmatch(session_id)
        found = self._store.get(project, session_id) if known else None
        if found is None:
            raise NotFound(f"there is no session {session_id[:80]!r} in {project}")
        return found
