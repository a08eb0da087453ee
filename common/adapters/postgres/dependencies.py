"""Dependencies and DiscoveryStore on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from common.adapters.postgres.parameters import jsonb, printable
from common.adapters.postgres.pool import Database
from common.domain.breaker import State
from common.domain.project import FoundProject
from common.ports.dependencies import Row
from common.ports.discovery import Synced
from common.services import telemetry

log = telemetry.logger("rdev.projects")


class PgDependencies:
    """The breakers' rows."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def read(self, name: str) -> Row | None:
        row = self._db.one("dependency", name=name)
        if row is None:
            return None
        return Row(State(row["state"]), row["failures"], row["open_for_s"], row["detail"])

    def write(
        self, name: str, state: State, failures: int, open_for_s: float, detail: str | None
    ) -> None:
        self._db.run(
            "dependency_write",
            name=name,
            state=str(state),
            failures=failures,
            open_for_s=open_for_s,
            detail=None if detail is None else printable(detail),
        )

    def take_probe(self, name: str, probe_s: float) -> bool:
        return bool(self._db.run("dependency_probe", name=name, probe_s=probe_s)[0]["mine"])

    def forget(self, name: str) -> None:
        self._db.run("dependency_forget", name=name)


class PgDiscoveryStore:
    """The registry of projects, as views of a cluster write it."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def own(self, source: str) -> list[str]:
        return [row["name"] for row in self._db.run("discovery_own", source=source)]

    def begin(self) -> int:
        return int(self._db.run("discovery_begin")[0]["generation"])

    def holders(self, source: str) -> dict[str, str]:
        found = self._db.run("discovery_holders", source=source)
        return {row["name"]: row["pod_uid"] for row in found}

    def sync(
        self, source: str, generation: int, found: Sequence[FoundProject], notes: Sequence[str]
    ) -> Synced | None:
        answer = self._db.one(
            "discovery_sync",
            source=source,
            generation=generation,
            found=jsonb([asdict(project) for project in found]),
            notes=jsonb(list(notes)),
        )
        assert answer is not None
        if answer["stale"]:
            return None
        for name in answer["refused"]:
            log.warning("project belongs to another source", project=name, source=source)
        return Synced(answer["appeared"], answer["vanished"])

    def notes(self) -> list[str]:
        return [row["note"] for row in self._db.run("discovery_notes")]
