"""Port: the audit trail. Changes write theirs themselves, in their own transactions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from common.domain.audit import AuditEntry, AuditFilter, Checked, Link, NewEntry


class AuditLog(Protocol):
    def record(self, entries: Sequence[NewEntry]) -> None:
        """Append what was refused, and what was changed outside of the database."""
        ...

    def list(self, wanted: AuditFilter) -> list[AuditEntry]:
        """Newest first."""
        ...

    def seal(self, limit: int) -> tuple[int, Link]:
        """Chain up to `limit` entries that are not yet; how many, and where the chain ends now."""
        ...

    def verify(self, after: Link | None, limit: int) -> Checked:
        """Look at up to `limit` links behind one, None: from the beginning of what is kept."""
        ...
