"""Use case: note refused requests in the audit trail, without letting strangers write it full.

403 and 409 become entries of their own. 401 and 429 cost their sender nothing, so they are counted
by key prefix, address, route and minute, and all counts leave as one entry, at most one a second.
Whatever is over the bounds below is counted too. A process that is killed loses its last second.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from common.domain.audit import NewEntry
from common.ports.audit import AuditLog
from common.ports.commands import Origin
from common.services import telemetry

PAUSE_S: Final = 1.0
MOST_ROWS: Final = 100  # entries a second and process; beyond them refusals are counted
MOST_COUNTERS: Final = 200  # prefixes, addresses and routes told apart within a second
OTHERS: Final = ("others", None, "any", 0, "")
_EACH: Final = frozenset({403, 409})
_COUNTED: Final = frozenset({401, 429})

log = telemetry.logger("rdev.refusals")


class Refusals:
    """`audit` is asked for when something is written: making it may need a database."""

    def __init__(self, audit: Callable[[], AuditLog], pause_s: float = PAUSE_S) -> None:
        self._audit = audit
        self._pause_s = pause_s
        self._lock = threading.Lock()
        self._rows: list[NewEntry] = []
        self._counts: Counter[tuple[str, str | None, str, int, str]] = Counter()
        self._timer: threading.Timer | None = None

    def note(
        self,
        status: int,
        code: str,
        route: str,
        origin: Origin,
        *,
        key_id: UUID | None = None,
        prefix: str = "",
        project: str | None = None,
    ) -> None:
        """Remember one; it is written within a second. Other statuses are no business of ours."""
        if status not in _EACH | _COUNTED:
            return
        now = datetime.now(UTC)
        with self._lock:
            if status in _EACH and len(self._rows) < MOST_ROWS:
                detail = {"status": status, "code": code}
                self._rows.append(
                    NewEntry(
                        now, key_id, "request.refused", route, project, detail,
                        origin.request_id, origin.client_ip, origin.peer_ip,
                    )
                )  # fmt: skip
            else:
                minute = now.strftime("%Y-%m-%dT%H:%MZ")
                what = (prefix, origin.client_ip or origin.peer_ip, route, status, minute)
                known = what in self._counts or len(self._counts) < MOST_COUNTERS
                self._counts[what if known else OTHERS] += 1
            if self._timer is None:
                self._timer = threading.Timer(self._pause_s, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Write what was noted. What cannot be written is lost, and the log says how much."""
        with self._lock:
            rows, counts = self._rows, self._counts
            self._rows, self._counts, self._timer = [], Counter(), None
        if counts:
            rows.append(_summary(counts))
        if not rows:
            return
        try:
            self._audit().record(rows)
        except Exception as error:  # a refusal was answered already: nobody is there to be told
            log.error("refusals not recorded", entries=len(rows), exc_info=error)

    def close(self) -> None:
        with self._lock:
            timer = self._timer
        if timer is not None:
            timer.cancel()
            self.flush()


def _summary(counts: Counter[tuple[str, str | None, str, int, str]]) -> NewEntry:
    refused = [
        {"prefix": prefix, "address": address, "route": route, "status": status, "minute": minute,
         "count": count}
        for (prefix, address, route, status, minute), count in counts.most_common()
    ]  # fmt: skip
    detail = {"count": counts.total(), "refused": refused}
    return NewEntry(
        datetime.now(UTC), None, "requests.refused", "authorisation", None, detail, None, None, None
    )
