"""Use case: what on_tick does, so that every promise holds even if every event is lost.

A list of jobs, each under its own advisory lock, each on its own: one that fails does not keep the
others from their work, and two ticks at once are harmless. It rings, it never executes.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from common.domain.command import Reason
from common.domain.errors import RdevError
from common.domain.outcome import never_ran
from common.ports.outbox import RunnerBell
from common.ports.upkeep import Retention, Upkeep
from common.services import telemetry
from common.services.relay import Relay
from common.services.wakeups import Wakeups

PARTITION_DAYS: Final = 8  # today and a week ahead
RINGS_AT_ONCE: Final = 8

log = telemetry.logger("rdev.repair")


class Repair:
    def __init__(
        self,
        upkeep: Upkeep,
        relay: Relay,
        bell: RunnerBell,
        wakeups: Wakeups,
        discover: Callable[[], object],
        keep: Retention,
        seal: Callable[[], object],
        webhooks: Callable[[], object],
    ) -> None:
        self._upkeep = upkeep
        self._relay = relay
        self._bell = bell
        self._wakeups = wakeups
        self._discover = discover
        self._keep = keep
        self._seal = seal
        self._webhooks = webhooks

    def __call__(self) -> list[str]:
        """One tick; answers the names of the jobs that failed."""
        jobs: list[tuple[str, Callable[[], object]]] = [
            ("discover", self._discover),
            ("promote", self.promote),
            ("expire", self._expire),
            ("ring", self._ring),
            ("outbox", self._publish),
            ("webhooks", self._webhooks),
            ("seal", self._seal),
            ("partitions", lambda: self._upkeep.make_partitions(PARTITION_DAYS)),
            ("retention", lambda: self._upkeep.drop_expired(self._keep)),
        ]
        return [name for name, job in jobs if not self._run(name, job)]

    def promote(self) -> None:
        """scheduled → queued for what is due, and its doorbells."""
        due = self._upkeep.promote_due()
        for command_id, project in due:
            self._wakeups.state(command_id, project)
        self._ring_all(sorted({project for _, project in due}))

    def _run(self, name: str, job: Callable[[], object]) -> bool:
        try:
            with telemetry.span(f"rdev.tick.{name}"), self._upkeep.exclusive(name) as mine:
                if mine:
                    job()
        except RdevError as error:
            log.warning("tick job failed", job=name, detail=error.detail)
            return False
        except Exception as error:  # one job's bug must not stop the others
            log.error("tick job broke", job=name, exc_info=error)
            return False
        return True

    def _expire(self) -> None:
        for late in self._upkeep.expire_queued(never_ran(Reason.QUEUE)):
            self._wakeups.state(late.command_id, late.project)
            self._relay.soon(late.event)
            telemetry.tick_rescued.add(1, {"cause": "queue_timeout"})
            log.info("command waited too long", command_id=str(late.command_id))

    def _ring(self) -> None:
        projects = self._upkeep.projects_to_ring()
        telemetry.tick_rescued.add(len(projects), {"cause": "ring"})
        self._ring_all(projects)

    def _ring_all(self, projects: list[str]) -> None:
        if projects:
            with ThreadPoolExecutor(min(RINGS_AT_ONCE, len(projects))) as pool:
                list(pool.map(self._bell.ring, projects))

    def _publish(self) -> None:
        published = self._relay.leftovers()
        if published:
            telemetry.tick_rescued.add(published, {"cause": "outbox"})
