"""Upkeep on PostgreSQL: small repeatable repairs, each bounded so that no tick locks for long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

from common.adapters.postgres.parameters import Parameter, jsonb
from common.adapters.postgres.pool import Database
from common.ports.upkeep import Expired, Retention

_AT_ONCE: Final = 500  # rows one transaction changes
_ROUNDS: Final = 20  # such transactions per table and call; the next tick goes on


class PgUpkeep:
    """What on_tick repairs in the database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @contextmanager
    def exclusive(self, job: str) -> Iterator[bool]:
        with self._db.session() as connection:
            got = bool(connection.run("job_lock", {"job": job})[0]["got"])
            try:
                yield got
            finally:  # a broken connection's lock goes with it
                if got and not connection.broken:
                    connection.run("job_unlock", {"job": job})

    def projects_to_ring(self) -> list[str]:
        return [row["project"] for row in self._db.run("projects_to_ring")]

    def promote_due(self) -> list[tuple[UUID, str]]:
        return [(row["id"], row["project"]) for row in self._db.run("promote_due", limit=_AT_ONCE)]

    def expire_queued(self, outcome: dict[str, Any]) -> list[Expired]:
        found = self._db.run("expire_queued", outcome=jsonb(outcome), limit=_AT_ONCE)
        return [Expired(row["id"], row["project"], row["event"]) for row in found]

    def make_partitions(self, days_ahead: int) -> int:
        """Daily partitions from yesterday to `days_ahead` days from today."""
        return int(self._db.run("make_partitions", days=days_ahead + 2)[0]["made"])

    def drop_expired(self, keep: Retention) -> dict[str, int]:
        return {
            "command_events": self._drop_once("drop_events", days=keep.output_days),
            "commands": self._drop("drop_commands", days=keep.commands_days),
            "audit_log": self._drop("drop_audit", days=keep.audit_days),
            "idempotency": self._drop("drop_idempotency", hours=keep.idempotency_hours),
            "dead_letters": self._drop(
                "drop_dead_letters", days=keep.dead_letters_days, most=keep.most_refused
            ),
            "webhook_events": self._drop("drop_webhook_events", days=keep.deliveries_days),
            # Attempts go on for some days after the event that a delivery is of.
            "attempts": self._drop_once("drop_attempts", days=keep.deliveries_days + 1),
            "webhooks": self._drop("drop_webhooks"),
            "seen_events": self._drop(
                "drop_seen_events", days=keep.seen_events_days, most=keep.most_refused
            ),
        }

    def _drop(self, query: str, **age: Parameter) -> int:
        total = 0
        for _ in range(_ROUNDS):
            dropped = self._drop_once(query, **age, limit=_AT_ONCE)
            total += dropped
            if dropped < _AT_ONCE:
                break
        return total

    def _drop_once(self, query: str, **parameters: Parameter) -> int:
        return int(self._db.run(query, **parameters)[0]["dropped"])
