"""Use case: the breakers of one process, shared with the others through the dependencies table.

The decision is always this process's own and in memory. The table adds three things: a new process
knows at once what the others found out, one process of all probes an open dependency, and people
see the state in `/ready`, in the metrics and on the project.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Final

from common.domain import breaker as machine
from common.domain.breaker import State, Thresholds, Verdict
from common.domain.errors import Unavailable
from common.ports.dependencies import KUBERNETES, Dependencies
from common.services import telemetry

SHOWN_CHARS: Final = 300

log = telemetry.logger("rdev.breaker")


class SharedBreaker:
    """One dependency's breaker."""

    def __init__(
        self,
        name: str,
        store: Dependencies,
        limits: Thresholds,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._store = store
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._now = machine.CLOSED
        self._known = False

    @property
    def state(self) -> State:
        return self._now.state

    def allow(self) -> None:
        """See `ports.dependencies.Breaker.allow`."""
        self._learn()
        with self._lock:
            verdict = self._now.ask(self._clock())
            if verdict is Verdict.PASS:
                return
            if verdict is Verdict.PROBE:
                # Held over the round trip, so that this process sends one probe as well.
                verdict = self._try_probe()
            left = max(0.0, self._now.until - self._clock())
            detail = self._now.detail
        if verdict is Verdict.REFUSE:
            raise Unavailable(
                f"{self.name} is not asked for {left:.1f} s: {detail}",
                retry_after=max(1, int(left)),
            )

    def succeeded(self) -> None:
        """See `ports.dependencies.Breaker.succeeded`."""
        with self._lock:
            before, self._now = self._now, self._now.succeeded()
        if before.state is not State.CLOSED:
            log.info("breaker closed", dependency=self.name)
            self._share()

    def failed(self, detail: str, retry_after_s: float | None = None) -> None:
        """See `ports.dependencies.Breaker.failed`."""
        with self._lock:
            before = self._now
            # Spread, so that a fleet does not come back as one.
            jittered = None if retry_after_s is None else retry_after_s * random.uniform(1.0, 1.1)
            self._now = before.failed(self._clock(), self._limits, detail[:SHOWN_CHARS], jittered)
            opened = self._now.state is State.OPEN and before.state is not State.OPEN
        if opened:
            telemetry.breaker_opened.add(1, {"dependency": self.name.partition("/")[0]})
            log.warning("breaker opened", dependency=self.name, detail=detail[:SHOWN_CHARS])
            self._share()

    def heartbeat(self) -> None:
        """Say that the state is current, though it did not change."""
        self._share()

    def _learn(self) -> None:
        """What others found out before this process first asked."""
        if self._known:
            return
        self._known = True
        try:
            row = self._store.read(self.name)
        except Unavailable as error:
            log.warning("breaker starts without the others", detail=error.detail)
            return
        if row is not None and row.state is not State.CLOSED:
            until = self._clock() + row.open_for_s
            with self._lock:
                if self._now == machine.CLOSED:
                    self._now = machine.Breaker(State.OPEN, row.failures, 1, until, row.detail)

    def _try_probe(self) -> Verdict:
        try:
            mine = self._store.take_probe(self.name, self._limits.probe_s)
        except Unavailable:  # then this process probes for itself
            mine = True
        now = self._clock()
        if mine:
            self._now = self._now.probing(now, self._limits)
            return Verdict.PASS
        self._now = self._now.refused(now, self._limits.probe_s)
        return Verdict.REFUSE

    def _share(self) -> None:
        now = self._now
        left = max(0.0, now.until - self._clock())
        try:
            if now.state is State.CLOSED and self.name != KUBERNETES:
                self._store.forget(self.name)
            else:
                self._store.write(self.name, now.state, now.failures, left, now.detail)
        except Unavailable as error:  # each process has its own count until the database is back
            log.warning("breaker not shared", dependency=self.name, detail=error.detail)


class SharedBreakers:
    """The breakers of this process by name."""

    def __init__(
        self,
        store: Dependencies,
        limits: Thresholds,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._made: dict[str, SharedBreaker] = {}

    def of(self, name: str) -> SharedBreaker:
        """The breaker of a dependency; the same one each time."""
        with self._lock:
            if name not in self._made:
                self._made[name] = SharedBreaker(name, self._store, self._limits, self._clock)
            return self._made[name]
