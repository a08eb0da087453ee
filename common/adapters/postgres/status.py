"""SystemStatus on PostgreSQL: gauges from SQL truth only."""

from __future__ import annotations

from pg8000.exceptions import DatabaseError

from common.adapters.postgres.failures import sqlstate
from common.adapters.postgres.migrate import SCHEMA_VERSION
from common.adapters.postgres.pool import Database
from common.domain.command import Priority
from common.ports.status import Dependency, Numbers

_NO_SUCH_TABLE = "42P01"


class PgStatus:
    """What the system says of itself."""

    code_version = SCHEMA_VERSION

    def __init__(self, db: Database) -> None:
        self._db = db

    def ping(self) -> None:
        self._db.run("ping")

    def schema_version(self) -> tuple[int, int]:
        """(0, 0) for a database that was never migrated."""
        try:
            row = self._db.run("schema_version")[0]
        except DatabaseError as error:
            if sqlstate(error) != _NO_SUCH_TABLE:
                raise
            return 0, 0
        return row["version"], row["min_compatible"]

    def dependencies(self) -> list[Dependency]:
        return [Dependency(**row) for row in self._db.run("dependencies")]

    def numbers(self) -> Numbers:
        waiting = self._db.run("count_waiting")
        outbox = self._db.run("count_outbox")[0]
        depth = {priority.label: 0 for priority in Priority}
        depth |= {Priority(row["priority"]).label: row["n"] for row in waiting}
        return Numbers(
            commands={
                (row["kind"], row["state"]): row["n"] for row in self._db.run("count_commands")
            },
            queue_depth=depth,
            oldest_age_s=max((row["oldest_s"] for row in waiting), default=0.0),
            outbox_pending=outbox["n"],
            outbox_oldest_age_s=outbox["oldest_s"],
            dead_letters={row["reason"]: row["n"] for row in self._db.run("count_dead_letters")},
        )
