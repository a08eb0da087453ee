"""Upkeep in dicts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from common.adapters.memory.state import MemoryState
from common.domain.command import State
from common.domain.identifiers import day_of, new_id
from common.domain.project import Phase
from common.ports.upkeep import Expired, Retention


class MemoryUpkeep:
    """What on_tick repairs."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    @contextmanager
    def exclusive(self, job: str) -> Iterator[bool]:
        with self._state.lock:
            got = job not in self._state.jobs
            self._state.jobs.add(job)
        try:
            yield got
        finally:
            if got:
                self._state.jobs.discard(job)

    def projects_to_ring(self) -> list[str]:
        with self._state.lock:
            return sorted(name for name in self._state.projects if self._needs_runner(name))

    def promote_due(self) -> list[tuple[UUID, str]]:
        with self._state.lock:
            now = self._state.clock()
            due = [
                row
                for row in self._state.by_id()
                if row.command.state is State.SCHEDULED
                and row.command.run_at is not None
                and row.command.run_at <= now
            ]
            for row in due:
                self._state.move(row, State.QUEUED)
                self._state.announce(row.command, "queued", new_id())
            return [(row.command.id, row.command.project) for row in due]

    def expire_queued(self, outcome: dict[str, Any]) -> list[Expired]:
        with self._state.lock:
            now = self._state.clock()
            late = [
                row
                for row in self._state.by_id()
                if row.command.state is State.QUEUED
                and row.queue_deadline is not None
                and row.queue_deadline <= now
            ]
            ended = [Expired(row.command.id, row.command.project, new_id()) for row in late]
            for row, expired in zip(late, ended, strict=True):
                self._state.end(row, State.TIMED_OUT, outcome, expired.event)
            return ended

    def make_partitions(self, days_ahead: int) -> int:
        """Dicts have none to make."""
        return 0

    def drop_expired(self, keep: Retention) -> dict[str, int]:
        with self._state.lock:
            return {
                "command_events": self._drop_events(keep.output_days),
                "commands": self._drop_commands(keep.commands_days),
                "audit_log": self._drop_audit(keep.audit_days),
                "idempotency": self._drop_idempotency(keep.idempotency_hours),
                "dead_letters": self._drop_dead_letters(keep.dead_letters_days, keep.most_refused),
                "webhook_events": self._drop_heard(keep.deliveries_days),
                "attempts": 0,  # they are part of their deliveries here
                "webhooks": self._drop_webhooks(),
                "seen_events": self._drop_seen_events(keep.seen_events_days, keep.most_refused),
            }

    def _needs_runner(self, name: str) -> bool:
        row = self._state.projects[name]
        live = self._state.live_in(name)
        if any(self._state.lease_is_dead(command) for command in live):
            return True
        open_ = row.found.phase is Phase.READY and not row.gone and row.paused_at is None
        room = len(live) < row.found.max_concurrent_commands
        return open_ and room and bool(self._state.queued_in(name))

    def _drop_events(self, days: int) -> int:
        """Whole days of commands that have all ended; answers how many days."""
        before = self._state.clock().date() - timedelta(days=days)
        rows = [row for row in self._state.by_id() if day_of(row.command.id) < before]
        alive = {day_of(row.command.id) for row in rows if not row.command.ended}
        dropped = set()
        for row in rows:
            day = day_of(row.command.id)
            if day not in alive and row.events:
                row.events.clear()
                dropped.add(day)
        return len(dropped)

    def _drop_commands(self, days: int) -> int:
        before = self._state.clock() - timedelta(days=days)
        old = [
            row.command.id
            for row in self._state.by_id()
            if row.command.finished_at is not None and row.command.finished_at < before
        ]
        for command_id in old:
            del self._state.commands[command_id]
        return len(old)

    def _drop_audit(self, days: int) -> int:
        before = self._state.clock() - timedelta(days=days)
        kept = [row for row in self._state.audit if row.at >= before]
        dropped = len(self._state.audit) - len(kept)
        self._state.audit = kept
        return dropped

    def _drop_idempotency(self, hours: int) -> int:
        before = self._state.clock() - timedelta(hours=hours)
        old = [key for key, row in self._state.idempotency.items() if row.created_at < before]
        for key in old:
            del self._state.idempotency[key]
        return len(old)

    def _drop_dead_letters(self, days: int, most: int) -> int:
        letters = self._state.dead_letters
        before = self._state.clock() - timedelta(days=days)
        moments = {i: letter.created_at or before for i, letter in letters.items()}
        old = [i for i, at in moments.items() if at < max(before, _newest(moments.values(), most))]
        for letter_id in old:
            del letters[letter_id]
        return len(old)

    def _drop_seen_events(self, days: int, most: int) -> int:
        before = self._state.clock() - timedelta(days=days)
        refusals = [m.at for m in self._state.seen.values() if m.at and m.command_id is None]
        first = _newest(refusals, most)
        old = [
            seen
            for seen, match in self._state.seen.items()
            if match.at and (match.at < before or (match.command_id is None and match.at < first))
        ]
        for seen in old:
            del self._state.seen[seen]
        return len(old)

    def _drop_heard(self, days: int) -> int:
        """Events and with them their deliveries."""
        before = self._state.clock() - timedelta(days=days)
        old = {event_id for event_id, row in self._state.heard.items() if row.message.at < before}
        for event_id in old:
            del self._state.heard[event_id]
        for row in [r for r in self._state.deliveries.values() if r.event_id in old]:
            del self._state.deliveries[row.id]
        return len(old)

    def _drop_webhooks(self) -> int:
        before = self._state.clock() - timedelta(days=1)
        used = {row.endpoint_id for row in self._state.deliveries.values()}
        old = [
            endpoint_id
            for endpoint_id, row in self._state.webhooks.items()
            if row.deleted_at is not None and row.deleted_at < before and endpoint_id not in used
        ]
        for endpoint_id in old:
            del self._state.webhooks[endpoint_id]
        return len(old)


def _newest(moments: Iterable[datetime], most: int) -> datetime:
    """The moment of the last of the newest `most`; the beginning of time when there are fewer."""
    newest = sorted(moments, reverse=True)[:most]
    return newest[-1] if len(newest) == most else datetime.min.replace(tzinfo=UTC)
