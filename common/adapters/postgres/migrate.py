"""Bring the schema up to date: forward SQL files, each once, in order, whoever runs it how often.

`migrations/0001_name.sql`; header lines may say `-- rdev: no-transaction` (for CREATE INDEX
CONCURRENTLY: statements are then run one by one, and each must be repeatable) and
`-- rdev: min-compatible 3` (code older than schema 3 cannot work with this one).
"""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Final

from pg8000.exceptions import DatabaseError
from pg8000.native import literal

from common.adapters.postgres.connection import Connection
from common.adapters.postgres.failures import sqlstate
from common.adapters.postgres.target import Target
from common.domain.errors import Unavailable
from common.services import telemetry

SCHEMA_VERSION: Final = 12
DAYS_AHEAD: Final = 7

_LOCK: Final = 0x72646576_6D696772  # "rdevmigr", the advisory lock of everybody who migrates
_LOCK_TRIES: Final = 240
_FILE_TRIES: Final = 30
_PAUSE_S: Final = 0.25
_FILE: Final = re.compile(r"(\d{4})_(\w+)\.sql")
_HEADER: Final = re.compile(r"^-- rdev: (no-transaction|min-compatible (\d+))$", re.MULTILINE)
_STATEMENT_END: Final = re.compile(r";[ \t]*(?:\n|\Z)")

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS schema_migrations (
  version        int PRIMARY KEY,
  name           text NOT NULL,
  sha256         text NOT NULL,
  min_compatible int NOT NULL,
  applied_at     timestamptz NOT NULL DEFAULT now()
)"""

log = telemetry.logger("rdev.migrate")


class MigrationError(Exception):
    """The schema cannot be brought up to date without a person; the message says why."""


@dataclass(frozen=True)
class Migration:
    """One file. `min_compatible`: the oldest schema version whose code works with this one."""

    version: int
    name: str
    sql: str
    in_transaction: bool
    min_compatible: int

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def shipped() -> list[Migration]:
    """The migrations of this version of rdev, oldest first."""
    folder = resources.files(__package__).joinpath("migrations")
    return _read((file.name, file.read_text(encoding="utf-8")) for file in folder.iterdir())


def in_folder(folder: Path) -> list[Migration]:
    """The migrations in another folder."""
    return _read((file.name, file.read_text(encoding="utf-8")) for file in folder.iterdir())


def migrate(url: str, migrations: Sequence[Migration] | None = None) -> list[int]:
    """Apply what is missing and make the next days' partitions; answers the versions applied.

    Raises MigrationError for a changed file or a schema this code is too old for, Unavailable when
    the database cannot be reached or stays busy.
    """
    connection = Connection(
        Target.parse(url), application_name="rdev-migrate", statement_timeout_s=0
    )
    try:
        with _alone(connection):
            wanted = shipped() if migrations is None else migrations
            applied = _apply_all(connection, wanted)
            _make_partitions(connection)
            return applied
    finally:
        connection.close()


def _read(files: Iterable[tuple[str, str]]) -> list[Migration]:
    found = [_parse(int(m[1]), m[2], sql) for name, sql in files if (m := _FILE.fullmatch(name))]
    found.sort(key=lambda migration: migration.version)
    # A gap is a number that another branch has taken; it is applied when it comes.
    if len({m.version for m in found}) != len(found) or (found and found[0].version != 1):
        raise MigrationError("migrations are numbered from 0001, each number once")
    return found


def _parse(version: int, name: str, sql: str) -> Migration:
    said = {match[1].split()[0]: match[2] for match in _HEADER.finditer(sql)}
    return Migration(
        version, name, sql, "no-transaction" not in said, int(said.get("min-compatible") or 1)
    )


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """Hold the lock of everybody who migrates.

    It is tried again and again, not waited for: a waiting session's snapshot would block another
    one's CREATE INDEX CONCURRENTLY, which waits for all older snapshots to end.
    """
    connection.script("SET lock_timeout = '2s'")
    for _ in range(_LOCK_TRIES):
        if connection.script(f"SELECT pg_try_advisory_lock({_LOCK})")[0][0]:
            break
        time.sleep(_PAUSE_S)
    else:
        raise Unavailable("another migration has been running for a minute")
    try:
        yield
    finally:
        if connection.reusable:
            connection.script(f"SELECT pg_advisory_unlock({_LOCK})")


def _apply_all(connection: Connection, migrations: Sequence[Migration]) -> list[int]:
    connection.script(_TABLE)
    rows = connection.script("SELECT version, sha256, min_compatible FROM schema_migrations")
    known = {version: sha256 for version, sha256, _ in rows}
    newest = migrations[-1].version if migrations else 0
    if max((row[2] for row in rows), default=0) > newest:
        raise MigrationError("the database is newer than this version of rdev can work with")
    applied = []
    for migration in migrations:
        if migration.version not in known:
            _patiently(partial(_apply, connection, migration))
            log.info("migration applied", version=migration.version, name=migration.name)
            applied.append(migration.version)
        elif known[migration.version] != migration.sha256:
            raise MigrationError(
                f"migration {migration.version:04} {migration.name} was applied with other contents"
            )
    return applied


def _patiently(work: Callable[[], object]) -> None:
    """Try again when a lock was not to be had within 2 s: nobody queues behind us for longer."""
    for _ in range(_FILE_TRIES - 1):
        try:
            work()
            return
        except Unavailable as error:
            if not _lock_timed_out(error):
                raise
            time.sleep(_PAUSE_S * random.uniform(0.5, 1.5))
    work()


def _lock_timed_out(error: Unavailable) -> bool:
    cause = error.__cause__
    return isinstance(cause, DatabaseError) and sqlstate(cause) == "55P03"


def _apply(connection: Connection, migration: Migration) -> None:
    record = (
        "INSERT INTO schema_migrations (version, name, sha256, min_compatible) VALUES "  # nosec B608
        f"({migration.version}, {literal(migration.name)}, {literal(migration.sha256)}, "
        f"{migration.min_compatible})"
    )
    if migration.in_transaction:
        _in_transaction(connection, [migration.sql, record])
        return
    for statement in _STATEMENT_END.split(migration.sql):
        if _holds_sql(statement):
            connection.script(statement)
    connection.script(record)


def _in_transaction(connection: Connection, scripts: Sequence[str]) -> None:
    connection.script("BEGIN")
    try:
        for script in scripts:
            connection.script(script)
        connection.script("COMMIT")
    except BaseException:
        if not connection.broken:
            connection.script("ROLLBACK")
        raise


def _holds_sql(statement: str) -> bool:
    return any(line.strip() and not line.startswith("--") for line in statement.splitlines())


def _make_partitions(connection: Connection) -> None:
    """From yesterday on: a command's day is its id's, and ids may be a little old."""
    if connection.script("SELECT to_regproc('ensure_event_partitions') IS NOT NULL")[0][0]:
        days = DAYS_AHEAD + 2
        today = "(now() AT TIME ZONE 'UTC')::date"
        sql = f"SELECT ensure_event_partitions({today} - 1, {days})"
        _patiently(lambda: connection.script(sql))
