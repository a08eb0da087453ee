"""The pool over a real server: what is in doubt serves nobody else, waits are bounded."""

from __future__ import annotations

import signal
import threading
import types
from collections.abc import Callable, Iterator

import pytest
from pg8000.exceptions import DatabaseError

from common.adapters.postgres.connection import Connection
from common.adapters.postgres.failures import Conflicted
from common.adapters.postgres.pool import MAX_TRIES, Database
from common.adapters.postgres.statements import statements
from common.domain.errors import InvalidRequest, Unavailable

PATIENCE_S = 30  # only a broken build waits this long

QUERIES = {
    "test_echo": "SELECT :value::text AS value",
    "test_bytes": "SELECT :value::bytea AS value",
    "test_array": "SELECT :value::text[] AS value",
    "test_sleep": "SELECT pg_sleep(:seconds)",
    "test_pid": "SELECT pg_backend_pid() AS pid",
    "test_add": "INSERT INTO things VALUES (:n)",
    "test_sum": "SELECT coalesce(sum(n), 0)::int AS n, count(*)::int AS rows FROM things",
    "test_all": "SELECT * FROM things",
    "test_raise": "SELECT raise_now(:sqlstate, :message)",
    "test_zero": "SELECT 1 / :n::int AS n",
    "test_count": "SELECT count_then_raise(:times) AS n",
}
SETUP = """
CREATE TABLE things (n int);
CREATE FUNCTION raise_now(p_state text, p_message text) RETURNS int LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION USING ERRCODE = p_state, MESSAGE = p_message; END $$;
CREATE SEQUENCE tries;
CREATE FUNCTION count_then_raise(p_times int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
  IF nextval('tries') < p_times THEN
    RAISE EXCEPTION USING ERRCODE = '40001', MESSAGE = 'again';
  END IF;
  RETURN currval('tries');
END $$;
"""


@pytest.fixture
def db(database_url: str, run_sql: Callable[..., object]) -> Iterator[Database]:
    run_sql(SETUP, database_url)
    statements().update(QUERIES)
    pool = Database(database_url, max_open=4)
    yield pool
    pool.close()


def pid(db: Database) -> int:
    return int(db.run("test_pid")[0]["pid"])


def echo(db: Database, value: str) -> str:
    return str(db.run("test_echo", value=value)[0]["value"])


# -- in doubt -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["\ud800", "a\0b", "x" * 10 + "\udfff"])
def test_text_that_cannot_be_sent_is_refused_before_a_byte_is(db: Database, text: str) -> None:
    """A lone surrogate or NUL never reaches the driver: the same connection answers rightly on."""
    first = pid(db)
    with pytest.raises(InvalidRequest):
        echo(db, text)
    with pytest.raises(InvalidRequest):
        db.run("test_array", value=["fine", text])
    assert [echo(db, str(n)) for n in range(3)] == ["0", "1", "2"]
    assert pid(db) == first


def test_a_poisoned_connection_serves_nobody_else(db: Database) -> None:
    """Whatever breaks inside the driver, the next callers get their own rows and no others'."""
    echo(db, "warm")

    def poisoned(self: Connection, name: str, given: object) -> None:
        # What a lone surrogate does inside pg8000: Describe is sent, its answer stays unread.
        self._session.execute_unnamed("SELECT $1::text", ("\ud800",))

    with db.session() as connection:
        doubtful = connection
    doubtful.execute = types.MethodType(poisoned, doubtful)  # type: ignore[method-assign]
    with pytest.raises(UnicodeEncodeError):
        echo(db, "mine")
    assert [echo(db, str(n)) for n in range(5)] == ["0", "1", "2", "3", "4"]


def test_the_driver_alone_is_poisoned_by_a_surrogate(db: Database) -> None:
    """The reason for all this: unguarded, pg8000 answers a query with the one before it."""
    with db.session() as connection:
        session = connection.session
        with pytest.raises(UnicodeEncodeError):
            session.run("SELECT :a::text", a="\ud800")
        answers = []
        for n in range(6):
            try:
                answers.append(session.run("SELECT :a::int", a=n))
            except Exception as error:
                answers.append(error)
        assert answers != [[[n]] for n in range(6)]
        connection.broken = True


class Interrupted(BaseException):
    """What a signal handler raises in the middle of a read."""


def test_an_exception_in_the_middle_of_a_read_discards_the_connection(db: Database) -> None:
    """A caller interrupted while it waits leaves no answer behind for the next."""
    first = pid(db)

    def interrupt(_number: int, _frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Interrupted):
            db.run("test_sleep", seconds=PATIENCE_S)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert pid(db) != first
    assert echo(db, "mine") == "mine"


def test_a_cancelled_query_is_our_trouble_and_its_connection_goes_on(
    db: Database, database_url: str, run_sql: Callable[..., object]
) -> None:
    """The server ends the statement and says so; both sides agree where they are."""
    first = pid(db)
    cancel = (
        "DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = "
        f"{first} AND wait_event = 'PgSleep') LOOP PERFORM pg_stat_clear_snapshot(); END LOOP; "
        f"PERFORM pg_cancel_backend({first}); END $$"
    )
    canceller = threading.Thread(target=run_sql, args=(cancel, database_url))
    canceller.start()
    with pytest.raises(Unavailable):
        db.run("test_sleep", seconds=PATIENCE_S)
    canceller.join()
    assert pid(db) == first
    assert echo(db, "mine") == "mine"


def test_a_terminated_backend_is_replaced(
    db: Database, database_url: str, run_sql: Callable[..., object]
) -> None:
    """A connection that died at rest is noticed before it is used: no caller sees it."""
    first = pid(db)
    run_sql(f"SELECT pg_terminate_backend({first}, 5000)", database_url)
    assert echo(db, "mine") == "mine"
    assert pid(db) != first
    assert db.open_connections == 1


def test_a_backend_that_dies_under_a_query_is_our_trouble(
    db: Database, database_url: str, run_sql: Callable[..., object]
) -> None:
    """The query in flight is Unavailable, the next one runs on a new connection."""
    first = pid(db)
    kill = (
        "DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = "
        f"{first} AND wait_event = 'PgSleep') LOOP PERFORM pg_stat_clear_snapshot(); END LOOP; "
        f"PERFORM pg_terminate_backend({first}); END $$"
    )
    killer = threading.Thread(target=run_sql, args=(kill, database_url))
    killer.start()
    with pytest.raises(Unavailable):
        db.run("test_sleep", seconds=PATIENCE_S)
    killer.join()
    assert echo(db, "mine") == "mine"


def test_an_error_of_the_server_keeps_the_connection(db: Database) -> None:
    """A refused statement is a DatabaseError; nothing is in doubt."""
    first = pid(db)
    with pytest.raises(DatabaseError):
        db.run("test_zero", n=0)
    assert pid(db) == first


def test_a_schema_change_under_a_prepared_statement_is_not_seen(
    db: Database, database_url: str, run_sql: Callable[..., object]
) -> None:
    """A plan that no longer fits is made anew on another connection, and the caller gets rows."""
    db.run("test_add", n=1)
    db.run("test_all")
    run_sql("ALTER TABLE things ADD COLUMN m int DEFAULT 2", database_url)
    assert db.run("test_all") == [{"n": 1, "m": 2}]


# -- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["", "null", 'a"b\\c', "{x,y}", " ", "\u2028é\U0001f600", None])
def test_text_comes_back_as_it_went(db: Database, value: str | None) -> None:
    """Alone and inside an array, the text `null` is no NULL."""
    assert db.run("test_echo", value=value)[0]["value"] == value
    assert db.run("test_array", value=[value, "x"])[0]["value"] == [value, "x"]


def test_every_byte_comes_back_as_it_went(db: Database) -> None:
    """bytea holds all 256 values."""
    whole = bytes(range(256)) * 3
    assert db.run("test_bytes", value=whole)[0]["value"] == whole
    assert db.run("test_bytes", value=b"")[0]["value"] == b""


# -- how many -------------------------------------------------------------------------------------


def test_waiting_for_a_connection_is_bounded(database_url: str) -> None:
    """When all are in use the next caller is told to come back, and none is opened beyond."""
    statements().update(QUERIES)
    db = Database(database_url, max_open=2, wait_s=0.05)
    with db.session(), db.session():
        with pytest.raises(Unavailable) as refused:
            db.run("test_pid")
        assert refused.value.retry_after == 1
        assert db.open_connections == 2
    assert pid(db)
    db.close()
    assert db.open_connections == 0


def test_a_waiter_gets_the_connection_that_comes_back(database_url: str) -> None:
    """Who waits is woken by a connection's return."""
    statements().update(QUERIES)
    db = Database(database_url, max_open=1, wait_s=PATIENCE_S)
    pids: list[int] = []
    waiter = threading.Thread(target=lambda: pids.append(pid(db)))
    with db.session() as connection:
        waiter.start()
        own = connection.run("test_pid", {})[0]["pid"]
    waiter.join()
    assert pids == [own]
    db.close()


def test_the_last_one_in_is_the_first_one_out(db: Database) -> None:
    """Few connections stay warm however many there are."""
    with db.session(), db.session(), db.session() as last:
        warm = last.run("test_pid", {})[0]["pid"]
        del last
    pids = {pid(db) for _ in range(5)}
    assert len(pids) == 1
    assert db.open_connections == 3
    assert warm


def test_more_than_max_idle_are_closed_when_they_come_back(database_url: str) -> None:
    """A burst's connections do not stay."""
    db = Database(database_url, max_open=4, max_idle=1)
    with db.session(), db.session(), db.session():
        assert db.open_connections == 3
    assert db.open_connections == 1
    db.close()


def test_old_connections_are_left(database_url: str) -> None:
    """Past its lifetime a connection is not used again."""
    statements().update(QUERIES)
    db = Database(database_url, max_lifetime_s=0.0)
    assert pid(db) != pid(db)
    assert db.open_connections == 0
    db.close()


def test_idle_connections_are_closed_though_nobody_asks(database_url: str) -> None:
    """An idle process gives its connections back by itself."""
    db = Database(database_url, max_idle_s=0.05)
    closed = threading.Event()
    with db.session() as connection:
        close = connection.close
        connection.close = lambda: (close(), closed.set())  # type: ignore[assignment]
    assert closed.wait(PATIENCE_S)
    assert db.open_connections == 0
    db.close()


def test_many_threads_share_few_connections(db: Database) -> None:
    """Forty callers on four connections each get their own answer, every time."""
    wrong: list[tuple[str, str]] = []

    def ask(name: str) -> None:
        for n in range(25):
            said = f"{name}-{n}"
            if (heard := echo(db, said)) != said:
                wrong.append((said, heard))

    threads = [threading.Thread(target=ask, args=(str(n),)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert db.open_connections <= 4


# -- transactions ---------------------------------------------------------------------------------


def test_a_transaction_is_whole_or_not_at_all(db: Database) -> None:
    """What is raised inside rolls back, whoever raised it."""
    with db.transaction() as tx:
        tx.run("test_add", {"n": 1})
        tx.run("test_add", {"n": 2})
    with pytest.raises(KeyError), db.transaction() as tx:  # noqa: PT012 - it is the transaction's block
        tx.run("test_add", {"n": 4})
        raise KeyError
    with pytest.raises(DatabaseError), db.transaction() as tx:  # noqa: PT012 - it is the transaction's block
        tx.run("test_add", {"n": 8})
        tx.run("test_zero", {"n": 0})
    assert db.run("test_sum") == [{"n": 3, "rows": 2}]


def test_a_lost_connection_rolls_back(
    db: Database, database_url: str, run_sql: Callable[..., object]
) -> None:
    """A transaction whose connection dies before COMMIT is Unavailable and left no row."""
    with pytest.raises(Unavailable), db.transaction() as tx:  # noqa: PT012 - it is the transaction's block
        tx.run("test_add", {"n": 1})
        run_sql(
            f"SELECT pg_terminate_backend({tx.run('test_pid', {})[0]['pid']}, 5000)", database_url
        )
    assert db.run("test_sum") == [{"n": 0, "rows": 0}]


def test_a_failed_transaction_does_not_commit(db: Database) -> None:
    """Swallowing a statement's error inside the block does not make COMMIT succeed quietly."""
    with pytest.raises(RuntimeError, match="cannot commit"), db.transaction() as tx:  # noqa: PT012 - it is the transaction's block
        tx.run("test_add", {"n": 1})
        with pytest.raises(DatabaseError):
            tx.run("test_zero", {"n": 0})
    assert db.run("test_sum") == [{"n": 0, "rows": 0}]
    assert echo(db, "mine") == "mine"


def test_a_deadlock_is_tried_again_whole(db: Database) -> None:
    """Two transactions that lock each other out both commit in the end."""
    db.run("test_add", n=1)
    db.run("test_add", n=2)
    both_hold_one = threading.Barrier(2)
    statements()["test_touch"] = "UPDATE things SET n = n + 10 WHERE n % 10 = :n"

    def cross(first: int, second: int) -> None:
        tries = iter((both_hold_one.wait, *[lambda: None] * MAX_TRIES))

        def work(tx: Connection) -> None:
            tx.run("test_touch", {"n": first})
            next(tries)()
            tx.run("test_touch", {"n": second})

        db.atomically(work)

    threads = [threading.Thread(target=cross, args=pair) for pair in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert db.run("test_sum") == [{"n": 43, "rows": 2}]


def test_a_conflict_is_tried_five_times_and_no_more(db: Database) -> None:
    """The fifth try may succeed; the sixth is not made, and the caller is told to come back."""
    assert db.run("test_count", times=MAX_TRIES)[0]["n"] == MAX_TRIES
    with pytest.raises(Conflicted) as gave_up:
        db.run("test_count", times=1000)
    assert isinstance(gave_up.value, Unavailable)
    assert db.run("test_count", times=0)[0]["n"] == 2 * MAX_TRIES + 1


# -- what the server says -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sqlstate",
    [
        "53100",
        "53200",
        "53300",
        "57P01",
        "57P02",
        "57P03",
        "57014",
        "08006",
        "58030",
        "25006",
        "55P03",
    ],
)
def test_the_servers_troubles_are_ours(db: Database, sqlstate: str) -> None:
    """Disk full, out of memory, shutting down, read-only, timeouts: Unavailable with a time."""
    with pytest.raises(Unavailable) as refused:
        db.run("test_raise", sqlstate=sqlstate, message="trouble")
    assert refused.value.retry_after >= 1
    assert "trouble" not in refused.value.detail
    assert echo(db, "mine") == "mine"


def test_a_read_only_database_is_our_trouble(
    db: Database, database_url: str, run_sql: Callable[..., object]
) -> None:
    """A standby refuses writes with 503 and goes on answering reads."""
    name = db.target.database
    run_sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on", database_url)
    fresh = Database(database_url)
    with pytest.raises(Unavailable):
        fresh.run("test_add", n=1)
    assert fresh.run("test_sum") == [{"n": 0, "rows": 0}]
    fresh.close()


def test_a_statement_that_takes_too_long_is_ended(database_url: str) -> None:
    """The server's statement_timeout comes first, and the connection goes on."""
    statements().update(QUERIES)
    db = Database(database_url, statement_timeout_s=0.05)
    first = pid(db)
    with pytest.raises(Unavailable):
        db.run("test_sleep", seconds=PATIENCE_S)
    assert pid(db) == first
    db.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://postgres@/rdev?host=/nonexistent",
        "postgresql://postgres@127.0.0.1:1/rdev",
        "postgresql://postgres@nowhere.invalid/rdev",
    ],
)
def test_a_server_that_cannot_be_reached_is_our_trouble(url: str) -> None:
    """Refused, no socket, no such host: Unavailable at every try, and nothing leaks."""
    db = Database(url, max_open=1)
    for _ in range(2):
        with pytest.raises(Unavailable):
            db.run("ping")
    assert db.open_connections == 0


def test_a_database_that_is_not_there_is_our_trouble(postgres_url: str) -> None:
    """The server answers, but not for this database."""
    db = Database(postgres_url.replace("/rdev?", "/no_such_database?"))
    with pytest.raises(Unavailable):
        db.run("ping")
    assert db.open_connections == 0


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("'{}'", []),
        ("ARRAY['a']", ["a"]),
        ("ARRAY['commands:read','keys:admin','a b']", ["commands:read", "keys:admin", "a b"]),
        ("ARRAY['', 'null', 'NULL', NULL]", ["", "null", "NULL", None]),
        ("ARRAY[NULL]", [None]),
        ("ARRAY['NULLable', 'xNULL', 'a']", ["NULLable", "xNULL", "a"]),
        ("ARRAY['a,b', 'c\"d', E'e\\\\f', '{g}', ' h ']", ["a,b", 'c"d', "e\\f", "{g}", " h "]),
        ("ARRAY['é\u202e', E'a\\nb']", ["é\u202e", "a\nb"]),
        ("ARRAY[ARRAY['a','b'],ARRAY['c','d']]", [["a", "b"], ["c", "d"]]),
    ],
)
def test_texts_come_as_they_are(db: Database, written: str, read: list[object]) -> None:
    """Arrays of text, whatever stands in them."""
    with db.session() as session:
        assert session.script(f"SELECT ({written})::text[]") == [[read]]
