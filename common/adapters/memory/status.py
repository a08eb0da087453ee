"""SystemStatus in dicts."""

from __future__ import annotations

from collections import Counter

from common.adapters.memory.state import MemoryState
from common.domain.command import Priority, State
from common.ports.status import Dependency, Numbers


class MemoryStatus:
    """What the system says of itself."""

    code_version = 1

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    def ping(self) -> None:
        """Always here."""

    def schema_version(self) -> tuple[int, int]:
        return self.code_version, 1

    def dependencies(self) -> list[Dependency]:
        return []

    def numbers(self) -> Numbers:
        with self._state.lock:
            now = self._state.clock()
            commands = [row.command for row in self._state.by_id()]
            waiting = [c for c in commands if c.state is State.QUEUED]
            since = [c.run_at or c.created_at for c in waiting]
            letters = self._state.dead_letters.values()
            outbox = [row.created_at for row in self._state.outbox.values()]
            return Numbers(
                commands=dict(Counter((str(c.kind), str(c.state)) for c in commands)),
                queue_depth={p.label: sum(c.priority is p for c in waiting) for p in Priority},
                oldest_age_s=max(((now - at).total_seconds() for at in since), default=0.0),
                outbox_pending=len(outbox),
                outbox_oldest_age_s=max(((now - at).total_seconds() for at in outbox), default=0.0),
                dead_letters=dict(Counter(x.reason for x in letters if x.replayed_at is None)),
            )
