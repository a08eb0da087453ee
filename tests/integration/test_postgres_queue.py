"""The queue's limits on a real server, watched by somebody else while many work at once."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import multiprocessing
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

from common.adapters.postgres.commands import PgCommandStore
from common.adapters.postgres.connection import Connection
from common.adapters.postgres.keys import PgKeyStore
from common.adapters.postgres.pool import Database
from common.adapters.postgres.projects import PgProjectStore
from common.adapters.postgres.queue import PgQueue
from common.adapters.postgres.target import Target
from common.domain.command import Kind, NewCommand, State
from common.domain.errors import ConcurrencyLimited, Unavailable
from common.domain.events import OUTPUT, NewEvent
from common.domain.identifiers import new_id
from common.domain.keys import ApiKey, Caller, RateLimit, hash_of, new_key, prefix_of
from common.domain.project import FoundProject
from common.ports.commands import Filter, Origin
from common.ports.queue import LeaseLost

RunSql = Callable[..., list[list[object]]]
ORIGIN = Origin("req_test")
DONE = {"reason": "exit_zero"}
PROCESSES = 16


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    pool = Database(database_url, statement_timeout_s=60)
    yield pool
    pool.close()


def add_key(db: Database, **fields: object) -> tuple[str, Caller]:
    text = new_key()
    plain: dict[str, object] = {"rate_limit": None, "max_concurrent": None}
    key = ApiKey(
        new_id(),
        "key",
        prefix_of(text),
        frozenset({"commands:write"}),
        None,
        (),
        created_at=dt.datetime.now(dt.UTC),
        **plain | fields,  # type: ignore[arg-type]
    )
    caller = Caller(
        key.id, key.name, key.scopes, None, key.max_concurrent, rate_limit=key.rate_limit
    )
    PgKeyStore(db).create(key, hash_of(text), caller, ORIGIN, None)
    return text, caller


def shell(project: str, **fields: object) -> NewCommand:
    return NewCommand(new_id(), project, Kind.SHELL, {"script": "x"}, **fields)  # type: ignore[arg-type]


# -- limits ---------------------------------------------------------------------------------------


def test_no_limit_is_ever_exceeded_as_others_see_it(db: Database, database_url: str) -> None:
    """16 workers, 3 projects, 3 keys, sessions: every snapshot of another session is in order."""
    limits = {"one": 1, "three": 3, "five": 5}
    found = [FoundProject(n, f"/w/{n}", max_concurrent_commands=m) for n, m in limits.items()]
    PgProjectStore(db).sync(found, "test")
    callers = [add_key(db, max_concurrent=most)[1] for most in (2, 4, None)]
    commands = PgCommandStore(db)
    sessions = ["a", "b", None, None]
    for n in range(240):
        new = shell(random.choice(list(limits)), session=sessions[n % 4])
        commands.submit(new, None, callers[n % 3], ORIGIN)
    claimed, broken = _work_while_watched(db, database_url, limits, callers)
    assert broken == []
    assert len(claimed) == len(set(claimed)) == 240
    states = {command.state for command in commands.list(Filter(limit=1000))}
    assert states == {State.SUCCEEDED}


def _work_while_watched(
    db: Database, url: str, limits: dict[str, int], callers: list[Caller]
) -> tuple[list[object], list[object]]:
    """Claim and finish everything with 16 workers; what was claimed, and every bad snapshot."""
    queue = PgQueue(db)
    claimed: list[object] = []
    done = threading.Event()

    def work(worker: int) -> None:
        names = itertools.cycle(random.sample(list(limits), len(limits)))
        while len(claimed) < 240:
            if claim := queue.claim(next(names), worker):
                claimed.append(claim.command.id)
                if random.random() < 0.5:
                    queue.mark_running(claim.command.id, claim.token)
                queue.finish(claim.command.id, claim.token, State.SUCCEEDED, DONE)

    broken: list[object] = []
    watcher = threading.Thread(target=_watch, args=(url, limits, callers, done, broken))
    watcher.start()
    workers = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    done.set()
    watcher.join()
    return claimed, broken


def _watch(
    url: str,
    limits: dict[str, int],
    callers: list[Caller],
    done: threading.Event,
    broken: list[object],
) -> None:
    """Look at live commands again and again, each time in one snapshot."""
    most = {str(caller.key_id): caller.max_concurrent for caller in callers}
    live = (
        "SELECT project, key_id::text, session FROM commands"
        " WHERE state IN ('claimed', 'running', 'cancelling')"
    )
    connection = Connection(Target.parse(url), application_name="watcher")
    looks = 0
    while not done.is_set() or looks < 100:
        rows = connection.script(live)
        looks += 1
        for project, limit in limits.items():
            own = [row for row in rows if row[0] == project]
            sessions = [row[2] for row in own if row[2] is not None]
            if len(own) > limit or len(sessions) != len(set(sessions)):
                broken.append(rows)
        for key, limit_ in most.items():
            if limit_ is not None and sum(row[1] == key for row in rows) > limit_:
                broken.append(rows)
    connection.close()


def test_reject_if_busy_never_lets_a_sixth_in(db: Database) -> None:
    """Of 32 at once that would not wait exactly as many get in as there are slots."""
    PgProjectStore(db).sync([FoundProject("demo", "/w", max_concurrent_commands=5)], "test")
    _, caller = add_key(db)
    commands = PgCommandStore(db)

    def submit(_n: int) -> bool:
        try:
            commands.submit(shell("demo", reject_if_busy=True), None, caller, ORIGIN)
        except ConcurrencyLimited:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(submit, range(32))) == 5


@pytest.mark.row(26)
def test_the_window_is_exact_over_sixteen_processes(
    db: Database, database_url: str, run_sql: RunSql
) -> None:
    """By the times of the grants themselves, no window of any place holds a 101st."""
    text, _ = add_key(db, rate_limit=RateLimit(100, 1))
    run_sql(
        "CREATE TABLE grants (at timestamptz);"
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN INSERT INTO grants VALUES (new.hits[1]); RETURN new; END $$;"
        "CREATE TRIGGER noted AFTER INSERT OR UPDATE ON rate_limits"
        " FOR EACH ROW EXECUTE FUNCTION note()",
        database_url,
    )
    # Forked from one process that has imported everything: sixteen imports would take all the time.
    fork = multiprocessing.get_context("forkserver")
    fork.set_forkserver_preload(["tests.integration.test_postgres_queue"])
    with ProcessPoolExecutor(PROCESSES, mp_context=fork) as pool:
        futures = [pool.submit(_ask, database_url, text, 20) for _ in range(PROCESSES)]
        granted = sum(future.result() for future in futures)
    found = run_sql("SELECT at FROM grants ORDER BY at", database_url)
    stamps = [at for (at,) in found if isinstance(at, dt.datetime)]
    assert len(stamps) == granted == 20 * PROCESSES
    spans = [later - earlier for earlier, later in zip(stamps, stamps[100:], strict=False)]
    assert min(spans) > dt.timedelta(seconds=1)


def _ask(url: str, text: str, wanted: int) -> int:
    """Authorise until this process was granted as many; answers how many."""
    db = Database(url)
    keys = PgKeyStore(db)
    granted = 0
    while granted < wanted:
        granted += keys.authorise(hash_of(text), (), None, counts=True).status == "ok"
    db.close()
    return granted


# -- flat -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [1, 4])
@pytest.mark.parametrize("full", [False, True])
def test_a_claim_touches_as_much_of_a_long_queue_as_of_a_short_one(
    db: Database, keys: int, full: bool
) -> None:
    """A claim reads about as many pages at 10,000 queued as at 20, also of a full project."""
    names = ["short", "long", "full"]
    PgProjectStore(db).sync(
        [FoundProject(n, "/w", max_concurrent_commands=1000) for n in names], "test"
    )
    for _ in range(keys):
        add_key(db)
    _fill(db, "short", 20)
    _fill(db, "long", 10_000)
    with db.session() as connection:
        connection.script("ANALYZE")
        if full:
            connection.script("UPDATE project_slots SET max_running = 0")
        pages = {name: _pages_of_a_claim(connection, name) for name in ("short", "long")}
    assert pages["long"] <= 1.3 * pages["short"] + 5


def _fill(db: Database, project: str, count: int) -> None:
    with db.session() as connection:
        connection.script(
            "INSERT INTO commands (id, project, key_id, kind, spec, priority, state, timeouts)"
            f" SELECT gen_random_uuid(), '{project}', k.ids[g % array_length(k.ids, 1) + 1],"
            f" 'shell', '{{}}', 1 + g % 4, 'queued', '{{}}' FROM generate_series(1, {count}) g,"
            " (SELECT array_agg(id) AS ids FROM api_keys) k;"
            "INSERT INTO command_runs (command_id, project) SELECT c.id, c.project FROM commands c"
            " WHERE NOT EXISTS (SELECT FROM command_runs r WHERE r.command_id = c.id)"
        )


def test_a_page_of_a_long_queue_looks_along_it_once(db: Database) -> None:
    """Showing fifty commands that wait reads little more than showing the last of them."""
    PgProjectStore(db).sync([FoundProject("long", "/w")], "test")
    add_key(db)
    _fill(db, "long", 900)
    with db.session() as connection:
        connection.script("VACUUM ANALYZE commands")
        one, fifty = (
            _pages_of(
                connection,
                "SELECT * FROM show_commands(ARRAY(SELECT id FROM commands"
                f" ORDER BY priority DESC, id DESC LIMIT {count}))",
            )
            for count in (1, 50)
        )
    assert fifty <= one + 4 * 50  # each has a row, found by its own index


def _pages_of_a_claim(connection: Connection, project: str) -> float:
    return _pages_of(connection, f"SELECT * FROM claim_command('{project}', 1, '15 s')")


def _pages_of(connection: Connection, query: str) -> float:
    """Buffers hit or read by the median of some runs, after the session has made its plans."""
    pages = []
    for _ in range(9):
        said = connection.script(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}")[0][0]
        plan = (json.loads(said) if isinstance(said, str) else said)[0]["Plan"]
        pages.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
    return float(sorted(pages)[len(pages) // 2])


# -- one at a time --------------------------------------------------------------------------------


def running(db: Database) -> tuple[PgQueue, NewCommand, int]:
    """A command that runs, and its token."""
    PgProjectStore(db).sync([FoundProject("demo", "/w")], "test")
    _, caller = add_key(db)
    new = shell("demo")
    PgCommandStore(db).submit(new, None, caller, ORIGIN)
    queue = PgQueue(db)
    claim = queue.claim("demo", 1)
    assert claim is not None
    queue.mark_running(new.id, claim.token)
    return queue, new, claim.token


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_lost_answer_to_an_append_is_repeated_without_harm(db: Database, size: int) -> None:
    """When the answer was lost after the commit, the repeat stores nothing twice."""
    queue, new, token = running(db)
    batch = [NewEvent(OUTPUT, b"x" * size, "merged", 0)]
    queue.append(new.id, token, batch)
    queue.append(new.id, token, batch)
    longer = [*batch, NewEvent(OUTPUT, b"y" * size, "merged", size)]
    queue.append(new.id, token, longer)
    assert queue.held(new.id, token).offsets == {"merged": 2 * size}


def test_an_append_that_dies_before_its_commit_leaves_nothing(
    db: Database, database_url: str, run_sql: RunSql
) -> None:
    """Numbers and rows come and go together: after a lost COPY the next batch has its seq."""
    queue, new, token = running(db)
    run_sql(
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN new; END $$;"
        "CREATE TRIGGER dies AFTER INSERT ON command_events FOR EACH ROW EXECUTE FUNCTION die()",
        database_url,
    )
    batch = [NewEvent(OUTPUT, b"x" * 70_000, "merged", 0)]
    with pytest.raises(Unavailable):
        queue.append(new.id, token, batch)
    run_sql("DROP TRIGGER dies ON command_events", database_url)
    assert queue.held(new.id, token).offsets == {"merged": 0}
    queue.append(new.id, token, batch)
    seqs = run_sql("SELECT seq FROM command_events ORDER BY seq", database_url)
    assert seqs == [[1], [2], [3]]


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_full_disk_stops_an_append_and_no_more(
    db: Database, database_url: str, run_sql: RunSql, size: int
) -> None:
    """53100 while output is stored: Unavailable, readers go on, and it recovers unaided."""
    queue, new, token = running(db)
    run_sql(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN RAISE EXCEPTION USING ERRCODE = '53100', MESSAGE = 'no space left'; END $$;"
        "CREATE TRIGGER full_ BEFORE INSERT ON command_events"
        " FOR EACH ROW EXECUTE FUNCTION full_disk()",
        database_url,
    )
    batch = [NewEvent(OUTPUT, b"x" * size, "merged", 0)]
    with pytest.raises(Unavailable, match="disk"):
        queue.append(new.id, token, batch)
    _, caller = add_key(db)
    with pytest.raises(Unavailable):
        PgCommandStore(db).submit(shell("demo"), None, caller, ORIGIN)
    assert PgCommandStore(db).get(new.id) is not None
    run_sql("DROP TRIGGER full_ ON command_events", database_url)
    queue.append(new.id, token, batch)
    PgCommandStore(db).submit(shell("demo"), None, caller, ORIGIN)


def test_output_and_states_keep_their_order_under_contention(db: Database) -> None:
    """An appender, a canceller and a prioritiser at once: seq has no gap and no repeat."""
    queue, new, token = running(db)
    commands = PgCommandStore(db)
    _, caller = add_key(db)

    def append() -> None:
        for n in range(40):
            size = 70_000 if n % 8 == 0 else 100
            at = queue.held(new.id, token).offsets["merged"]
            queue.append(new.id, token, [NewEvent(OUTPUT, b"x" * size, "merged", at)])

    def cancel() -> None:
        for _ in range(20):
            commands.cancel(new.id, "graceful", "user", {}, ORIGIN, caller)
            queue.heartbeat([(new.id, token)])

    threads = [threading.Thread(target=work) for work in (append, cancel, cancel)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    queue.finish(new.id, token, State.CANCELLED, DONE)
    seqs = db.run("page", id=new.id, after=0, max_bytes=10**9)
    assert [row["seq"] for row in seqs] == list(range(1, 45))
    assert seqs[-1]["type"] == "end"


def test_a_stopped_holder_of_a_row_is_ended(
    db: Database, database_url: str, run_sql: RunSql
) -> None:
    """A process stopped inside a transaction loses it, and with it the lock."""
    queue, new, token = running(db)
    stopped = Connection(Target.parse(database_url))
    stopped.script("SET idle_in_transaction_session_timeout = '100ms'")
    stopped.script(f"BEGIN; UPDATE command_runs SET worker = 2 WHERE command_id = '{new.id}'")
    assert queue.heartbeat([(new.id, token)])
    with pytest.raises(Unavailable):
        stopped.script("COMMIT")
    assert queue.held(new.id, token)
    stopped.close()


def test_a_process_stopped_inside_a_copy_loses_its_command(db: Database, database_url: str) -> None:
    """Its session is ended once its lease is dead; adoption does not wait for it to wake."""
    queue = PgQueue(db, lease_s=0.2)
    _, new, token = running(db)
    queue.heartbeat([(new.id, token)])
    stopped = Connection(Target.parse(database_url))
    arrived, wake = threading.Event(), threading.Event()

    def endless() -> Iterator[bytes]:
        yield b"PGCOPY\n\xff\r\n\0" + bytes(8)
        arrived.set()
        wake.wait()
        yield b"\xff\xff"

    lost: list[Exception] = []

    def copy() -> None:
        stopped.script(f"BEGIN; UPDATE command_runs SET worker = 2 WHERE command_id = '{new.id}'")
        try:
            stopped.copy("COPY command_events FROM STDIN (FORMAT binary)", endless())
        except Unavailable as error:
            lost.append(error)

    thread = threading.Thread(target=copy)
    thread.start()
    arrived.wait()
    adopted: list[object] = []
    while not adopted:
        adopted += [claim.command.id for claim in queue.adopt(2, 1)]
    assert adopted == [new.id]
    wake.set()
    thread.join()
    assert len(lost) == 1
    stopped.close()


def test_a_stale_token_holds_up_nobody(db: Database) -> None:
    """Writers with the wrong token are refused at once, small or large."""
    queue, new, token = running(db)
    for size in (10, 100_000):
        with pytest.raises(LeaseLost):
            queue.append(new.id, token + 1, [NewEvent(OUTPUT, b"x" * size, "merged", 0)])
    assert queue.held(new.id, token).offsets == {"merged": 0}
