"""Use case: show and verify the audit trail. A key for some projects sees the entries of these."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from common.domain.audit import AuditEntry, AuditFilter, Checked
from common.domain.keys import Caller
from common.ports.audit import AuditLog

AT_ONCE: Final = 5000  # links a statement checks, entries a page of an export has


class ReadAudit:
    def __init__(self, log: AuditLog) -> None:
        self._log = log

    def many(self, wanted: AuditFilter, caller: Caller) -> list[AuditEntry]:
        return self._log.list(_narrowed(wanted, caller))

    def all(self, wanted: AuditFilter, caller: Caller) -> Iterator[AuditEntry]:
        """Everything that fits, newest first, a page at a time.

        The first is read at once: what cannot be read is an error before there is half an answer.
        """
        page = replace(_narrowed(wanted, caller), limit=AT_ONCE)
        return self._from(page, self._log.list(page))

    def _from(self, page: AuditFilter, found: list[AuditEntry]) -> Iterator[AuditEntry]:
        while found:
            yield from found
            page = replace(page, before=found[-1].id)
            found = self._log.list(page)

    def verify(self) -> Checked:
        """The whole chain; stops at the first entry that is not what was sealed."""
        total, link = 0, None
        while True:
            part = self._log.verify(link, AT_ONCE)
            total, link = total + part.count, part.link
            if part.broken is not None or part.count < AT_ONCE:
                return replace(part, count=total)


def _narrowed(wanted: AuditFilter, caller: Caller) -> AuditFilter:
    return replace(wanted, projects=caller.narrowed(wanted.projects))
