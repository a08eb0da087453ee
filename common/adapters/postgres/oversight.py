"""Oversight on PostgreSQL."""

from __future__ import annotations

from common.adapters.postgres import rows
from common.adapters.postgres.connection import Row
from common.adapters.postgres.pool import Database
from common.domain.command import Priority
from common.domain.keys import Caller
from common.domain.oversight import Depth, ProjectQueue, Usage, UsageFilter
from common.ports.commands import Origin


class PgOversight:
    """Questions over all commands, answered from the truth and not from counters."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def queues(self, projects: frozenset[str] | None) -> list[ProjectQueue]:
        asked = None if projects is None else sorted(projects)
        found: dict[str, ProjectQueue] = {}
        for row in self._db.run("queue_depths", projects=asked):
            one = found.setdefault(row["project"], ProjectQueue(row["project"], row["paused_at"]))
            if row["priority"] is not None:
                depth = Depth(row["queued"], row["running"], row["oldest_s"])
                one.depths[Priority(row["priority"])] = depth
        return list(found.values())

    def pause(self, project: str, caller: Caller, origin: Origin, *, paused: bool) -> bool:
        answer = self._db.one(
            "project_pause", project=project, paused=paused, audit=rows.audit(caller, origin)
        )
        return answer is not None and answer["status"] == "ok"

    def usage(self, wanted: UsageFilter) -> list[Usage]:
        found = self._db.run(
            "usage",
            by=sorted(wanted.by),
            since=wanted.since,
            until=wanted.until,
            projects=None if wanted.projects is None else sorted(wanted.projects),
            key_id=wanted.key_id,
            model=wanted.model,
            limit=wanted.limit,
        )
        return [_usage(row) for row in found]


def _usage(row: Row) -> Usage:
    return Usage(
        row["project"],
        row["key_id"],
        row["model"],
        row["day"],
        row["commands"],
        float(row["seconds"]),
        float(row["cost_usd"]),
        int(row["input_tokens"]),
        int(row["output_tokens"]),
        int(row["cache_read_tokens"]),
        int(row["cache_creation_tokens"]),
    )
