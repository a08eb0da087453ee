"""Kept connections of plain calls: ten a host, a hundred in all, none idle for more than 90 s.

urllib3 keeps an idle connection for ever. Load balancers and NAT forget one after some minutes and
say nothing, and then the next call waits for its whole timeout.
"""

from __future__ import annotations

import time
from typing import Any, Final

from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

IDLE_S: Final = 90.0


class _Forgetting:
    """Closes a connection that was idle for too long; urllib3 then opens it anew."""

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection = super()._get_conn(timeout)  # type: ignore[misc]  # of a pool
        if time.monotonic() - getattr(connection, "idle_since", time.monotonic()) > IDLE_S:
            connection.close()
        return connection

    def _put_conn(self, connection: Any) -> None:
        if connection is not None:
            connection.idle_since = time.monotonic()
        super()._put_conn(connection)  # type: ignore[misc]  # of a pool


class _Http(_Forgetting, HTTPConnectionPool):
    pass


class _Https(_Forgetting, HTTPSConnectionPool):
    pass


def keep_connections(manager: Any) -> None:
    """Make a PoolManager (ten pools of ten connections) forget what was idle for too long."""
    manager.pool_classes_by_scheme = {"http": _Http, "https": _Https}
