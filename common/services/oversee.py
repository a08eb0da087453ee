"""Use case: look at the queues, pause and resume them, and sum up what was used."""

from __future__ import annotations

from dataclasses import replace

from common.domain.errors import NotFound
from common.domain.keys import Caller
from common.domain.oversight import ProjectQueue, Usage, UsageFilter
from common.ports.commands import Origin
from common.ports.outbox import RunnerBell
from common.ports.oversight import Oversight


class Oversee:
    """A key for some projects sees these alone."""

    def __init__(self, store: Oversight, bell: RunnerBell) -> None:
        self._store = store
        self._bell = bell

    def queues(self, caller: Caller) -> list[ProjectQueue]:
        return self._store.queues(caller.projects)

    def queue(self, project: str, caller: Caller) -> ProjectQueue:
        """Raises NotFound, the same for a foreign project as for none."""
        caller.require_project(project)
        found = self._store.queues(frozenset({project}))
        if not found:
            raise NotFound(f"there is no project {project[:80]!r}")
        return found[0]

    def pause(self, project: str, caller: Caller, origin: Origin) -> ProjectQueue:
        """Nothing more starts there; what runs goes on."""
        return self._set(project, caller, origin, paused=True)

    def resume(self, project: str, caller: Caller, origin: Origin) -> ProjectQueue:
        """What waits may start again, and the runner is told so at once."""
        queue = self._set(project, caller, origin, paused=False)
        if queue.queued:
            self._bell.ring(project)
        return queue

    def usage(self, wanted: UsageFilter, caller: Caller) -> list[Usage]:
        return self._store.usage(replace(wanted, projects=caller.narrowed(wanted.projects)))

    def _set(self, project: str, caller: Caller, origin: Origin, *, paused: bool) -> ProjectQueue:
        caller.require_project(project)
        if not self._store.pause(project, caller, origin, paused=paused):
            raise NotFound(f"there is no project {project[:80]!r}")
        return self.queue(project, caller)
