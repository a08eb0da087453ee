"""Use case: seal what the audit trail has gained, so that no entry can change unnoticed.

The end of the chain goes into the log as well: whoever could rewrite the whole database could not
rewrite what a log collector has kept.
"""

from __future__ import annotations

from typing import Final

from common.ports.audit import AuditLog
from common.services import telemetry

AT_ONCE: Final = 2000  # entries a transaction seals: tens of milliseconds
ROUNDS: Final = 10  # such transactions a tick; the next tick goes on

log = telemetry.logger("rdev.audit")


class SealAudit:
    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit

    def __call__(self) -> int:
        """How many entries were sealed."""
        total = 0
        for _ in range(ROUNDS):
            sealed, link = self._audit.seal(AT_ONCE)
            total += sealed
            if sealed < AT_ONCE:
                break
        if total:
            log.info("audit sealed", entries=total, seq=link.seq, hash=link.hash.hex())
        return total
