"""A server that goes down at once: what was answered is there afterwards, and the pool goes on."""

from __future__ import annotations

import datetime as dt
import os
import signal
from pathlib import Path

from common.adapters.postgres.commands import PgCommandStore
from common.adapters.postgres.keys import PgKeyStore
from common.adapters.postgres.migrate import migrate
from common.adapters.postgres.pool import Database
from common.adapters.postgres.projects import PgProjectStore
from common.adapters.postgres.queue import PgQueue
from common.domain.command import Kind, NewCommand, State
from common.domain.identifiers import new_id
from common.domain.keys import ApiKey, Caller, hash_of, new_key, prefix_of
from common.domain.project import FoundProject
from common.ports.commands import Origin
from infra.local.postgres import EmbeddedPostgres

ORIGIN = Origin("req_test")


def restart_at_once(server: EmbeddedPostgres) -> None:
    """An immediate shutdown (nothing is flushed, no goodbye), then a start with recovery."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGQUIT)
    server.wait()
    server.stop()
    server.start()


def test_what_was_answered_survives_a_crash(tmp_path: Path) -> None:
    """Submits, claims and ends that returned are there after the server went down at once."""
    with EmbeddedPostgres(tmp_path, {"fsync": "off"}) as server:
        migrate(server.url)
        db = Database(server.url)
        commands, queue = PgCommandStore(db), PgQueue(db)
        caller = prepare(db)
        for _ in range(3):
            new = NewCommand(new_id(), "demo", Kind.SHELL, {"script": "x"})
            commands.submit(new, None, caller, ORIGIN)
            restart_at_once(server)
            claim = queue.claim("demo", 1)
            restart_at_once(server)
            assert claim is not None
            assert queue.held(new.id, claim.token).command.state is State.CLAIMED
            queue.finish(new.id, claim.token, State.SUCCEEDED, {"reason": "exit_zero"})
            restart_at_once(server)
            ended = commands.get(new.id)
            assert ended is not None
            assert ended.state is State.SUCCEEDED
        db.close()


def prepare(db: Database) -> Caller:
    PgProjectStore(db).sync([FoundProject("demo", "/w")], "test")
    text = new_key()
    now = dt.datetime.now(dt.UTC)
    key = ApiKey(new_id(), "k", prefix_of(text), frozenset(), None, (), None, None, now)
    caller = Caller(key.id, key.name, key.scopes, None)
    PgKeyStore(db).create(key, hash_of(text), caller, ORIGIN, None)
    return caller
