"""Use case: make the registry of projects say what their source shows now."""

from __future__ import annotations

from common.ports.projects import ProjectSource, ProjectStore
from common.services import telemetry

log = telemetry.logger("rdev.discover")


class Discover:
    def __init__(self, source: ProjectSource, store: ProjectStore) -> None:
        self._source = source
        self._store = store

    def __call__(self) -> tuple[list[str], list[str]]:
        """Reconcile once; answers (appeared, gone). Raises Unavailable."""
        appeared, gone = self._store.sync(self._source.find(), self._source.name)
        for name in appeared:
            log.info("project appeared", project=name)
        for name in gone:
            log.info("project gone", project=name)
        return appeared, gone
