"""Signals on LISTEN and NOTIFY, with one connection that does nothing else.

A thread blocks in reading that connection; what it must be told to do (hold a lock) is *written* by
the thread that wants it, and the answer comes back among the notifications. Nothing selects on the
socket: pg8000 reads ahead, and a notification in its buffer would then wait for the next one. This
needs three of pg8000's internals (`_read`, `message_types`, `Context`); the lock file pins it.
"""

from __future__ import annotations

import random
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from pg8000 import core
from pg8000.native import identifier

from common.adapters.postgres.connection import Connection
from common.adapters.postgres.pool import Database
from common.adapters.postgres.target import Target
from common.domain.errors import Unavailable
from common.services import telemetry

_RETRY_S: Final = (0.1, 5.0)  # first and longest pause between attempts to connect
_HOLD_S: Final = 10.0
_GOODBYE_S: Final = 2.0

Heard = Callable[[str, str], None]

log = telemetry.logger("rdev.signals")


class PgSignals:
    """Wake-ups between processes. `listen_url` must lead to the server itself, not to a pooler."""

    def __init__(self, db: Database, listen_url: str) -> None:
        self._db = db
        self._target = Target.parse(listen_url)

    def notify(self, channel: str, payload: str) -> None:
        try:
            self._db.run("notify", channel=channel, payload=payload)
        except (
            Exception
        ) as error:  # a lost wake-up costs a poll, and the port promises not to raise
            log.warning("wake-up not sent", channel=channel, err_type=type(error).__name__)

    def listen(self, channels: tuple[str, ...], heard: Heard) -> PgListening:
        listening = PgListening(self._target, channels, heard)
        listening.start()
        return listening


class PgListening:
    """One connection for LISTEN and its thread, until closed."""

    def __init__(self, target: Target, channels: tuple[str, ...], heard: Heard) -> None:
        self._target = target
        self._channels = channels
        self._heard = heard
        self._worker: int | None = None
        self._holding = threading.Event()
        self._closed = threading.Event()
        self._lock = threading.Lock()  # guards writing to the connection, and which one it is
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._run, name="listen", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def hold(self, worker: int) -> None:
        """Raises Unavailable when the lock is not held within 10 s; it is taken later then."""
        with self._lock:
            self._worker = worker
            self._holding.clear()
            if self._connection is not None:
                self._ask_for_lock(self._connection)
        if not self._holding.wait(_HOLD_S):
            raise Unavailable("the database does not grant this worker's lock")

    def close(self) -> None:
        """When it returns, the server has let the lock go, unless it did not answer for 2 s."""
        self._closed.set()
        with self._lock:
            connection = self._connection
            if connection is not None:
                self._say_goodbye(connection)
        if self._thread is threading.current_thread():
            return
        self._thread.join(_GOODBYE_S)
        if connection is not None and self._thread.is_alive():
            self._hang_up(connection)
        self._thread.join()

    def _run(self) -> None:
        pause = _RETRY_S[0]
        while not self._closed.is_set():
            try:
                self._listen_once()
                pause = _RETRY_S[0]
            except Unavailable as error:
                log.warning("not listening", detail=error.detail, again_in_s=round(pause, 2))
            self._closed.wait(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, _RETRY_S[1])

    def _listen_once(self) -> None:
        """Connect, say that anything may have been missed, and read until the end."""
        connection = Connection(self._target, application_name="rdev-listen", statement_timeout_s=0)
        try:
            notifications: deque[tuple[int, str, str]] = deque()
            connection.session.notifications = notifications  # pg8000's own drops beyond 100
            for channel in self._channels:
                connection.script(f"LISTEN {identifier(channel)}")
            with self._lock:
                self._connection = connection
                if self._worker is not None:
                    self._end_predecessor(connection, self._worker)
                    self._ask_for_lock(connection)
                if self._closed.is_set():
                    return
            for channel in self._channels:
                self._tell(channel, "")
            self._read(connection, notifications)
        finally:
            with self._lock:
                self._connection = None
                self._holding.clear()
            connection.close()

    def _read(self, connection: Connection, notifications: deque[tuple[int, str, str]]) -> None:
        session = connection.session
        answer = core.Context("")
        with suppress(core.InterfaceError, OSError, ValueError):  # the connection ended
            while True:
                while notifications:
                    _, channel, payload = notifications.popleft()
                    self._tell(channel, payload)
                code, size = core.ci_unpack(core._read(session._sock, 5))
                session.message_types[code](core._read(session._sock, size - 4), answer)
                answer = self._answered(code, answer)

    def _answered(self, code: bytes, answer: Any) -> Any:
        """The reply to `_ask_for_lock` has come when the server is ready again."""
        if code != core.READY_FOR_QUERY:
            return answer
        if answer.error is not None:
            log.warning("worker lock refused", detail=str(answer.error))
        elif answer.rows is not None:
            self._holding.set()
        return core.Context("")

    def _ask_for_lock(self, connection: Connection) -> None:
        session = connection.session
        with suppress(
            core.InterfaceError, OSError, ValueError
        ):  # lost: asked again after reconnecting
            session.send_QUERY(f"SELECT pg_advisory_lock({int(self._worker or 0)})")
            session._sock.flush()

    @staticmethod
    def _end_predecessor(connection: Connection, worker: int) -> None:
        """End our own lost session if the server still believes in it: it has our lock."""
        connection.script(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            f" AND objsubid = 1 AND classid = {worker >> 32 & 0xFFFFFFFF}::oid"
            f" AND objid = {worker & 0xFFFFFFFF}::oid AND pid <> pg_backend_pid()"  # nosec B608
        )

    def _tell(self, channel: str, payload: str) -> None:
        try:
            self._heard(channel, payload)
        except Exception:  # one listener's mistake must not end everybody's wake-ups
            log.exception("a listener failed", channel=channel)

    @staticmethod
    def _say_goodbye(connection: Connection) -> None:
        """Ask the server to end the session; it closes its side, and the reading thread's ends."""
        session = connection.session
        with suppress(core.InterfaceError, OSError, ValueError):  # it is closed already
            session._sock.write(core.TERMINATE_MSG)
            session._sock.flush()

    @staticmethod
    def _hang_up(connection: Connection) -> None:
        """Make the reading thread's read return without the server's help."""
        with suppress(OSError):  # it is closed already
            connection.session._usock.shutdown(socket.SHUT_RDWR)
