"""One session with PostgreSQL: statements prepared once, one round trip each, no doubt left over.

After any exception that is not the server's own well-formed error the session counts as `broken`:
pg8000 may be out of step with the server then, and the next answer would belong to somebody else.

Plans are made once per session (`plan_cache_mode`): each query here has an index for all values,
and planning a claim anew takes three times as long as claiming. A pooler such as PgBouncer must let
the start-up parameters pass (`ignore_startup_parameters`) and keep prepared statements.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import pg8000.native
from pg8000.converters import string_array_in
from pg8000.exceptions import DatabaseError, InterfaceError

from common.adapters.postgres.failures import STALE_PLAN, is_fatal, sqlstate, translated
from common.adapters.postgres.parameters import Parameter, encode_all
from common.adapters.postgres.statements import statements
from common.adapters.postgres.target import Target
from common.domain.errors import Unavailable

Row = dict[str, Any]

CONNECT_TIMEOUT_S: Final = 5.0
STATEMENT_TIMEOUT_S: Final = 15.0
# The server ends a statement first and says so; the socket's own limit is for a server that cannot.
SOCKET_GRACE_S: Final = 5.0
# A process stopped inside a transaction must not keep its locks for longer than a lease lives.
IDLE_IN_TRANSACTION_S: Final = 10.0
_TIMESTAMPTZ: Final = 1184
_TEXT_ARRAY: Final = 1009
_QUOTED: Final = re.compile(r'["\\]|(?<![^{,])NULL(?![^,}])')
_IDLE, _FAILED, _NEW = b"I", b"E", None  # pg8000 knows no status before the first statement


def texts(array: str) -> list[str | None]:
    """A text[]: pg8000 reads these letter by letter, which took most of an authorisation's time."""
    if _QUOTED.search(array) or array.startswith("{{"):
        read: list[str | None] = string_array_in(array)
        return read
    inner = array[1:-1]
    return list(inner.split(",")) if inner else []


class Connection:
    """A pg8000 session on a socket of our own."""

    def __init__(
        self,
        target: Target,
        *,
        application_name: str = "rdev",
        statement_timeout_s: float = STATEMENT_TIMEOUT_S,
    ) -> None:
        self.broken = False
        self.opened_at = self.idle_since = time.monotonic()
        self._socket: socket.socket | None = None
        self._prepared: dict[str, pg8000.native.PreparedStatement] = {}
        self._columns: dict[str, list[str]] = {}
        try:
            self._socket = target.open(CONNECT_TIMEOUT_S)
            self._session = pg8000.native.Connection(
                target.user,
                host=target.host,
                database=target.database,
                password=target.password,
                sock=self._socket,
                ssl_context=False,
                application_name=application_name,
                startup_params={
                    "TimeZone": "UTC",
                    "plan_cache_mode": "force_generic_plan",
                    "statement_timeout": str(round(statement_timeout_s * 1000)),
                    "idle_in_transaction_session_timeout": str(round(IDLE_IN_TRANSACTION_S * 1000)),
                },
            )
        except DatabaseError as error:
            self._drop_socket()
            raise translated(error) from error
        except (InterfaceError, OSError) as error:
            self._drop_socket()
            raise Unavailable("the database cannot be reached") from error
        limit_s = statement_timeout_s + SOCKET_GRACE_S if statement_timeout_s else None
        self._socket.settimeout(limit_s)
        self._session.register_in_adapter(_TIMESTAMPTZ, datetime.fromisoformat)
        self._session.register_in_adapter(_TEXT_ARRAY, texts)

    @property
    def session(self) -> pg8000.native.Connection:
        """The driver's own object, for LISTEN."""
        return self._session

    @property
    def reusable(self) -> bool:
        """In step with the server and outside any transaction."""
        return not self.broken and self._session._transaction_status in (_IDLE, _NEW)

    @property
    def in_failed_transaction(self) -> bool:
        """Whether a statement of the current transaction failed, so that it can only roll back."""
        return bool(self._session._transaction_status == _FAILED)

    @property
    def gone_quietly(self) -> bool:
        """Whether an idle session has something to read: the server closed it or said so."""
        watched = select.poll()
        watched.register(self._session._usock, select.POLLIN)
        return bool(watched.poll(0))

    def run(self, name: str, parameters: Mapping[str, Parameter]) -> list[Row]:
        """Run a named query; its rows by column name. Raises InvalidRequest before it sends."""
        return self.execute(name, encode_all(parameters))

    def execute(self, name: str, given: Mapping[str, str | None]) -> list[Row]:
        """Run a named query with parameters that are encoded already."""
        try:
            prepared = self._prepared.get(name) or self._prepare(name)
            rows = prepared.run(**given)
        except BaseException as error:
            self._fail(error)
            raise
        columns = self._columns[name]
        return [dict(zip(columns, row, strict=True)) for row in rows or ()]

    def script(self, sql: str) -> list[list[Any]]:
        """Run SQL text without parameters, any number of statements; the rows of all of them."""
        try:
            return self._session.run(sql) or []
        except BaseException as error:
            self._fail(error)
            raise

    def copy(self, sql: str, data: Iterable[bytes]) -> None:
        """COPY … FROM STDIN with the pieces of `data`."""
        try:
            self._session.run(sql, stream=data)
        except BaseException as error:
            self._fail(error)
            raise

    def close(self) -> None:
        """Say goodbye if the server still listens; never raises for a connection that is gone."""
        self.broken = True
        try:
            self._session.close()
        except (InterfaceError, OSError, ValueError, AttributeError):
            self._drop_socket()  # already closed, or closed by the other side

    def _prepare(self, name: str) -> pg8000.native.PreparedStatement:
        prepared = self._session.prepare(statements()[name])
        self._columns[name] = [column["name"] for column in prepared.cols or ()]
        self._prepared[name] = prepared
        return prepared

    def _fail(self, error: BaseException) -> None:
        """Raise what callers should see; the session is broken unless the server itself refused."""
        if not isinstance(error, DatabaseError):
            self.broken = True
            if isinstance(error, InterfaceError | OSError):
                raise Unavailable("the connection to the database was lost") from error
            return
        self.broken = self.broken or is_fatal(error) or sqlstate(error) in STALE_PLAN
        meaning = translated(error)
        if meaning is not error:
            raise meaning from error

    def _drop_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()
