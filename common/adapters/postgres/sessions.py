"""SessionStore on PostgreSQL."""

from __future__ import annotations

import builtins
from uuid import UUID

from common.adapters.postgres import rows
from common.adapters.postgres.pool import Database
from common.domain.session import Session


class PgSessionStore:
    """Sessions, out of the commands themselves."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def list(self, project: str, before: UUID | None, limit: int) -> list[Session]:
        found = self._db.run(
            "session_list", project=project, before=before or rows.HIGHEST_ID, limit=limit
        )
        return [Session(**row) for row in found]

    def get(self, project: str, session_id: str) -> Session | None:
        found: builtins.list[Session] = [
            Session(**row)
            for row in self._db.run("session_get", project=project, session=session_id)
        ]
        return found[0] if found else None
