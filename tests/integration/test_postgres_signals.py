"""LISTEN on a real server: a lost connection costs a moment, no wake-up and no lock."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator

import pytest

from common.adapters.postgres.connection import Connection
from common.adapters.postgres.pool import Database
from common.adapters.postgres.signals import PgListening, PgSignals
from common.adapters.postgres.target import Target
from common.domain.errors import Unavailable

PATIENCE_S = 30  # only a broken build waits this long
WORKER = 0x7654_3210_0ABC_DEF0
RunSql = Callable[..., list[list[object]]]
Heard = queue.SimpleQueue[tuple[str, str]]


@pytest.fixture
def signals(database_url: str) -> Iterator[PgSignals]:
    db = Database(database_url)
    yield PgSignals(db, database_url)
    db.close()


@pytest.fixture
def heard() -> Heard:
    return queue.SimpleQueue()


@pytest.fixture
def listening(signals: PgSignals, heard: Heard) -> Iterator[PgListening]:
    made = signals.listen(("a", "b"), lambda *said: heard.put(said))
    assert {heard.get(timeout=PATIENCE_S) for _ in range(2)} == {("a", ""), ("b", "")}
    yield made
    made.close()


def kill(run_sql: RunSql, url: str) -> None:
    """End the listening session, as a failover would."""
    ended = run_sql(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE application_name = 'rdev-listen' AND datname = current_database()",
        url,
    )
    assert ended == [[True]]


def is_alive(run_sql: RunSql, url: str) -> bool:
    return run_sql(f"SELECT worker_is_alive({WORKER})", url) == [[True]]


def test_a_lost_connection_is_replaced_and_said(
    listening: PgListening, heard: Heard, signals: PgSignals, run_sql: RunSql, database_url: str
) -> None:
    """After reconnecting each channel gets an empty wake-up: anything may have been missed."""
    for n in range(3):
        kill(run_sql, database_url)
        assert {heard.get(timeout=PATIENCE_S) for _ in range(2)} == {("a", ""), ("b", "")}
        signals.notify("a", str(n))
        assert heard.get(timeout=PATIENCE_S) == ("a", str(n))


def test_a_worker_stays_alive_over_a_reconnect(
    listening: PgListening, heard: Heard, run_sql: RunSql, database_url: str
) -> None:
    """The lock is taken again with the new connection, before anybody is woken."""
    listening.hold(WORKER)
    assert is_alive(run_sql, database_url)
    kill(run_sql, database_url)
    assert not is_alive(run_sql, database_url) or heard.get(timeout=PATIENCE_S)
    listening.hold(WORKER)
    assert is_alive(run_sql, database_url)
    listening.close()
    assert not is_alive(run_sql, database_url)


def test_a_predecessor_the_server_still_believes_in_is_ended(
    listening: PgListening, heard: Heard, run_sql: RunSql, database_url: str
) -> None:
    """A half-open connection of our own keeps our lock; the new one takes it over."""
    ghost = Connection(Target.parse(database_url), application_name="ghost")
    ghost.script(f"SELECT pg_advisory_lock({WORKER})")
    listening._worker = WORKER
    kill(run_sql, database_url)
    assert heard.get(timeout=PATIENCE_S)
    listening.hold(WORKER)
    assert is_alive(run_sql, database_url)
    with pytest.raises(Unavailable):
        ghost.script("SELECT 1")
    ghost.close()


def test_a_burst_beyond_the_drivers_buffer_is_heard_whole(
    listening: PgListening, heard: Heard, run_sql: RunSql, database_url: str
) -> None:
    """pg8000 keeps 100 notifications and drops the rest silently; we hear them all."""
    run_sql("SELECT pg_notify('a', n::text) FROM generate_series(1, 1000) n", database_url)
    assert [heard.get(timeout=PATIENCE_S)[1] for _ in range(1000)] == [
        str(n) for n in range(1, 1001)
    ]


def test_a_notification_without_a_server_raises_nothing(database_url: str) -> None:
    """A lost wake-up costs a poll."""
    PgSignals(Database("postgresql://postgres@/x?host=/nonexistent"), database_url).notify("a", "b")


def test_a_server_that_is_away_is_waited_for(database_url: str) -> None:
    """Listening begins by itself when the server comes, and can be closed before."""
    away = "postgresql://postgres@/x?host=/nonexistent"
    listening = PgSignals(Database(database_url), away).listen(("a",), lambda *_said: None)
    listening.close()


def test_a_lock_that_cannot_be_had_is_our_trouble(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """hold() says Unavailable in bounded time when there is no server to give the lock."""
    monkeypatch.setattr("common.adapters.postgres.signals._HOLD_S", 0.05)
    away = "postgresql://postgres@/x?host=/nonexistent"
    listening = PgSignals(Database(database_url), away).listen((), lambda *_said: None)
    with pytest.raises(Unavailable):
        listening.hold(WORKER)
    listening.close()
