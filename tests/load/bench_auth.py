"""What asking who is there costs, beside what it is compared with, on the same server and in turns.

(a) The one call that authorises and counts, and a trivial logged UPDATE, both prepared on one
connection: with durable commits, as every server of ours has, and, to see the work alone, without.
(b) Requests to a function's own process, and to one that differs in nothing but that its answer to
"who is this" is a constant. (c) Submits into a database, and into one whose audit() does nothing.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from cryptography.fernet import Fernet

from common.adapters.postgres.commands import PgCommandStore
from common.adapters.postgres.connection import Connection
from common.adapters.postgres.keys import PgKeyStore
from common.adapters.postgres.migrate import migrate
from common.adapters.postgres.pool import Database
from common.adapters.postgres.projects import PgProjectStore
from common.adapters.postgres.target import Target
from common.domain import keys
from common.domain.command import Kind, NewCommand
from common.domain.identifiers import new_id
from common.domain.keys import ApiKey, Caller, RateLimit
from common.domain.project import FoundProject
from common.domain.scopes import ALL
from common.ports.commands import Origin
from common.ports.keys import Grant
from infra.local.postgres import EmbeddedPostgres
from tests.harness.running import ROOT, until
from tests.load.bare import free_port

KEYS = 400  # of the default limit, so that every call is granted and none is alone with its row
ROUNDS, BLOCK = 12, 100
ORIGIN = Origin("req_bench", "127.0.0.1", "127.0.0.1")
CALLER = Caller(new_id(), "bench", frozenset(ALL), None, unlimited=True)


def turns(*works: Callable[[], object], rounds: int = ROUNDS, block: int = BLOCK) -> list[float]:
    """The median of each in milliseconds, measured in alternating blocks."""
    took: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for mine, work in zip(took, works, strict=True):
            work()
            for _ in range(block):
                began = time.perf_counter()
                work()
                mine.append((time.perf_counter() - began) * 1000)
    return [statistics.median(mine) for mine in took]


def told(what: str, one: float, other: float, most: float | None) -> None:
    verdict = "" if most is None else f" (at most {most})"
    if most is not None and one / other > most:
        verdict += "  <-- over"
    print(f"{what}: {one:.3f} ms / {other:.3f} ms = {one / other:.2f}{verdict}", flush=True)


def stored_key(db: Database, rate: RateLimit | None) -> str:
    """The text of a new key with every scope."""
    text = keys.new_key()
    key = ApiKey(
        new_id(), "bench", keys.prefix_of(text), frozenset(ALL), None, (), rate, None,
        datetime.now(UTC),
    )  # fmt: skip
    PgKeyStore(db).create(key, keys.hash_of(text), CALLER, ORIGIN, None)
    return text


def caller_of(db: Database, text: str) -> Caller:
    caller = PgKeyStore(db).authorise(keys.hash_of(text), (), None, counts=False).caller
    assert caller is not None
    return caller


def authorising(url: str, how: str, most: float | None) -> None:
    """(a)"""
    db = Database(url)
    hashes = [keys.hash_of(stored_key(db, RateLimit(100, 60))) for _ in range(KEYS)]
    connection = Connection(Target.parse(url), application_name="bench")
    connection.script(
        "CREATE TABLE bench (id int PRIMARY KEY, n int NOT NULL) WITH (fillfactor = 50);"
        f"INSERT INTO bench SELECT g, 0 FROM generate_series(0, {KEYS - 1}) g"
    )
    update = connection.session.prepare("UPDATE bench SET n = n + 1 WHERE id = :id")
    number = iter(range(10**9))
    given = {"scopes": ["keys:admin"], "ip": None, "counts": True}

    def authorise() -> None:
        [row] = connection.run("authorise", {"hash": hashes[next(number) % KEYS], **given})
        assert row["status"] == "ok"

    def trivial() -> None:
        update.run(id=str(next(number) % KEYS))

    for _ in range(KEYS):
        authorise()  # once each: `last_used_at` is written at most once a minute
    told(f"(a) authorise / UPDATE, {how}", *turns(authorise, trivial), most=most)
    connection.close()
    db.close()


@contextmanager
def serving(function: str, url: str, key_id: UUID, *, known: bool) -> Iterator[httpx.Client]:
    """A client of one function's process; `known`: everybody is who they must be."""
    port = free_port()
    environment = os.environ | {
        "FUNCTION_SOURCE": str(ROOT / "functions" / function / "main.py"),
        "FUNCTION_TARGET": "handle",
        "RDEV_DATABASE_URL": url,
        "RDEV_HOST": "127.0.0.1",
        "RDEV_LOG_LEVEL": "error",
        "RDEV_SECRET_KEYS": Fernet.generate_key().decode(),
        "PORT": str(port),
        "BENCH_KEY_ID": str(key_id),
    }
    module = "tests.load.bench_auth" if known else "common.entrypoints.serve"
    process = subprocess.Popen([sys.executable, "-m", module, "serve"], cwd=ROOT, env=environment)
    try:
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False)
        until("it answers", lambda: _alive(client))
        yield client
    finally:
        process.terminate()
        process.wait()


def _alive(client: httpx.Client) -> bool:
    try:
        return client.get("/health/liveness").is_success
    except httpx.HTTPError:
        return False


def serve_without_asking() -> None:
    """A function's process in which authorising is a constant, and everything else is itself."""
    from common.bootstrap import app
    from common.entrypoints import serve

    key_id = UUID(os.environ["BENCH_KEY_ID"])
    caller = replace(CALLER, key_id=key_id, rate_limit=RateLimit(100_000, 1), unlimited=False)
    grant = Grant("ok", caller, 99_999, 1.0)
    app().__dict__["authorise"] = lambda *_args, **_more: grant
    serve.main()


def requests(url: str) -> None:
    """(b)"""
    db = Database(url)
    PgProjectStore(db).sync([FoundProject("demo", "/w/demo")], "test")
    text = stored_key(db, RateLimit(100_000, 1))
    key_id = caller_of(db, text).key_id
    headers = {"authorization": f"Bearer {text}"}
    body = {"project": "demo", "kind": "shell", "script": "true"}

    def asked(client: httpx.Client, method: str, path: str, **more: Any) -> Callable[[], None]:
        def ask() -> None:
            client.request(method, path, headers=headers, **more).raise_for_status()

        return ask

    for function, what, method, path, more in (
        ("projects", "GET /v1/projects/demo", "GET", "/v1/projects/demo", {}),
        ("commands", "GET /v1/commands", "GET", "/v1/commands?limit=20", {}),
        ("commands", "POST /v1/commands", "POST", "/v1/commands", {"json": body}),
    ):
        with ExitStack() as stack:
            pair = [
                asked(
                    stack.enter_context(serving(function, url, key_id, known=known)),
                    method,
                    path,
                    **more,
                )
                for known in (False, True)
            ]
            told(f"(b) {what} with a key / without", *turns(*pair), most=1.6)
    db.close()


def submits(url: str, how: str, most: float | None) -> None:
    """(c)"""
    admin = Connection(Target.parse(url.replace("/rdev?", "/postgres?")), application_name="bench")
    admin.script("CREATE DATABASE silent TEMPLATE rdev")
    admin.close()
    databases = [Database(url), Database(url.replace("/rdev?", "/silent?"))]
    with databases[1].session() as session:
        session.script(
            "CREATE OR REPLACE FUNCTION audit(a jsonb, p_action text, p_target text,"
            " p_project text, p_detail jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN END $$"
        )

    def submitting(db: Database) -> Callable[[], None]:
        PgProjectStore(db).sync([FoundProject("demo", "/w/demo")], "test")
        caller = caller_of(db, stored_key(db, None))
        store = PgCommandStore(db)

        def submit() -> None:
            new = NewCommand(new_id(), "demo", Kind.SHELL, {"script": "true"})
            store.submit(new, None, caller, ORIGIN, None)

        return submit

    with_it, without = turns(*(submitting(db) for db in databases))
    told(f"(c) submit with its audit entry / without, {how}", with_it, without, most)
    for db in databases:
        db.close()


def main() -> None:
    """Print the figures."""
    for how, settings in (("durable", {}), ("fsync off", {"fsync": "off"})):
        with (
            tempfile.TemporaryDirectory() as folder,
            EmbeddedPostgres(Path(folder), settings) as server,
        ):
            migrate(server.url)
            authorising(server.url, how, None if settings else 1.3)
            submits(server.url, how, None if settings else 1.15)
            if not settings:
                requests(server.url)


if __name__ == "__main__":
    serve_without_asking() if "serve" in sys.argv[1:] else main()
