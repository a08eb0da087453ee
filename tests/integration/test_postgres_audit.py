"""The audit trail on a real server: what somebody with the database in his hands leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from common.adapters.postgres.audit import PgAuditLog
from common.adapters.postgres.connection import Connection
from common.adapters.postgres.keys import PgKeyStore
from common.adapters.postgres.pool import Database
from common.adapters.postgres.target import Target
from common.adapters.postgres.upkeep import PgUpkeep
from common.domain.audit import NewEntry
from common.ports.upkeep import Retention
from common.services.read_audit import ReadAudit
from common.services.seal_audit import SealAudit

RunSql = Callable[..., list[list[object]]]


class Trail:
    """A sealed trail of ten entries."""

    def __init__(self, url: str, run_sql: RunSql) -> None:
        self.db = Database(url)
        self.log = PgAuditLog(self.db)
        self.url, self._run = url, run_sql

    def sql(self, text: str) -> list[list[object]]:
        return self._run(text, self.url)

    def grow(self, count: int) -> None:
        at = datetime.now(UTC)
        row = NewEntry(at, None, "request.refused", "GET /x", None, {"n": 1}, "r", None, None)
        self.log.record([row] * count)

    def verdict(self) -> tuple[int, int | None, str | None]:
        """Links that hold, the first broken entry, and why."""
        found = ReadAudit(self.log).verify()
        return found.count, found.broken, found.reason


@pytest.fixture
def trail(database_url: str, run_sql: RunSql) -> Iterator[Trail]:
    made = Trail(database_url, run_sql)
    made.grow(10)
    SealAudit(made.log)()
    yield made
    made.db.close()


def test_an_untouched_trail_holds(trail: Trail) -> None:
    """Also when it has grown since, and when the session's settings are others."""
    trail.grow(1)
    assert trail.verdict() == (10, None, None)
    trail.sql("ALTER DATABASE " + str(trail.sql("SELECT current_database()")[0][0])
              + " SET TimeZone TO 'Asia/Tokyo'")  # fmt: skip
    assert trail.verdict() == (10, None, None)
    assert SealAudit(trail.log)() == 1


@pytest.mark.parametrize(
    ("tampering", "verdict"),
    [
        ("UPDATE audit_log SET detail = '{}' WHERE id = 4", (3, 4, "changed")),
        ("UPDATE audit_log SET at = at - interval '1 us' WHERE id = 4", (3, 4, "changed")),
        ("DELETE FROM audit_log WHERE id = 4", (3, 4, "missing")),
        (
            "DELETE FROM audit_log WHERE id = 4; DELETE FROM audit_chain WHERE row_id = 4",
            (3, 5, "gap"),
        ),
        (
            (
                "DELETE FROM audit_log WHERE id = 4; DELETE FROM audit_chain WHERE row_id = 4;"
                "UPDATE audit_chain SET seq = seq - 1 WHERE seq = 5"
            ),
            (3, 5, "changed"),
        ),
        ("UPDATE audit_chain SET hash = '\\x00' WHERE seq = 4", (3, 4, "changed")),
        (
            (
                "INSERT INTO audit_log (id, at, action, target) OVERRIDING SYSTEM VALUE"
                " VALUES (0, now() - interval '1 day', 'key.created', 'x')"
            ),
            (10, 0, "inserted"),
        ),
    ],
)
def test_the_first_broken_entry_is_named(
    trail: Trail, tampering: str, verdict: tuple[int, int, str]
) -> None:
    """Row 73: an entry changed, taken out (with or without its link) or put in between shows."""
    trail.sql(tampering)
    assert trail.verdict() == verdict


@pytest.mark.parametrize("away", ["0 s", "9 hours"])
def test_an_entry_that_commits_late_is_sealed_late(trail: Trail, away: str) -> None:
    """A lower number that becomes visible after higher ones were sealed is no break.

    Nor is it one when nothing was sealed for a night, before the next seal or after it.
    """
    slow = Connection(Target.parse(trail.url), application_name="test")
    slow.script("BEGIN")
    slow.script("INSERT INTO audit_log (action, target) VALUES ('command.created', 'late')")
    trail.grow(3)
    assert SealAudit(trail.log)() == 3
    slow.script("COMMIT")
    slow.close()
    trail.sql(
        f"UPDATE audit_chain SET sealed_at = sealed_at - interval '{away}';"
        f"UPDATE audit_log SET at = at - interval '{away}' WHERE target = 'late'"
    )
    assert trail.verdict() == (13, None, None)
    assert SealAudit(trail.log)() == 1
    assert trail.verdict() == (14, None, None)
    assert SealAudit(trail.log)() == 0


def test_retention_takes_the_oldest_and_leaves_a_chain_that_holds(trail: Trail) -> None:
    """What is left begins behind the last link that went; nothing younger than 30 days goes."""
    trail.sql("UPDATE audit_log SET at = at - interval '500 days' WHERE id <= 4")
    trail.sql("DELETE FROM audit_chain")
    SealAudit(trail.log)()
    upkeep = PgUpkeep(trail.db)
    assert upkeep.drop_expired(Retention(audit_days=0))["audit_log"] == 4
    assert trail.verdict() == (6, None, None)
    trail.grow(2)
    SealAudit(trail.log)()
    assert trail.verdict() == (8, None, None)
    trail.sql("UPDATE audit_log SET target = 'y' WHERE id = 5")
    assert trail.verdict() == (0, 5, "changed")


@pytest.mark.row(73)
def test_the_applications_role_can_append_and_nothing_else(trail: Trail) -> None:
    """It works with every right it needs, and cannot rewrite the trail, its chain or the schema."""
    trail.sql(
        "DROP ROLE IF EXISTS rdev_app; CREATE ROLE rdev_app LOGIN;"
        "SELECT grant_application('rdev_app')"
    )
    try:
        target = Target.parse(trail.url)
        app = Database(f"postgresql://rdev_app@/{target.database}?host={target.directory}")
        log = PgAuditLog(app)
        log.record([NewEntry(datetime.now(UTC), None, "a", "t", None, {}, None, None, None)])
        assert SealAudit(log)() == 1
        assert ReadAudit(log).verify().count == 11
        assert PgUpkeep(app).make_partitions(9) >= 0
        PgUpkeep(app).drop_expired(Retention())
        assert PgKeyStore(app).list(None, 1) == []
        for forbidden in (
            "UPDATE audit_log SET target = 'x'",
            "DELETE FROM audit_log",
            "TRUNCATE audit_log",
            "INSERT INTO audit_chain (seq, row_id, hash) VALUES (99, 99, '')",
            "UPDATE audit_chain SET hash = ''",
            "DELETE FROM audit_chain",
            "UPDATE audit_anchor SET seq = 0",
            "UPDATE schema_migrations SET sha256 = ''",
            "DROP TABLE audit_log",
            "SELECT grant_application('rdev_app')",
        ):
            with app.session() as session, pytest.raises(Exception, match="42501"):
                session.script(forbidden)
        app.close()
    finally:
        trail.sql("DROP OWNED BY rdev_app; DROP ROLE rdev_app")
