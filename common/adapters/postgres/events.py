"""EventReader on PostgreSQL: what a stream or a waiter reads, one query a round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from common.adapters.postgres import rows
from common.adapters.postgres.connection import Row
from common.adapters.postgres.pool import Database
from common.domain.command import Command
from common.domain.events import AGENT, MAX_EVENT_BYTES, OUTPUT, Event
from common.ports.events import Page, Position, ProjectPage

PROJECT_PAGE_BYTES: Final = 4 * 1024 * 1024
# Output that is left out still has to be passed by; more of it fits into one round.
_HIDDEN_FACTOR: Final = 8
_HIDDEN: Final = frozenset({OUTPUT, AGENT})


class PgEventReader:
    """Events of one command, of many, or of a project."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def page(self, command_id: UUID, after: int, max_bytes: int) -> Page:
        found = self._db.run("page", id=command_id, after=after, max_bytes=max_bytes)
        if not found:
            return Page([], None, 0)
        stored = [
            rows.to_event({**row, "command_id": command_id})
            for row in found
            if row["seq"] is not None
        ]
        return Page(stored, found[0]["first"], found[0]["last"])

    def news(self, heads: Sequence[tuple[UUID, int]], max_bytes: int) -> list[Event]:
        if not heads:
            return []
        share = max(max_bytes // len(heads), MAX_EVENT_BYTES)
        ids, seqs = [head[0] for head in heads], [head[1] for head in heads]
        return [rows.to_event(row) for row in self._db.run("news", ids=ids, seqs=seqs, share=share)]

    def project_now(self, project: str) -> Position:
        found = self._db.run("project_now", project=project)
        seen = {row["command_id"]: row["seq"] for row in found if row["command_id"] is not None}
        return Position(found[0]["horizon"], seen)

    def project_news(
        self, project: str, position: Position, *, output: bool, limit: int
    ) -> ProjectPage:
        found = self._db.run(
            "project_news",
            project=project,
            horizon=str(position.horizon),
            ids=list(position.seen),
            seqs=list(position.seen.values()),
            output=output,
            limit=limit if output else limit * _HIDDEN_FACTOR,
            max_bytes=PROJECT_PAGE_BYTES,
        )
        fresh = [row for row in found if row["seq"] is not None]
        shown = [rows.to_event(row) for row in fresh if output or row["type"] not in _HIDDEN]
        return ProjectPage(shown, _next_position(position, found[0], fresh), found[0]["cut"])

    def commands(self, ids: Sequence[UUID]) -> dict[UUID, Command]:
        if not ids:
            return {}
        found = self._db.run("command_get", ids=list(ids))
        return {row["id"]: rows.to_command(row) for row in found}


def _next_position(old: Position, window: Row, fresh: Sequence[Row]) -> Position:
    """Where the next window begins.

    Below the oldest running transaction (`xmin`) nothing can appear any more, so all of it was
    delivered, unless the window was cut: then only what lies below its edge was. Commands with
    delivered events at or above the new horizon are remembered by their newest seq.
    """
    horizon = min(window["xmin"], window["edge"]) if window["cut"] else window["xmin"]
    horizon = max(horizon, old.horizon)
    kept = set(old.seen) if window["cut"] else set(window["kept"])
    seen = {id_: seq for id_, seq in old.seen.items() if id_ in kept}
    newest: dict[UUID, int] = {}
    above: set[UUID] = set()
    for row in fresh:
        newest[row["command_id"]] = row["seq"]
        if row["xid"] >= horizon:
            above.add(row["command_id"])
    seen |= {id_: seq for id_, seq in newest.items() if id_ in above or id_ in seen}
    return Position(horizon, seen)
