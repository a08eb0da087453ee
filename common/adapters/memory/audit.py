"""AuditLog in dicts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict

from common.adapters.memory.state import MemoryState
from common.domain.audit import AuditEntry, AuditFilter, Checked, Link, NewEntry


class MemoryAuditLog:
    """Entries in a list, links in another."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    def record(self, entries: Sequence[NewEntry]) -> None:
        with self._state.lock:
            for entry in entries:
                self._state.append_audit(AuditEntry(0, **asdict(entry)))

    def list(self, wanted: AuditFilter) -> list[AuditEntry]:
        with self._state.lock:
            found = [row for row in reversed(self._state.audit) if _fits(row, wanted)]
            return found[: wanted.limit]

    def seal(self, limit: int) -> tuple[int, Link]:
        with self._state.lock:
            chain = self._state.audit_chain
            done = {number for number, _ in chain}
            fresh = [row for row in self._state.audit if row.number not in done][:limit]
            for row in fresh:
                chain.append((row.number, _digest(self._head().hash, row)))
            return len(fresh), self._head()

    def verify(self, after: Link | None, limit: int) -> Checked:
        with self._state.lock:
            link, count = after or Link(0, b""), 0
            rows = {row.number: row for row in self._state.audit}
            for number, stored in self._state.audit_chain[link.seq : link.seq + limit]:
                row = rows.get(number)
                if row is None or _digest(link.hash, row) != stored:
                    return Checked(count, link, number, "missing" if row is None else "changed")
                link, count = Link(link.seq + 1, stored), count + 1
            return Checked(count, link)

    def _head(self) -> Link:
        chain = self._state.audit_chain
        return Link(len(chain), chain[-1][1]) if chain else Link(0, b"")


def _digest(before: bytes, row: AuditEntry) -> bytes:
    return hashlib.sha256(before + repr(row).encode("utf-8", "backslashreplace")).digest()


def _fits(row: AuditEntry, wanted: AuditFilter) -> bool:
    return (
        (wanted.before is None or row.number < wanted.before.int)
        and (wanted.projects is None or row.project in wanted.projects)
        and wanted.key_id in (None, row.key_id)
        and wanted.action in (None, row.action)
        and wanted.target in (None, row.target)
        and (wanted.since is None or row.at >= wanted.since)
        and (wanted.until is None or row.at < wanted.until)
    )
