"""The pool of connections, and the three ways to use one: a statement, a transaction, a session.

Last in, first out: few connections stay warm and the rest age out. A connection goes back only when
nothing about it is in doubt. Waiting for one is bounded, so a full pool is a 503 and not a queue.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from pg8000.exceptions import DatabaseError

from common.adapters.postgres.connection import STATEMENT_TIMEOUT_S, Connection, Row
from common.adapters.postgres.failures import STALE_PLAN, Conflicted, sqlstate
from common.adapters.postgres.parameters import Parameter, encode_all
from common.adapters.postgres.target import Target
from common.domain.errors import Unavailable
from common.services import telemetry

T = TypeVar("T")

MAX_TRIES: Final = 5  # of a transaction that lost against another one
_PAUSE_S: Final = 0.01  # before the second try; doubled for each further one, half of it random

log = telemetry.logger("rdev.postgres")


class Database:
    """A pool on one database. Opens nothing before first use, so a fork may come after it.

    `max_idle_s` and `max_lifetime_s` follow data.md (1 and 5 minutes): a server that moved is left
    soon.
    """

    def __init__(
        self,
        url: str,
        *,
        max_open: int = 25,
        max_idle: int = 10,
        max_idle_s: float = 60.0,
        max_lifetime_s: float = 300.0,
        wait_s: float = 5.0,
        application_name: str = "rdev",
        statement_timeout_s: float = STATEMENT_TIMEOUT_S,
    ) -> None:
        self.target = Target.parse(url)
        self._max_open = max_open
        self._max_idle = min(max_idle, max_open)
        self._max_idle_s = max_idle_s
        self._max_lifetime_s = max_lifetime_s
        self._wait_s = wait_s
        self._application_name = application_name
        self._statement_timeout_s = statement_timeout_s
        self._changed = threading.Condition()
        self._idle: deque[Connection] = deque()
        self._open = 0
        self._closed = False
        self._sweeper: threading.Timer | None = None

    def run(self, name: str, /, **parameters: Parameter) -> list[Row]:
        """Run a named query as a transaction of its own, in one round trip; its rows."""
        given = encode_all(
            parameters
        )  # what cannot be sent is refused before a connection is taken
        try:
            return self._retried(lambda: self._statement(name, given))
        except DatabaseError as error:
            if sqlstate(error) not in STALE_PLAN:
                raise
            return self._retried(lambda: self._statement(name, given))

    def one(self, name: str, /, **parameters: Parameter) -> Row | None:
        """Like `run`: the first row, or None."""
        rows = self.run(name, **parameters)
        return rows[0] if rows else None

    def atomically(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction; from its start again when it lost against another one."""
        return self._retried(lambda: self._transaction(work))

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """BEGIN … COMMIT around the block; any exception rolls back, also one that was caught."""
        with self.session() as connection:
            connection.script("BEGIN")
            try:
                yield connection
            except BaseException:
                if not connection.broken:
                    connection.script("ROLLBACK")
                raise
            if connection.in_failed_transaction:
                connection.script("ROLLBACK")
                raise RuntimeError("a statement of this transaction failed, it cannot commit")
            connection.script("COMMIT")

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """A connection for the block. Raises Unavailable when none comes free in time."""
        connection = self._checkout()
        keep = False
        try:
            yield connection
            keep = True
        except BaseException as error:
            keep = _said_by_server(error)
            raise
        finally:
            self._checkin(connection, keep=keep)

    def close(self) -> None:
        """Close what is idle, and what is in use when it comes back."""
        with self._changed:
            self._closed = True
            dead = list(self._idle)
            self._open -= len(dead)
            self._idle.clear()
            if self._sweeper is not None:
                self._sweeper.cancel()
        for connection in dead:
            connection.close()

    @property
    def open_connections(self) -> int:
        """How many connections exist now, in use or idle."""
        return self._open

    def _statement(self, name: str, given: dict[str, str | None]) -> list[Row]:
        connection = self._checkout()
        keep = False
        try:  # what `session` does, written out: every request comes through here
            rows = connection.execute(name, given)
            keep = True
        except BaseException as error:
            keep = _said_by_server(error)
            raise
        finally:
            self._checkin(connection, keep=keep)
        return rows

    def _transaction(self, work: Callable[[Connection], T]) -> T:
        with self.transaction() as connection:
            return work(connection)

    def _retried(self, attempt: Callable[[], T]) -> T:
        for tries in range(1, MAX_TRIES):
            try:
                return attempt()
            except Conflicted:
                # Nothing tells when the other transaction is through; spread the tries instead.
                time.sleep(_PAUSE_S * 2 ** (tries - 1) * random.uniform(0.5, 1.0))
        return attempt()

    # -- connections in and out ------------------------------------------------------------------

    def _checkout(self) -> Connection:
        deadline = time.monotonic() + self._wait_s
        while True:
            dead: list[Connection] = []
            connection = self._take_idle(dead, deadline)
            for old in dead:
                old.close()
            if connection is None:
                return self._connect()
            if not connection.gone_quietly:
                return connection
            self._discard(connection, "closed_by_server")

    def _take_idle(self, dead: list[Connection], deadline: float) -> Connection | None:
        """An idle connection, or None with the right to open one."""
        with self._changed:
            while True:
                self._expire(dead)
                if self._idle:
                    return self._idle.pop()
                if self._open < self._max_open:
                    self._open += 1
                    return None
                if not self._changed.wait(deadline - time.monotonic()):
                    raise Unavailable("every database connection is in use", retry_after=1)

    def _connect(self) -> Connection:
        try:
            return Connection(
                self.target,
                application_name=self._application_name,
                statement_timeout_s=self._statement_timeout_s,
            )
        except BaseException:
            with self._changed:
                self._open -= 1
                self._changed.notify()
            raise

    def _checkin(self, connection: Connection, *, keep: bool) -> None:
        if not keep or not connection.reusable:
            self._discard(connection, "in_doubt")
            return
        dead: list[Connection] = []
        with self._changed:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
            self._expire(dead)
            self._schedule_sweep()
            self._changed.notify()
        for old in dead:
            old.close()

    def _discard(self, connection: Connection, reason: str) -> None:
        telemetry.pg_discarded.add(1, {"reason": reason})
        with self._changed:
            self._open -= 1
            self._changed.notify()
        connection.close()

    def _expire(self, dead: list[Connection]) -> None:
        """Take out of the idle ones what is too old, too long idle, or too many."""
        kept: deque[Connection] = deque()
        surplus = len(self._idle) - self._max_idle
        for connection in self._idle:  # the longest idle first
            if surplus > 0 or self._closed or self._is_stale(connection):
                surplus -= 1
                dead.append(connection)
            else:
                kept.append(connection)
        self._open -= len(self._idle) - len(kept)
        self._idle = kept

    def _is_stale(self, connection: Connection) -> bool:
        now = time.monotonic()
        return (
            now - connection.idle_since >= self._max_idle_s
            or now - connection.opened_at >= self._max_lifetime_s
        )

    def _schedule_sweep(self) -> None:
        """Close idle connections also when nobody asks for one any more."""
        if self._sweeper is None and self._idle and not self._closed:
            self._sweeper = threading.Timer(self._max_idle_s, self._sweep)
            self._sweeper.daemon = True
            self._sweeper.start()

    def _sweep(self) -> None:
        dead: list[Connection] = []
        with self._changed:
            self._sweeper = None
            self._expire(dead)
            self._schedule_sweep()
        for connection in dead:
            connection.close()


def _said_by_server(error: BaseException) -> bool:
    """Whether the server itself refused: then both sides agree on where the session stands."""
    return isinstance(error, DatabaseError) or isinstance(error.__cause__, DatabaseError)
