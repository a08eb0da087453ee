"""How often things are looked at when nobody rings (data.md, "Live wake-ups")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MIB: Final = 1024 * 1024


@dataclass(frozen=True)
class Pace:
    """Seconds and bytes.

    `active_s` and `idle_s`: the poll behind the wake-ups. `check_s`: how long an active command may
    be silent before its lease is looked at. `ring_s`: at most one ring of the runner per command.
    """

    active_s: float = 0.25
    idle_s: float = 5.0
    check_s: float = 2.0
    ring_s: float = 5.0
    ring_bytes: int = MIB
    all_rings_bytes: int = 64 * MIB
    threads: int = 2

    def ring_limit(self, channels: int) -> int:
        """Bytes for one ring, so that all together keep to their sum."""
        return min(self.ring_bytes, self.all_rings_bytes // max(1, channels))
