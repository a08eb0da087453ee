"""Use case: one runner process: claims while it has room, follows what it claimed, hands over.

A ring says "look at this project"; what there is to do is asked of the database. Commands whose
runner died are adopted on every ring and heartbeat, whatever their project.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

from common.domain.errors import Unavailable
from common.ports import signals
from common.ports.outbox import RunnerBell
from common.ports.queue import HEARTBEAT_S, Claim, Queue
from common.ports.signals import Listening, Signals
from common.services import telemetry
from common.services.follower import Follower

SHUTDOWN_S: Final = 4.0  # for commands that are cancelled because the laptop's rdev stops
TIDY_S: Final = 3600.0  # how often a workspace's old run directories are looked for
BELL_S: Final = 1.0  # a full runner rings for another one at most this often per project

log = telemetry.logger("rdev.runner")


class Runner:
    """The commands this process follows."""

    def __init__(
        self,
        queue: Queue,
        listener: Signals,
        bell: RunnerBell,
        follower: Callable[[Claim], Follower],
        room: int,
    ) -> None:
        self.worker = secrets.randbits(62)
        self._queue = queue
        self._signals = listener
        self._bell = bell
        self._follower = follower
        self._room = room
        self._followers: dict[UUID, Follower] = {}
        self._hungry: dict[str, float] = {}  # projects left waiting for room → when last rung for
        self._tidied: dict[str, float] = {}
        self._changed = threading.Condition()
        self._pass = threading.Lock()
        self._stopping = threading.Event()
        self._listening: Listening | None = None
        self._beat: threading.Thread | None = None
        self.on_change: Callable[[], None] = lambda: None

    # -- the process ---------------------------------------------------------------------------

    def start(self) -> None:
        """Say that this worker is alive and begin to renew leases."""
        self._listening = self._signals.listen((signals.CONTROL,), self._heard)
        self._listening.hold(self.worker)
        self._beat = threading.Thread(target=self._heartbeats, name="heartbeat", daemon=True)
        self._beat.start()

    def stop(self) -> list[str]:
        """Stop following and give the leases up; answers the projects somebody must look at."""
        self._stopping.set()
        with self._pass, self._changed:
            mine = list(self._followers.values())
            projects = {f.command.project for f in mine} | set(self._hungry)
        for follower in mine:
            follower.stop()
        with self._changed:
            self._changed.wait_for(lambda: not self._followers, timeout=5.0)
        try:
            self._queue.release([(f.command.id, f.token) for f in mine])
        except Unavailable as error:
            log.warning("leases not released, they run out", detail=error.detail)
        if self._listening is not None:
            self._listening.close()
        return sorted(projects)

    def cancel_all(self, cancel: Callable[[UUID], object]) -> bool:
        """End every command that runs here, as the laptop's rdev stops; False when one lives on."""
        self._stopping.set()
        with self._pass, self._changed:
            mine = list(self._followers.values())
        for follower in mine:
            try:
                cancel(follower.command.id)
            except Unavailable as error:  # the kill's reason tells how it ended all the same
                log.warning("cancel not written", detail=error.detail)
            follower.cancel("shutdown", "shutdown")
        with self._changed:
            return self._changed.wait_for(lambda: not self._followers, timeout=SHUTDOWN_S)

    @property
    def following(self) -> list[UUID]:
        """The commands this process follows now."""
        with self._changed:
            return list(self._followers)

    # -- claiming ------------------------------------------------------------------------------

    def ring(self, project: str | None) -> int:
        """Look for work: claim, then adopt what lost its runner; answers how much was taken on.

        Raises Unavailable when the database cannot be asked.
        """
        taken = 0
        with self._pass:
            if self._stopping.is_set():
                return 0
            if project is not None:  # first, since somebody waits for its first byte
                taken += self._claim(project)
            taken += self._adopt()
        return taken

    def _adopt(self) -> int:
        room = self._free()
        claims = self._queue.adopt(self.worker, room) if room > 0 else []
        for claim in claims:
            log.info("adopted", command_id=str(claim.command.id), lease_token=claim.token)
            self._follow(claim)
        return len(claims)

    def _claim(self, project: str) -> int:
        taken = 0
        while self._free() > 0:
            claim = self._queue.claim(project, self.worker)
            if claim is None:
                self._hungry.pop(project, None)
                return taken
            taken += 1
            self._observe(claim)
            self._follow(claim)
        self._ask_for_help(project)
        return taken

    def _ask_for_help(self, project: str) -> None:
        """No room left: remember the project, and ring so that another process may take it."""
        now = time.monotonic()
        if now - self._hungry.get(project, 0.0) >= BELL_S:
            self._hungry[project] = now
            threading.Thread(target=self._bell.ring, args=(project,), daemon=True).start()

    def _free(self) -> int:
        with self._changed:
            return self._room - len(self._followers)

    @staticmethod
    def _observe(claim: Claim) -> None:
        waited = time.time() - claim.command.created_at.timestamp()
        telemetry.queue_wait.record(max(0.0, waited), {"kind": str(claim.command.kind)})

    # -- following -----------------------------------------------------------------------------

    def _follow(self, claim: Claim) -> None:
        follower = self._follower(claim)
        with self._changed:
            old = self._followers.get(claim.command.id)
            self._followers[claim.command.id] = follower
        if old is not None:  # our own lease had run out: its token is stale now
            old.stop()
        name = f"follow-{claim.command.id.hex[-8:]}"
        threading.Thread(target=self._run, args=(follower,), name=name, daemon=True).start()
        self.on_change()

    def _run(self, follower: Follower) -> None:
        try:
            follower.follow()
        except Exception as error:  # a bug: the lease runs out and another runner tries
            telemetry.invariant_violation.add(1, {"name": "follower_crashed"})
            log.error("follower crashed", command_id=str(follower.command.id), exc_info=error)
        with self._changed:
            if self._followers.get(follower.command.id) is follower:
                del self._followers[follower.command.id]
            self._changed.notify_all()
        self.on_change()
        self._next(follower.command.project)
        self._tidy(follower)

    def _tidy(self, follower: Follower) -> None:
        """Remove the project's old run directories, in the thread of a follower that has ended."""
        now, project = time.monotonic(), follower.command.project
        if now - self._tidied.get(project, -TIDY_S) >= TIDY_S and not self._stopping.is_set():
            self._tidied[project] = now
            follower.tidy()

    def _next(self, project: str) -> None:
        """Room again: look at the project that made it, then at those that waited for it."""
        try:
            for name in dict.fromkeys([project, *list(self._hungry)]):
                self.ring(name)
        except Unavailable as error:
            log.warning("claiming waits for the next ring", detail=error.detail)

    # -- leases and cancels --------------------------------------------------------------------

    def _heartbeats(self) -> None:
        while not self._stopping.wait(HEARTBEAT_S):
            self._beat_once(adopt=True)
        while self.following:  # draining: the runs are still ours until they are handed over
            self._beat_once(adopt=False)
            with self._changed:
                self._changed.wait_for(lambda: not self._followers, timeout=HEARTBEAT_S)

    def _beat_once(self, *, adopt: bool) -> None:
        try:
            self._renew()
            if adopt:
                self.ring(None)
            if adopt and self._hungry and self._free() > 0:  # the database was away when room came
                self._next(next(iter(self._hungry)))
        except Unavailable as error:
            log.warning("leases not renewed", detail=error.detail)
        except Exception as error:  # the heartbeat must outlive its own bugs
            log.error("heartbeat failed", exc_info=error)

    def _renew(self) -> None:
        with self._changed:
            mine = dict(self._followers)
        if not mine:
            return
        held = self._queue.heartbeat([(i, f.token) for i, f in mine.items()])
        for lease in held:
            if lease.cancel_mode:
                mine[lease.command_id].cancel(lease.cancel_mode, lease.cancel_reason or "user")
        for command_id in mine.keys() - {lease.command_id for lease in held}:
            mine[command_id].stop()

    def _heard(self, _channel: str, payload: str) -> None:
        """Somebody wants something of a command: if it is followed here, look what it is now."""
        with self._changed:
            mine = {i.hex: f for i, f in self._followers.items()}
        meant = list(mine.values()) if not payload else [mine[payload]] if payload in mine else []
        if not meant:
            return
        try:
            self._renew()
        except Unavailable as error:
            log.warning("cancel waits for the heartbeat", detail=error.detail)
        for follower in meant:
            follower.news()
