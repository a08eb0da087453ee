"""Dependencies and DiscoveryStore in dicts."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence

from common.adapters.memory.projects import MemoryProjectStore
from common.adapters.memory.state import MemoryState
from common.domain.breaker import State
from common.domain.project import FoundProject
from common.ports.dependencies import Row
from common.ports.discovery import Synced


class MemoryDependencies:
    """The breakers' rows, on a clock that can be turned."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._rows: dict[str, tuple[State, int, float, str | None]] = {}

    def read(self, name: str) -> Row | None:
        with self._lock:
            if name not in self._rows:
                return None
            state, failures, until, detail = self._rows[name]
            return Row(state, failures, max(0.0, until - self._clock()), detail)

    def write(
        self, name: str, state: State, failures: int, open_for_s: float, detail: str | None
    ) -> None:
        with self._lock:
            self._rows[name] = (state, failures, self._clock() + open_for_s, detail)

    def take_probe(self, name: str, probe_s: float) -> bool:
        with self._lock:
            if name not in self._rows:
                return True
            state, failures, until, detail = self._rows[name]
            now = self._clock()
            if state is not State.CLOSED and until > now:
                return False
            self._rows[name] = (State.HALF_OPEN, failures, now + probe_s, detail)
            return True

    def forget(self, name: str) -> None:
        with self._lock:
            self._rows.pop(name, None)


class MemoryDiscoveryStore:
    """The registry of projects, as views of a cluster write it."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state
        self._projects = MemoryProjectStore(state)
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._stored: dict[str, tuple[int, list[str]]] = {}

    def own(self, source: str) -> list[str]:
        with self._state.lock:
            others = [p for p in self._state.projects.values() if p.source != source]
            for row in others:
                row.source, row.gone = source, True
            return sorted(row.found.name for row in others)

    def begin(self) -> int:
        return next(self._numbers)

    def holders(self, source: str) -> dict[str, str]:
        with self._state.lock:
            return {
                row.found.name: row.found.pod_uid
                for row in self._state.projects.values()
                if row.source == source and not row.gone and row.found.pod_uid
            }

    def sync(
        self, source: str, generation: int, found: Sequence[FoundProject], notes: Sequence[str]
    ) -> Synced | None:
        with self._lock:
            if source in self._stored and self._stored[source][0] >= generation:
                return None
            self._stored[source] = (generation, list(notes))
            return Synced(*self._projects.sync(found, source))

    def notes(self) -> list[str]:
        with self._lock:
            return sorted(note for _, notes in self._stored.values() for note in notes)
