"""ProjectStore in dicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from common.adapters.memory.state import MemoryState, ProjectRow
from common.domain.identifiers import new_id
from common.domain.project import FoundProject, Phase, Project
from common.ports.outbox import OutgoingEvent


class MemoryProjectStore:
    """The registry: what its sources showed last."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    def get(self, name: str) -> Project | None:
        with self._state.lock:
            row = self._state.projects.get(name)
            return None if row is None or row.gone else self._counted(row)

    def sync(self, found: Sequence[FoundProject], source: str) -> tuple[list[str], list[str]]:
        with self._state.lock:
            appeared = sorted(p.name for p in found if self._take(p, source))
            names = {project.name for project in found}
            gone = sorted(
                name
                for name, row in self._state.projects.items()
                if row.source == source and not row.gone and name not in names
            )
            for name in gone:
                self._state.projects[name].gone = True
            self._announce("discovered", appeared)
            self._announce("removed", gone)
            return appeared, gone

    def list(self) -> list[Project]:
        with self._state.lock:
            rows = [self._state.projects[name] for name in sorted(self._state.projects)]
            return [self._counted(row) for row in rows if not row.gone]

    def _take(self, project: FoundProject, source: str) -> bool:
        """Store what was found; whether it is new. Another source's project is left alone."""
        row = self._state.projects.get(project.name)
        if row is None:
            self._state.projects[project.name] = ProjectRow(project, source)
            return True
        if row.source != source:
            return False
        was_gone, row.found, row.gone = row.gone, project, False
        return was_gone

    def _announce(self, what: str, names: Sequence[str]) -> None:
        for name in names:
            type_ = f"ai.orchard9.rdev.project.{what}.v1"
            data = {"project": name}
            self._state.publish(OutgoingEvent(new_id(), type_, f"projects/{name}", data))

    def _counted(self, row: ProjectRow) -> Project:
        name = row.found.name
        running, queued = len(self._state.live_in(name)), len(self._state.queued_in(name))
        return replace(as_project(row), running=running, queued=queued)


def as_project(row: ProjectRow) -> Project:
    """The project without counts, as a claim carries it."""
    found = row.found
    return Project(
        name=found.name,
        workspace=found.workspace,
        phase=Phase.GONE if row.gone else found.phase,
        description=found.description,
        namespace=found.namespace,
        pod=found.pod,
        pod_uid=found.pod_uid,
        container=found.container,
        allowed_commands=found.allowed_commands,
        max_concurrent_commands=found.max_concurrent_commands,
        paused_at=row.paused_at,
        issues=found.issues,
    )
