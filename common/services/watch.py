"""Use case: the registry of projects says what the cluster shows, within a second.

One process of all watches: the one that holds the lock. What it sees it writes at once. Doorbells
and ticks make any process look for itself, since an event can be lost and a watcher can be dead.
Every look has a number that was taken before it began, so that an older one never undoes a newer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from common.domain.discovery import Found
from common.domain.errors import Unavailable
from common.domain.project import Phase
from common.ports.discovery import Cluster, ClusterWatch, DiscoveryStore
from common.ports.outbox import RunnerBell
from common.services import telemetry

LOCK: Final = "watch"
STANDBY_S: Final = 1.0  # how often the lock is tried, and so the longest time without a watcher
HEARTBEAT_S: Final = 20.0  # an unchanged view is written again, so that its age is known

log = telemetry.logger("rdev.watch")


class Watch:
    """`exclusive`: see `Upkeep`. `report` is called after every look, also after a failed one."""

    def __init__(
        self,
        cluster: Cluster,
        store: DiscoveryStore,
        exclusive: Callable[[str], AbstractContextManager[bool]],
        bell: RunnerBell,
        report: Callable[[], None],
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._exclusive = exclusive
        self._bell = bell
        self._report = report
        self._asked = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._ready: set[str] | None = None
        self._owning = False
        self.leading = False

    # -- a process that watches ----------------------------------------------------------------

    def start(self) -> None:
        """Watch, or stand by for whoever does."""
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Give the lock up, so that another process watches at once."""
        self._stopping.set()
        self._asked.set()
        if self._thread is not None:
            self._thread.join()

    def ring(self) -> None:
        """Something changed in the cluster, says somebody; look soon."""
        self._asked.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._exclusive(LOCK) as mine:
                    if mine:
                        self._lead()
                if not self._stopping.is_set():
                    self._stand_by()
            except Unavailable as error:
                log.warning("watcher starts over", detail=error.detail)
                self._stopping.wait(STANDBY_S)
            except Exception as error:  # a bug must not end the watching for good
                log.error("watcher broke", exc_info=error)
                self._stopping.wait(STANDBY_S)

    def _lead(self) -> None:
        log.info("watching")
        self.leading = True
        watching = self._cluster.watch(self._asked.set)
        try:
            while not self._stopping.is_set():
                self._asked.wait(HEARTBEAT_S)
                self._asked.clear()
                self._write_view(watching)
        finally:
            self.leading = False
            watching.close()

    def _write_view(self, watching: ClusterWatch) -> None:
        generation = self._store.begin()
        found = watching.found(self._store.holders(self._cluster.name))
        if found is not None:
            self._write(generation, found)
        self._report()

    def _stand_by(self) -> None:
        """Another process watches; a doorbell may still have come here."""
        if self._asked.wait(STANDBY_S) and not self._stopping.is_set():
            self._asked.clear()
            self.reconcile()

    # -- any process -----------------------------------------------------------------------------

    def reconcile(self) -> None:
        """Look once and make the registry say so. Raises Unavailable."""
        try:
            generation = self._store.begin()
            holders = self._store.holders(self._cluster.name)
            self._write(generation, self._cluster.look(holders))
        finally:
            self._report()

    def _write(self, generation: int, found: Found) -> None:
        began = time.monotonic()
        if not self._owning:
            for name in self._store.own(self._cluster.name):
                log.info("project gone", project=name)
            self._owning = True
        synced = self._store.sync(self._cluster.name, generation, found.projects, found.notes)
        if synced is None:
            return  # somebody saw more, later
        for name in synced.appeared:
            log.info("project appeared", project=name)
        for name in synced.gone:
            log.info("project gone", project=name)
        self._ring_for(found)
        telemetry.discovery_written.record(time.monotonic() - began)

    def _ring_for(self, found: Found) -> None:
        """A project that became ready may have commands waiting; ask nobody to wait for a tick."""
        ready = {project.name for project in found.projects if project.phase is Phase.READY}
        new = set() if self._ready is None else ready - self._ready
        self._ready = ready
        for name in sorted(new):
            threading.Thread(target=self._bell.ring, args=(name,), daemon=True).start()
