"""ProjectStore on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from common.adapters.postgres import rows
from common.adapters.postgres.parameters import jsonb
from common.adapters.postgres.pool import Database
from common.domain.project import FoundProject, Project
from common.services import telemetry

log = telemetry.logger("rdev.projects")


class PgProjectStore:
    """The registry: what its sources showed last."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def get(self, name: str) -> Project | None:
        found = self._db.run("project_list", names=[name])
        return rows.to_project(found[0], name) if found else None

    def sync(self, found: Sequence[FoundProject], source: str) -> tuple[list[str], list[str]]:
        answer = self._db.one(
            "project_sync", source=source, found=jsonb([asdict(project) for project in found])
        )
        assert answer is not None
        for name in answer["refused"]:
            log.warning("project belongs to another source", project=name, source=source)
        return answer["appeared"], answer["vanished"]

    def list(self) -> list[Project]:
        return [
            rows.to_project(row, row["name"]) for row in self._db.run("project_list", names=None)
        ]
