"""Events on a real server: bytes, partitions, retention, a cursor that loses nothing."""

from __future__ import annotations

import datetime as dt
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest

from common.adapters.postgres.commands import PgCommandStore
from common.adapters.postgres.connection import Connection
from common.adapters.postgres.events import PgEventReader
from common.adapters.postgres.keys import PgKeyStore
from common.adapters.postgres.pool import Database
from common.adapters.postgres.projects import PgProjectStore
from common.adapters.postgres.queue import PgQueue
from common.adapters.postgres.target import Target
from common.adapters.postgres.upkeep import PgUpkeep
from common.domain.command import Kind, NewCommand, State
from common.domain.errors import Unavailable
from common.domain.events import OUTPUT, Event, NewEvent
from common.domain.identifiers import day_of, new_id
from common.domain.keys import ApiKey, Caller, hash_of, new_key, prefix_of
from common.domain.project import FoundProject
from common.ports.commands import Origin
from common.ports.events import Position
from common.ports.queue import Claim
from common.ports.upkeep import Retention

RunSql = Callable[..., list[list[Any]]]
ORIGIN = Origin("req_test")


class Stage:
    """A project with a caller, and commands that run in it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.db = Database(url)
        self.queue = PgQueue(self.db)
        self.events = PgEventReader(self.db)
        self.commands = PgCommandStore(self.db)
        self.upkeep = PgUpkeep(self.db)
        PgProjectStore(self.db).sync(
            [FoundProject("demo", "/w", max_concurrent_commands=100)], "test"
        )
        text = new_key()
        now = dt.datetime.now(dt.UTC)
        scopes = frozenset({"commands:write"})
        key = ApiKey(new_id(), "k", prefix_of(text), scopes, None, (), None, None, now)
        self.caller = Caller(key.id, key.name, scopes, None)
        PgKeyStore(self.db).create(key, hash_of(text), self.caller, ORIGIN, None)

    def running(self, id_: UUID | None = None) -> Claim:
        new = NewCommand(id_ or new_id(), "demo", Kind.SHELL, {"script": "x"})
        self.commands.submit(new, None, self.caller, ORIGIN)
        claim = self.queue.claim("demo", 1)
        assert claim is not None
        return claim

    def write(self, claim: Claim, *pieces: bytes) -> None:
        at = self.queue.held(claim.command.id, claim.token).offsets["merged"]
        events = []
        for piece in pieces:
            events.append(NewEvent(OUTPUT, piece, "merged", at))
            at += len(piece)
        self.queue.append(claim.command.id, claim.token, events)

    def elsewhere(self) -> Connection:
        """Another session, whose transactions the test begins and ends."""
        return Connection(Target.parse(self.url), application_name="elsewhere")


@pytest.fixture
def stage(database_url: str) -> Iterator[Stage]:
    made = Stage(database_url)
    yield made
    made.db.close()


def write_by_hand(session: Connection, claim: Claim, count: int = 1) -> None:
    """Append warnings inside the session's own open transaction."""
    events = ", ".join(['{"type": "warning", "data": "e30="}'] * count)
    lease = f"'{claim.command.id}', {claim.token}"
    session.script(f"SELECT * FROM append_events({lease}, '[{events}]', NULL, NULL)")


def follow(
    stage: Stage, position: Position, *, limit: int = 100, output: bool = True
) -> tuple[list[tuple[UUID, int]], Position]:
    """Everything new, page by page, and the position after it."""
    found: list[Event] = []
    while True:
        page = stage.events.project_news("demo", position, output=output, limit=limit)
        found += page.events
        position = page.position
        if not page.more:
            return [(event.command_id, event.seq) for event in found], position


# -- bytes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("repeat", [1, 600])
def test_every_byte_survives_both_ways_in(stage: Stage, repeat: int) -> None:
    """All 256 values, NUL included, by one call and by binary COPY."""
    claim = stage.running()
    whole = bytes(range(256)) * repeat
    stage.write(claim, whole[:1], b"", whole[1:-1], whole[-1:])
    found = stage.commands.output(claim.command.id, "merged", 0, 10**9)
    assert b"".join(segment.data for segment in found) == whole


def test_copied_events_are_like_the_others(stage: Stage) -> None:
    """Day, project, time and xid are the database's own, whichever way an event came in."""
    claim = stage.running()
    stage.write(claim, b"small")
    stage.write(claim, b"x" * 70_000)
    rows = stage.db.run("page", id=claim.command.id, after=1, max_bytes=10**9)
    assert [row["seq"] for row in rows] == [2, 3]
    with stage.db.session() as connection:
        found = connection.script(
            "SELECT day, project, at BETWEEN now() - interval '1 min' AND clock_timestamp(),"
            " xid < pg_snapshot_xmax(pg_current_snapshot()) FROM command_events WHERE seq > 1"
        )
    assert found == [[day_of(claim.command.id), "demo", True, True]] * 2


def test_a_far_offset_is_found_without_reading_up_to_it(stage: Stage) -> None:
    """An offset late in many events costs about as many pages as an early one."""
    claim = stage.running()
    for _ in range(20):
        stage.write(claim, *[b"0123456789"] * 200)
    query = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT seq_at_offset('{}', 'merged', {})"

    def pages(offset: int) -> int:
        sql = query.format(claim.command.id, offset)
        with stage.db.session() as connection:
            for _ in range(7):
                plan = connection.script(sql)[0][0][0]["Plan"]
        return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])

    assert pages(39_995) <= 3 * pages(5) + 10
    found = stage.commands.output(claim.command.id, "merged", 39_995, 100)
    assert [(s.offset, s.data) for s in found] == [(39_995, b"56789")]


# -- a project's cursor ----------------------------------------------------------------------------


def test_a_transaction_that_commits_late_is_delivered(stage: Stage) -> None:
    """Whoever took the lower number and commits after a reader has passed is not lost."""
    early, late = stage.running(), stage.running()
    start = stage.events.project_now("demo")
    session = stage.elsewhere()
    session.script("BEGIN")
    write_by_hand(session, late)
    stage.write(early, b"a")
    first, position = follow(stage, start)
    assert first == [(early.command.id, 2)]
    stage.write(early, b"b")
    second, position = follow(stage, position)
    assert second == [(early.command.id, 3)]
    session.script("COMMIT")
    third, position = follow(stage, position)
    assert third == [(late.command.id, 2)]
    assert follow(stage, position)[0] == []
    assert position.seen == {}
    session.close()


def test_a_position_kept_from_before_a_late_commit_resumes_exactly(stage: Stage) -> None:
    """Every position ever given, used again after all has committed, gives the exact rest."""
    claims = [stage.running() for _ in range(3)]
    session = stage.elsewhere()
    positions = [(stage.events.project_now("demo"), 0)]
    delivered: list[tuple[UUID, int]] = []
    for n in range(6):
        if n % 3 == 0:
            session.script("BEGIN")
            write_by_hand(session, claims[0])
        stage.write(claims[1], b"x")
        stage.write(claims[2], b"y", b"z")
        new, position = follow(stage, positions[-1][0], limit=2)
        delivered += new
        positions.append((position, len(delivered)))
        if n % 3 == 1:
            session.script("COMMIT")
    new, _ = follow(stage, positions[-1][0])
    delivered += new
    assert len(delivered) == len(set(delivered)) == 6 * 3 + 2
    for position, count in positions:
        rest, _ = follow(stage, position, limit=random.choice([1, 3, 100]))
        assert sorted(rest) == sorted(delivered[count:])
    session.close()


def test_an_open_transaction_elsewhere_delays_nothing(stage: Stage) -> None:
    """A long transaction holds the horizon back, and what commits meanwhile comes at once."""
    session = stage.elsewhere()
    session.script("BEGIN; SELECT pg_current_xact_id()")
    claim = stage.running()
    position = stage.events.project_now("demo")
    for n in range(5):
        stage.write(claim, b"%d" % n)
        new, position = follow(stage, position)
        assert new == [(claim.command.id, n + 2)]
    assert position.seen == {claim.command.id: 6}
    session.script("ROLLBACK")
    assert follow(stage, position)[0] == []
    session.close()


def test_a_numbers_order_is_not_a_commits_order(stage: Stage) -> None:
    """A command's higher seq may have the lower transaction number; its order stays its seq's."""
    claim = stage.running()
    start = stage.events.project_now("demo")
    low, high = stage.elsewhere(), stage.elsewhere()
    low.script("BEGIN; SELECT pg_current_xact_id()")
    high.script("BEGIN")
    write_by_hand(high, claim)
    high.script("COMMIT")
    write_by_hand(low, claim)
    low.script("COMMIT")
    for limit in (1, 2, 100):
        assert follow(stage, start, limit=limit)[0] == [
            (claim.command.id, 2),
            (claim.command.id, 3),
        ]
    low.close()
    high.close()


@pytest.mark.parametrize("seed", range(3))
def test_a_reader_beside_writers_sees_each_event_once_in_order(stage: Stage, seed: int) -> None:
    """Writers with transactions of any length, a reader with pages of any size: all, once."""
    dice = random.Random(seed)
    claims = [stage.running() for _ in range(4)]
    position = stage.events.project_now("demo")
    written = threading.Event()

    def write(claim: Claim, dice: random.Random) -> None:
        session = stage.elsewhere()
        for _ in range(25):
            session.script("BEGIN")
            if dice.random() < 0.5:
                session.script("SELECT pg_current_xact_id()")
            write_by_hand(session, claim, dice.randint(1, 4))
            if dice.random() < 0.3:
                session.script("SELECT pg_sleep(0.002)")
            session.script("COMMIT" if dice.random() < 0.9 else "ROLLBACK")
        session.close()

    threads = [
        threading.Thread(target=write, args=(claim, random.Random(dice.random())))
        for claim in claims
        for _ in range(2)
    ]
    seen: list[tuple[UUID, int]] = []
    ending = threading.Thread(target=lambda: ([t.join() for t in threads], written.set()))
    for thread in [*threads, ending]:
        thread.start()
    last_round = False
    while not last_round:
        last_round = written.is_set()
        new, position = follow(stage, position, limit=dice.choice([1, 5, 200]))
        seen += new
    for claim in claims:
        own = [seq for id_, seq in seen if id_ == claim.command.id]
        last = stage.events.page(claim.command.id, 0, 1).last
        assert own == list(range(2, last + 1))


def test_hidden_output_costs_a_page_and_no_event(stage: Stage) -> None:
    """Without output a burst of it is passed by, page after page, and what comes after is found."""
    claim = stage.running()
    position = stage.events.project_now("demo")
    stage.write(claim, *[b"x"] * 100)
    stage.queue.finish(claim.command.id, claim.token, State.SUCCEEDED, {})
    found, position = follow(stage, position, limit=5, output=False)
    assert found == [(claim.command.id, 102)]
    assert follow(stage, position)[0] == []


# -- partitions ------------------------------------------------------------------------------------


def old_id(days: int) -> UUID:
    at = dt.datetime.now(dt.UTC) - dt.timedelta(days=days)
    milliseconds = int(at.timestamp() * 1000)
    return UUID(int=(milliseconds << 80) | (new_id().int & ((1 << 80) - 1)))


def tables(run_sql: RunSql, url: str) -> list[str]:
    found = run_sql("SELECT DISTINCT tableoid::regclass::text FROM command_events ORDER BY 1", url)
    return [str(row[0]) for row in found]


def test_events_lie_in_their_commands_day(stage: Stage, run_sql: RunSql) -> None:
    """A command's events share one partition, however long it runs; strays go to the default."""
    claim = stage.running()
    stage.write(claim, b"x")
    today = f"command_events_{day_of(claim.command.id):%Y%m%d}"
    assert tables(run_sql, stage.url) == [today]
    stage.running(old_id(30))
    assert tables(run_sql, stage.url) == [today, "command_events_default"]


def test_a_day_with_rows_in_the_default_partition_stays_there(
    stage: Stage, run_sql: RunSql
) -> None:
    """A missing partition is no error, now or when it could be made later."""
    claim = stage.running()
    today = f"{day_of(claim.command.id):%Y%m%d}"
    run_sql(f"DROP TABLE command_events_{today}", stage.url)
    other = stage.running()
    assert stage.upkeep.make_partitions(7) == 0
    assert [e.seq for e in stage.events.page(other.command.id, 0, 1000).events] == [1]


def test_two_make_the_same_partitions_at_once(stage: Stage, run_sql: RunSql) -> None:
    """Both succeed, and each day is made once."""
    made: list[int] = []
    threads = [
        threading.Thread(target=lambda: made.append(stage.upkeep.make_partitions(30)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [0, 0, 0, 2 * 23]  # of events and of attempts


def test_an_attached_partition_has_every_index(stage: Stage, run_sql: RunSql) -> None:
    """A partition made by hand and attached is as complete as its parent."""
    found = run_sql(
        "SELECT count(*) FROM pg_index WHERE indrelid = (SELECT inhrelid FROM pg_inherits"
        " WHERE inhparent = 'command_events'::regclass ORDER BY inhrelid DESC LIMIT 1)",
        stage.url,
    )
    assert found == [[2]]


def test_old_partitions_are_dropped(stage: Stage, run_sql: RunSql) -> None:
    """A day beyond the retention goes at once, with its rows; younger days stay."""
    run_sql("SELECT ensure_event_partitions(current_date - 21, 10)", stage.url)
    ended = stage.running(old_id(20))
    stage.queue.finish(ended.command.id, ended.token, State.SUCCEEDED, {})
    young = stage.running(old_id(13))
    assert stage.upkeep.drop_expired(Retention())["command_events"] == 7
    assert stage.events.page(ended.command.id, 0, 1000).first is None
    assert stage.events.page(young.command.id, 0, 1000).first == 1


def test_a_busy_table_is_left_for_the_next_tick(stage: Stage, run_sql: RunSql) -> None:
    """Making partitions gives way to a long reader instead of making everybody queue."""
    reader = stage.elsewhere()
    reader.script("BEGIN; LOCK TABLE command_events_default IN ACCESS SHARE MODE")
    run_sql("ALTER FUNCTION ensure_event_partitions SET lock_timeout = '50ms'", stage.url)
    with pytest.raises(Unavailable):
        stage.upkeep.make_partitions(8)
    reader.script("COMMIT")
    assert stage.upkeep.make_partitions(8) == 2  # of events and of attempts
    reader.close()


def test_days_of_ids_agree_with_python(stage: Stage) -> None:
    """day_of in SQL and in the domain name the same day, at midnight and far away."""
    edges = ["2026-01-01T00:00:00", "2026-01-01T23:59:59.999", "1970-01-01T00:00:00"]
    for edge in [*edges, "9999-12-31T23:59:59"]:
        at = dt.datetime.fromisoformat(edge).replace(tzinfo=dt.UTC)
        value = UUID(int=(int(at.timestamp() * 1000) << 80) | (7 << 76) | (2 << 62))
        with stage.db.session() as connection:
            assert connection.script(f"SELECT day_of('{value}')") == [[day_of(value)]]


def test_any_id_can_be_asked_for(stage: Stage) -> None:
    """An id far beyond every calendar is simply not there."""
    beyond = UUID(int=(1 << 128) - 1)
    assert stage.events.page(beyond, 0, 100).events == []
    assert stage.commands.output(beyond, "merged", 0, 100) == []
