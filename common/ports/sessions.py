"""Port: claude's sessions, as the commands that worked in them tell."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from common.domain.session import Session


class SessionStore(Protocol):
    def list(self, project: str, before: UUID | None, limit: int) -> list[Session]:
        """The last used first: those whose newest command is older than `before`."""
        ...

    def get(self, project: str, session_id: str) -> Session | None: ...
