"""What exact limits cost: rdev's claim + finish against SKIP LOCKED queues on the same server.

All run from the same clients through the same pool, one statement a step, in turns, so the ratios
hold on other machines. `plain` is a SKIP LOCKED claim on the very same tables that leaves the same
records (lease, end event, outbox row) and knows no limits, lanes, pauses or sessions. `bare` is the
least a queue can be: one table, one index, two UPDATEs and no records at all.
Run it alone: `python -m tests.load.bench_queue [postgresql://…/empty_database]`.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol

from common.adapters.postgres import statements
from common.adapters.postgres.migrate import migrate
from common.adapters.postgres.pool import Database
from common.adapters.postgres.projects import PgProjectStore
from common.adapters.postgres.queue import PgQueue, to_claim
from common.domain.command import State
from common.domain.identifiers import new_id
from common.domain.project import FoundProject
from common.ports.queue import Claim
from infra.local.postgres import EmbeddedPostgres

PROCESSES: Final = 4
THREADS: Final = 4
CLIENTS: Final = PROCESSES * THREADS
KEYS: Final = 8
SHORT, LONG = 10, 10_000
ROUND: Final = 10  # jobs a client does before it queues as many new ones, outside the measured time
START_S: Final = 0.7  # all clients begin together, when their processes are up
ROUNDS: Final = 3  # plain and ours in turns, so that a neighbour's noise meets both
SAMPLES: Final = 400  # of a latency that is measured from one client
DONE: Final = {"reason": "exit_zero", "exit_code": 0}

_SETUP: Final = """
CREATE TABLE bare_jobs (id uuid PRIMARY KEY, state text NOT NULL, priority smallint NOT NULL,
                         spec jsonb NOT NULL, worker bigint, outcome jsonb);
CREATE INDEX bare_ready ON bare_jobs (priority, id) WHERE state = 'queued';
CREATE FUNCTION plain_claim(p_project text, p_worker bigint) RETURNS SETOF claim_view
LANGUAGE plpgsql AS $$
DECLARE v_id uuid; BEGIN
  UPDATE commands SET state = 'claimed' WHERE id = (
    SELECT id FROM commands WHERE project = p_project AND state = 'queued' ORDER BY priority, id
     LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id INTO v_id;
  UPDATE command_runs SET lease_token = lease_token + 1, worker = p_worker,
         lease_until = clock_timestamp() + interval '15 s' WHERE command_id = v_id;
  RETURN QUERY SELECT * FROM claim_view WHERE id = v_id;
END $$;
CREATE FUNCTION bench_id(p_n bigint) RETURNS uuid LANGUAGE sql AS $$
  SELECT overlay(gen_random_uuid()::text
                 PLACING left(oldest_id_at(clock_timestamp())::text, 13) FROM 1)::uuid $$;
CREATE FUNCTION bench_fill(p_project text, p_n int) RETURNS void LANGUAGE sql AS $$
  WITH k AS (SELECT array_agg(id ORDER BY id) AS ids FROM api_keys),
  c AS (INSERT INTO commands (id, project, key_id, kind, spec, priority, state, timeouts)
        SELECT bench_id(g), p_project, k.ids[g % array_length(k.ids, 1) + 1], 'shell',
               '{"script": "true"}', 1 + g % 4, 'queued', '{}'
          FROM generate_series(1, p_n) g, k RETURNING id)
  INSERT INTO command_runs (command_id, project, next_seq) SELECT id, p_project, 2 FROM c $$;
CREATE FUNCTION bare_fill(p_project text, p_n int) RETURNS void LANGUAGE sql AS $$
  INSERT INTO bare_jobs (id, state, priority, spec)
  SELECT bench_id(g), 'queued', 1 + g % 4, '{"script": "true"}' FROM generate_series(1, p_n) g $$;
"""

_QUERIES: Final = {
    "bench_fill": "SELECT bench_fill(:project, :n)",
    "bare_fill": "SELECT bare_fill(:project, :n)",
    "plain_claim": "SELECT * FROM plain_claim(:project, :worker)",
    "bare_claim": """UPDATE bare_jobs SET state = 'running', worker = :worker
        WHERE id = (SELECT id FROM bare_jobs WHERE state = 'queued' ORDER BY priority, id
                     LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING *""",
    "bare_finish": "UPDATE bare_jobs SET state = 'done', outcome = :outcome WHERE id = :id",
}


class Steps(Protocol):
    """One of the two queues, as a client uses it."""

    fill: str

    def __call__(self, project: str) -> None:
        """Claim one job and finish it."""
        ...


class Bare:
    """UPDATE … WHERE id = (SELECT … FOR UPDATE SKIP LOCKED LIMIT 1), then an UPDATE."""

    fill = "bare_fill"

    def __init__(self, db: Database) -> None:
        self._db = db

    def __call__(self, project: str) -> None:
        row = None
        while row is None:  # the last free row may be locked by a neighbour
            row = self._db.one("bare_claim", worker=1)
        self._db.run("bare_finish", id=row["id"], outcome='{"reason": "exit_zero"}')


class Ours:
    """The queue of the product, with limits, lanes, pauses and session locks."""

    fill = "bench_fill"

    def __init__(self, db: Database) -> None:
        self._queue = PgQueue(db)

    def claim(self, project: str) -> Claim | None:
        return self._queue.claim(project, 1)

    def __call__(self, project: str) -> None:
        claim = None
        while claim is None:
            claim = self.claim(project)
        self._queue.finish(claim.command.id, claim.token, State.SUCCEEDED, DONE)


class Plain(Ours):
    """The same tables and records, without limits, lanes, pauses and session locks."""

    def __init__(self, db: Database) -> None:
        super().__init__(db)
        self._db = db

    def claim(self, project: str) -> Claim | None:
        row = self._db.one("plain_claim", project=project, worker=1)
        return to_claim(row) if row else None


Kind = type[Ours | Bare]
KINDS: Final[tuple[Kind, ...]] = (Ours, Plain, Bare)


def measure(url: str, seconds: float = 1.5) -> dict[str, float]:
    """Every figure of this file by name. The database must be empty, and is left full."""
    _use_bench_queries()
    migrate(url)
    db = Database(url)
    _prepare(db)
    figures: dict[str, float] = {}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=spawn) as pool:
        for backlog in (SHORT, LONG):
            for name, spread in (("16 projects", CLIENTS), ("1 project", 1)):
                rates = [
                    [_rate(pool, db, url, kind, backlog, spread, seconds) for kind in KINDS]
                    for _ in range(ROUNDS)
                ]
                label = f"claim+finish, {backlog} queued, {name}"
                for n, kind in enumerate(KINDS):
                    figures[f"{label}: {kind.__name__.lower()} per s"] = statistics.median(
                        rate[n] for rate in rates
                    )
                for n, kind in enumerate(KINDS[1:], 1):
                    figures[f"{label}: ours against {kind.__name__.lower()}"] = statistics.median(
                        rate[0] / rate[n] for rate in rates
                    )
    for name in ("16 projects", "1 project"):
        long, short = (
            figures[f"claim+finish, {n} queued, {name}: ours per s"] for n in (LONG, SHORT)
        )
        figures[f"claim+finish, {name}: 10000 queued against 10"] = long / short
    figures |= _full_and_blocked(db)
    db.close()
    return figures


def _use_bench_queries() -> None:
    statements.statements().update(_QUERIES)


def _prepare(db: Database) -> None:
    names = [*(f"p{i}" for i in range(CLIENTS)), "full", "blocked"]
    PgProjectStore(db).sync(
        [FoundProject(name, f"/w/{name}", max_concurrent_commands=100) for name in names], "bench"
    )
    with db.session() as connection:
        connection.script(_SETUP)
        for n in range(KEYS):
            key = new_id()
            connection.script(
                "INSERT INTO api_keys (id, name, prefix, key_hash, scopes) "
                f"VALUES ('{key}', 'k{n}', 'rdev_k{n}', '\\x{key.hex}', '{{}}')"
            )


def _empty(db: Database) -> None:
    with db.session() as connection:
        connection.script(
            "TRUNCATE bare_jobs, commands, command_runs, command_events, outbox, lanes"
        )


def _rate(
    pool: ProcessPoolExecutor,
    db: Database,
    url: str,
    kind: Kind,
    backlog: int,
    spread: int,
    seconds: float,
) -> float:
    """Jobs per second of 16 clients on `spread` projects, with `backlog` jobs queued in each."""
    _empty(db)
    for n in range(spread):
        db.run(kind.fill, project=f"p{n}", n=backlog + (CLIENTS // spread) * ROUND)
    with db.session() as connection:
        connection.script("VACUUM ANALYZE")
    start = time.monotonic() + START_S
    futures = [
        pool.submit(_process, url, kind, number, spread, seconds, start)
        for number in range(PROCESSES)
    ]
    return sum(future.result() for future in futures)


def _process(url: str, kind: Kind, number: int, spread: int, seconds: float, start: float) -> float:
    """One process's share of the clients; their rates together."""
    _use_bench_queries()
    db = Database(url)
    projects = [f"p{(number * THREADS + n) % spread}" for n in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as threads:
        rates = threads.map(
            lambda project: _client(db, kind(db), project, seconds, start), projects
        )
        total = sum(rates)
    db.close()
    return total


def _client(db: Database, steps: Steps, project: str, seconds: float, start: float) -> float:
    time.sleep(max(0.0, start - time.monotonic()))
    busy, done, until = 0.0, 0, time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.perf_counter()
        for _ in range(ROUND):
            steps(project)
        busy += time.perf_counter() - began
        done += ROUND
        db.run(steps.fill, project=project, n=ROUND)
    return done / busy


def _full_and_blocked(db: Database) -> dict[str, float]:
    """Latencies of one client: a full project says no; claiming beside a blocked one."""
    _empty(db)
    ours = Ours(db)
    queue = PgQueue(db)
    figures: dict[str, float] = {}
    db.run("bench_fill", project="p0", n=SAMPLES * 3)
    alone = _latency(lambda: ours("p0"))
    for backlog in (SHORT, LONG):
        db.run("bench_fill", project="full", n=backlog + 100)
        while queue.claim("full", 1) is not None:
            pass
        figures[f"a full project says no, {backlog} queued: against claim+finish"] = (
            _latency(lambda: queue.claim("full", 1)) / alone
        )
    with db.session() as connection:
        connection.script("UPDATE projects SET paused_at = now() WHERE name = 'blocked'")
    db.run("bench_fill", project="blocked", n=LONG)
    figures["claim beside a blocked project of 10000: against alone"] = (
        _latency(lambda: ours("p0")) / alone
    )
    return figures


def _latency(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(SAMPLES):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def main() -> None:
    if len(sys.argv) > 1:
        figures = measure(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as home, EmbeddedPostgres(Path(home)) as server:
            figures = measure(server.url)
    for name, value in figures.items():
        print(f"{value:10.2f}  {name}")


if __name__ == "__main__":
    main()
