"""Oversight in dicts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from common.adapters.memory.state import CommandRow, MemoryState
from common.domain.accounting import Part, parts
from common.domain.command import ACTIVE, Command, Priority, State
from common.domain.keys import Caller
from common.domain.oversight import Depth, ProjectQueue, Usage, UsageFilter
from common.ports.commands import Origin


class MemoryOversight:
    """Questions over all commands."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    def queues(self, projects: frozenset[str] | None) -> list[ProjectQueue]:
        with self._state.lock:
            return [
                ProjectQueue(name, row.paused_at, self._depths(name))
                for name, row in sorted(self._state.projects.items())
                if not row.gone and (projects is None or name in projects)
            ]

    def pause(self, project: str, caller: Caller, origin: Origin, *, paused: bool) -> bool:
        with self._state.lock:
            row = self._state.projects.get(project)
            if row is None or row.gone:
                return False
            if (row.paused_at is not None) is not paused:
                row.paused_at = self._state.clock() if paused else None
                action = "queue.paused" if paused else "queue.resumed"
                self._state.record(caller, origin, action, project, project)
            return True

    def usage(self, wanted: UsageFilter) -> list[Usage]:
        with self._state.lock:
            groups: dict[tuple[Any, ...], list[tuple[Command, Part]]] = {}
            for command in (row.command for row in self._state.by_id()):
                for part in _parts(command) if _fits(command, wanted) else ():
                    if wanted.model in (None, part.model):
                        group = _group(command, part, wanted.by)
                        groups.setdefault(group, []).append((command, part))
            sums = [_sum(group, used) for group, used in groups.items()]
            return sorted(sums, key=lambda u: u.day or "", reverse=True)[: wanted.limit]

    def _depths(self, project: str) -> dict[Priority, Depth]:
        rows = [r for r in self._state.by_id() if r.command.project == project]
        return {
            priority: depth
            for priority in Priority
            if (depth := self._depth([r for r in rows if r.command.priority is priority]))
            != Depth()
        }

    def _depth(self, rows: list[CommandRow]) -> Depth:
        waiting = [r.command for r in rows if r.command.state is State.QUEUED]
        running = [r for r in rows if r.command.state in ACTIVE]
        now = self._state.clock()
        ages = [(now - (c.run_at or c.created_at)).total_seconds() for c in waiting]
        return Depth(len(waiting), len(running), max(ages, default=None))


def _parts(command: Command) -> list[Part]:
    """What it used by model; one that its options named where its outcome names none."""
    named = (command.spec.get("options") or {}).get("model")
    return [replace(p, model=p.model or named) for p in parts(command.outcome)]


def _fits(command: Command, wanted: UsageFilter) -> bool:
    return (
        command.finished_at is not None
        and wanted.since <= command.finished_at < wanted.until
        and (wanted.projects is None or command.project in wanted.projects)
        and wanted.key_id in (None, command.key_id)
    )


def _group(command: Command, part: Part, by: frozenset[str]) -> tuple[Any, ...]:
    assert command.finished_at is not None
    values = {
        "project": command.project,
        "key": command.key_id,
        "model": part.model,
        "day": command.finished_at.strftime("%Y-%m-%d"),
    }
    return tuple(value if name in by else None for name, value in values.items())


def _sum(group: tuple[Any, ...], used: list[tuple[Command, Part]]) -> Usage:
    commands = {command.id: command for command, _ in used}.values()
    spans = [c.finished_at - c.started_at for c in commands if c.finished_at and c.started_at]
    project, key_id, model, day = group
    return Usage(
        project,
        key_id,
        model,
        day,
        len(commands),
        sum(span.total_seconds() for span in spans),
        sum(part.cost_usd for _, part in used),
        *(int(sum(part.tokens[n] for _, part in used)) for n in range(4)),
    )
