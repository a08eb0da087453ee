"""Migrations on a real server: once each, in order, from wherever and however often run."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pg8000.exceptions import DatabaseError

from common.adapters.postgres.connection import Connection
from common.adapters.postgres.migrate import (
    SCHEMA_VERSION,
    MigrationError,
    in_folder,
    migrate,
    shipped,
)
from common.adapters.postgres.pool import Database
from common.adapters.postgres.statements import parse, statements
from common.adapters.postgres.status import PgStatus
from common.adapters.postgres.target import Target
from common.bootstrap import App
from common.domain.errors import Unavailable
from common.settings import read

RunSql = Callable[..., list[list[object]]]
_numbers = itertools.count()


@pytest.fixture
def empty(postgres_url: str, run_sql: RunSql) -> Iterator[str]:
    """A database with nothing in it."""
    name = f"empty_{next(_numbers)}"
    server = postgres_url.replace("/rdev?", "/postgres?")
    run_sql(f"CREATE DATABASE {name}", server)
    yield postgres_url.replace("/rdev?", f"/{name}?")
    run_sql(f"DROP DATABASE {name} WITH (FORCE)", server)


def write(folder: Path, **files: str) -> Path:
    for name, sql in files.items():
        (folder / f"{name.removeprefix('m')}.sql").write_text(sql)
    return folder


def test_the_code_knows_its_schema() -> None:
    """SCHEMA_VERSION is the newest migration there is."""
    assert shipped()[-1].version == SCHEMA_VERSION


def test_it_goes_past_a_pooler(empty: str) -> None:
    """Where a direct address is given: behind a pooler no session keeps the lock it took."""
    nowhere = "postgresql://nobody@127.0.0.1:1/rdev"
    App(read({"RDEV_DATABASE_URL": nowhere, "RDEV_DATABASE_LISTEN_URL": empty})).migrate()
    assert migrate(empty) == []


def test_a_second_run_changes_nothing(empty: str, run_sql: RunSql) -> None:
    """The first applies all of it, the second none, and the row says what was applied."""
    assert migrate(empty) == [m.version for m in shipped()]
    assert migrate(empty) == []
    rows = run_sql(
        "SELECT version, name, sha256, min_compatible, applied_at <= now() FROM schema_migrations"
    )
    assert rows == [[m.version, m.name, m.sha256, m.min_compatible, True] for m in shipped()]


def test_eight_at_once_apply_each_migration_once(empty: str, run_sql: RunSql) -> None:
    """Every pod of a rollout may run it: one does the work, all come back with it done."""
    answers: list[list[int]] = []
    start = threading.Barrier(8)

    def run() -> None:
        start.wait()
        answers.append(migrate(empty))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [[]] * 7 + [[m.version for m in shipped()]]
    assert run_sql("SELECT count(*) FROM schema_migrations", empty) == [[len(shipped())]]


def test_a_changed_file_is_refused(empty: str, tmp_path: Path) -> None:
    """A migration that was applied may not be edited afterwards."""
    folder = write(tmp_path, m0001_one="CREATE TABLE one (n int);")
    migrate(empty, in_folder(folder))
    write(folder, m0001_one="CREATE TABLE one (n bigint);", m0002_two="CREATE TABLE two ();")
    with pytest.raises(MigrationError, match="0001 one"):
        migrate(empty, in_folder(folder))


def test_a_failing_migration_leaves_nothing_of_itself(
    empty: str, tmp_path: Path, run_sql: RunSql
) -> None:
    """What came before it stands, what it began is rolled back, and the next run tries again."""
    folder = write(
        tmp_path,
        m0001_one="CREATE TABLE one (n int);",
        m0002_two="CREATE TABLE two (n int); SELECT 1 / 0;",
    )
    with pytest.raises(DatabaseError):
        migrate(empty, in_folder(folder))
    assert run_sql("SELECT to_regclass('one') IS NULL, to_regclass('two') IS NULL", empty) == [
        [False, True]
    ]
    write(folder, m0002_two="CREATE TABLE two (n int);")
    assert migrate(empty, in_folder(folder)) == [2]


def test_an_index_is_built_outside_a_transaction(
    empty: str, tmp_path: Path, run_sql: RunSql
) -> None:
    """The header lets CREATE INDEX CONCURRENTLY run, while others wait to migrate as well."""
    folder = write(
        tmp_path,
        m0001_one="CREATE TABLE one AS SELECT n FROM generate_series(1, 1000) n;",
        m0002_index=(
            "-- rdev: no-transaction\n-- Why it is here.\n"
            "DROP INDEX CONCURRENTLY IF EXISTS one_n;\n"
            "CREATE INDEX CONCURRENTLY one_n ON one (n);\n"
        ),
    )
    answers: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(migrate(empty, in_folder(folder))))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [[], [], [1, 2]]
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'one_n'::regclass"
    assert run_sql(valid, empty) == [[True]]


def test_a_locked_table_is_tried_again(empty: str, tmp_path: Path) -> None:
    """A migration does not queue behind a long transaction: it gives way and comes back."""
    folder = write(tmp_path, m0001_one="CREATE TABLE one (n int);")
    migrate(empty, in_folder(folder))
    write(folder, m0002_two="SET LOCAL lock_timeout = '50ms'; ALTER TABLE one ADD COLUMN m int;")
    holder = Connection(Target.parse(empty))
    holder.script("BEGIN; LOCK TABLE one IN ACCESS EXCLUSIVE MODE")
    watcher = Connection(Target.parse(empty))
    answers: list[list[int]] = []
    runner = threading.Thread(target=lambda: answers.append(migrate(empty, in_folder(folder))))
    runner.start()
    seen = 0
    while seen < 2:  # let it come and give way, and come again
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'one'::regclass"
        while not watcher.script(waiting)[0][0]:
            pass
        while watcher.script(waiting)[0][0]:
            pass
        seen += 1
    holder.script("COMMIT")
    runner.join()
    assert answers == [[2]]
    holder.close()
    watcher.close()


def test_a_database_that_is_too_new_is_refused(empty: str, tmp_path: Path) -> None:
    """Old code next to a newer schema works until the schema says that it cannot."""
    old = in_folder(write(tmp_path, m0001_one="CREATE TABLE one (n int);"))
    write(tmp_path, m0002_two="CREATE TABLE two (n int);")
    migrate(empty, in_folder(tmp_path))
    assert migrate(empty, old) == []
    write(tmp_path, m0003_three="-- rdev: min-compatible 2\nDROP TABLE one;")
    migrate(empty, in_folder(tmp_path))
    assert PgStatus(Database(empty)).schema_version() == (3, 2)
    with pytest.raises(MigrationError, match="newer"):
        migrate(empty, old)


def test_a_number_is_used_once(tmp_path: Path) -> None:
    """Two branches that took the same number are told so before anything runs."""
    write(tmp_path, m0001_one="SELECT 1;", m0002_two="SELECT 1;", m0002_other="SELECT 1;")
    with pytest.raises(MigrationError, match="each number once"):
        in_folder(tmp_path)


def test_a_number_that_comes_late_is_applied_when_it_comes(empty: str, tmp_path: Path) -> None:
    """A gap is another branch's number; its file runs although a higher one has."""
    write(tmp_path, m0001_one="CREATE TABLE one (n int);", m0003_three="SELECT 1;")
    assert migrate(empty, in_folder(tmp_path)) == [1, 3]
    write(tmp_path, m0002_two="CREATE TABLE two (n int);")
    assert migrate(empty, in_folder(tmp_path)) == [2]


def test_an_unmigrated_database_has_version_zero(empty: str) -> None:
    """Readiness can ask before anything exists."""
    db = Database(empty)
    assert PgStatus(db).schema_version() == (0, 0)
    db.close()


def test_a_server_that_is_down_is_our_trouble() -> None:
    """No server: Unavailable, as everywhere."""
    with pytest.raises(Unavailable):
        migrate("postgresql://postgres@/rdev?host=/nonexistent")


def test_the_days_ahead_have_partitions(database_url: str, run_sql: RunSql) -> None:
    """From yesterday to a week from today, so that no command's events meet a missing one."""
    days = run_sql(
        "SELECT count(*) FROM generate_series(-1, 7) d WHERE to_regclass('command_events_' || "
        "to_char((now() AT TIME ZONE 'UTC')::date + d::int, 'YYYYMMDD')) IS NOT NULL",
        database_url,
    )
    assert days == [[9]]


def test_every_query_fits_the_schema(database_url: str) -> None:
    """Each named query can be prepared, has a name of its own and says what it does."""
    db = Database(database_url)
    shipped_queries = {name for name in statements() if not name.startswith(("test_", "bench_"))}
    with db.session() as connection:
        for name in shipped_queries - {"plain_claim", "bare_claim", "bare_finish", "bare_fill"}:
            connection._prepare(name)
    db.close()


def test_a_query_needs_a_description() -> None:
    """A name without its line is no query."""
    text = "-- name: one\n-- First.\nSELECT 1;\n\n-- name: two\nSELECT 2;\n"
    assert [name for name, _ in parse(text)] == ["one"]
