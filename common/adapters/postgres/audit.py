"""AuditLog on PostgreSQL: read, sealed and verified by functions, rewritten by nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from common.adapters.postgres.connection import Row
from common.adapters.postgres.parameters import jsonb, printable
from common.adapters.postgres.pool import Database
from common.domain.audit import AuditEntry, AuditFilter, Checked, Link, NewEntry

_HIGHEST: Final = (1 << 63) - 1


class PgAuditLog:
    """The table audit_log and its chain."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def record(self, entries: Sequence[NewEntry]) -> None:
        self._db.run("audit_record", refusals=jsonb([_as_json(e) for e in entries]))

    def list(self, wanted: AuditFilter) -> list[AuditEntry]:
        found = self._db.run(
            "audit_list",
            before=min(wanted.before.int, _HIGHEST) if wanted.before else _HIGHEST,
            projects=None if wanted.projects is None else sorted(wanted.projects),
            key_id=wanted.key_id,
            action=wanted.action,
            target=wanted.target,
            since=wanted.since,
            until=wanted.until,
            limit=wanted.limit,
        )
        return [_entry(row) for row in found]

    def seal(self, limit: int) -> tuple[int, Link]:
        row = self._db.run("audit_seal", limit=limit)[0]
        return row["sealed"], Link(row["seq"], row["hash"])

    def verify(self, after: Link | None, limit: int) -> Checked:
        row = self._db.run(
            "audit_verify",
            seq=after.seq if after else None,
            hash=after.hash if after else None,
            limit=limit,
        )[0]
        link = Link(row["seq"], row["hash"])
        return Checked(row["checked"], link, row["broken"], row["reason"])


def _as_json(entry: NewEntry) -> dict[str, Any]:
    """What strangers sent is written out where PostgreSQL could not hold it."""
    row = asdict(entry) | {"at": entry.at.isoformat()}
    row["key_id"] = str(entry.key_id) if entry.key_id else None
    return {n: printable(v) if isinstance(v, str) else v for n, v in row.items()}


def _entry(row: Row) -> AuditEntry:
    return AuditEntry(
        row["id"],
        row["at"],
        row["key_id"],
        row["action"],
        row["target"],
        row["project"],
        row["detail"],
        row["request_id"],
        row["client_ip"],
        row["peer_ip"],
    )
