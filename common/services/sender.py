"""Use case: deliveries are sent, each endpoint's on its own, so that a dead one slows no other.

One thread looks what is due and when the next will be; every endpoint with something due gets a
thread of its own until it has nothing more. A delivery is sent under a lease: killed after the
request and before its record, it is sent again, with the same webhook-id. Work that falls due
within 90 s stays in this process until then; what is later, or was left by a death, on_tick brings.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from common.domain.errors import RdevError, Unavailable
from common.domain.webhooks import Answer, rest_s, retry_in_s
from common.ports.sealer import Sealer
from common.ports.webhooks import (
    BATCH_S,
    Claimed,
    Courier,
    DeliveryQueue,
    Due,
    Made,
    SenderBell,
    Target,
)
from common.services import telemetry
from common.services.relay import Relay

KEEP_S: Final = 90.0  # a tick comes once a minute, and this process lives that long without work
BATCH: Final = 32
RECORD_EVERY_S: Final = 0.05  # a death repeats no more than what was sent in this time
THREADS: Final = 32
FAILING_THREADS: Final = 16  # of these, for endpoints whose last attempt failed
PAUSE_S: Final = 2.0  # while the database is away
USER_AGENT: Final = "rdev-webhooks/1"

log = telemetry.logger("rdev.sender")


@dataclass(frozen=True)
class _Done:
    """An attempt and when it ended."""

    claimed: Claimed
    answer: Answer
    at: float
    retry_in_s: float | None
    rest_s: float


class Sender:
    """Sends what is due from threads of this process, from the first ring on."""

    def __init__(
        self,
        queue: DeliveryQueue,
        courier: Courier,
        sealer: Sealer,
        relay: Relay,
        bell: SenderBell,
    ) -> None:
        self._queue = queue
        self._courier = courier
        self._sealer = sealer
        self._relay = relay
        self._bell = bell
        self._rung = threading.Event()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._looking: threading.Thread | None = None
        self._busy: dict[UUID, tuple[threading.Thread, bool]] = {}
        self.on_change: Callable[[], None] = lambda: None

    # -- what others ask of it ------------------------------------------------------------------

    def ring(self) -> None:
        """Look for what is due; returns at once."""
        with self._lock:
            if self._looking is None and not self._stopping.is_set():
                self._looking = threading.Thread(target=self._look, name="sender", daemon=True)
                self._looking.start()
        self._rung.set()

    @property
    def sending(self) -> list[UUID]:
        """Endpoints that are being sent to."""
        with self._lock:
            return list(self._busy)

    def stop(self) -> None:
        """Finish the requests that are under way and hand the rest to the next instance."""
        self._stopping.set()
        self._rung.set()
        with self._lock:
            threads = [thread for thread, _ in self._busy.values()]
        for thread in threads:
            thread.join()
        try:
            left = self._queue.due(KEEP_S)
        except Unavailable:  # then the tick finds it
            return
        if left:
            self._bell.ring()

    # -- looking --------------------------------------------------------------------------------

    def _look(self) -> None:
        while not self._stopping.is_set():
            self._rung.clear()
            self._rung.wait(self._start_due())

    def _start_due(self) -> float | None:
        """Give every endpoint with something due a thread; answers when to look again."""
        try:
            found = self._queue.due(KEEP_S)
        except Unavailable as error:
            log.warning("deliveries unreadable", detail=error.detail)
            return PAUSE_S
        except Exception as error:  # this thread is the only one that looks
            log.error("looking for deliveries failed", exc_info=error)
            return PAUSE_S
        now = [due for due in found if due.in_s <= 0]
        for due in now:
            self._start(due)
        later = [due.in_s for due in found if due.in_s > 0]
        # Who got no thread is found again when one ends, for that rings.
        return min(later) + 0.01 if later else None

    def _start(self, due: Due) -> None:
        with self._lock:
            failing = sum(failing for _, failing in self._busy.values())
            full = len(self._busy) >= THREADS or (due.failing and failing >= FAILING_THREADS)
            if due.endpoint_id in self._busy or full or self._stopping.is_set():
                return
            thread = threading.Thread(target=self._drain, args=(due.endpoint_id,), daemon=True)
            self._busy[due.endpoint_id] = thread, due.failing
            thread.start()
        self.on_change()

    # -- one endpoint ---------------------------------------------------------------------------

    def _drain(self, endpoint_id: UUID) -> None:
        """Send to one endpoint until nothing more is due."""
        try:
            while not self._stopping.is_set() and self._batch(endpoint_id):
                pass
        except RdevError as error:
            log.warning("sending rests", endpoint=endpoint_id.hex, detail=error.detail)
            self._stopping.wait(PAUSE_S)
        except Exception as error:  # a thread's last stop; leases run out and on_tick rings
            log.error("sending broke", endpoint=endpoint_id.hex, exc_info=error)
            self._stopping.wait(PAUSE_S)
        finally:
            with self._lock:
                self._busy.pop(endpoint_id, None)
            self._rung.set()
            self.on_change()

    def _batch(self, endpoint_id: UUID) -> bool:
        """Claim, send and record; False when there was nothing, or the endpoint is left alone."""
        claimed = self._queue.claim(endpoint_id, BATCH)
        if not claimed:
            return False
        target = self._queue.target(endpoint_id)
        if target is None:  # deleted since
            return False
        unsent = list(claimed)
        try:
            return self._send(endpoint_id, _Prepared(target, self._sealer), unsent)
        finally:
            self._queue.release(unsent)

    def _send(self, endpoint_id: UUID, prepared: _Prepared, unsent: list[Claimed]) -> bool:
        """Send in order; what is left in `unsent` was not. Records every few and at the end."""
        began = recorded = time.monotonic()
        done: list[_Done] = []
        failures = prepared.failures
        try:
            while unsent and not self._stopping.is_set():
                one = unsent.pop(0)
                answer = self._post(prepared, one)
                failures = 0 if answer.delivered else failures + 1
                done.append(_judged(one, answer, failures))
                now = time.monotonic()
                if done[-1].rest_s or answer.gone:
                    return False
                if now - began > BATCH_S:  # the leases of the others would run out
                    return True
                if now - recorded > RECORD_EVERY_S:
                    self._record(endpoint_id, done)
                    recorded = time.monotonic()
            return True
        finally:
            self._record(endpoint_id, done)

    def _post(self, prepared: _Prepared, one: Claimed) -> Answer:
        body = one.message.body(prepared.payload)
        at = datetime.now(UTC)
        signatures = [
            self._courier.sign(secret, one.message.name, at, body) for secret in prepared.secrets
        ]
        headers = prepared.headers | {
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            "webhook-id": one.message.name,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": " ".join(signatures),
        }
        answer = self._courier.post(prepared.url, headers, body)
        telemetry.webhook_attempts.add(1, {"delivered": answer.delivered})
        return answer

    def _record(self, endpoint_id: UUID, done: list[_Done]) -> None:
        if not done:
            return
        now = time.monotonic()
        made = [Made(d.claimed, d.answer, now - d.at, d.retry_in_s, d.rest_s) for d in done]
        done.clear()
        event = self._queue.record(endpoint_id, made)
        if event is not None:
            log.warning("webhook disabled", endpoint=endpoint_id.hex)
            self._relay.soon(event)


class _Prepared:
    """What every delivery of a batch is sent with; unsealed for as long as that takes."""

    def __init__(self, target: Target, sealer: Sealer) -> None:
        self.url = target.url
        self.payload = target.payload
        self.failures = target.failures
        self.secrets = [sealer.unseal(sealed) for sealed in target.sealed_secrets]
        sealed = target.sealed_headers
        self.headers: dict[str, str] = json.loads(sealer.unseal(sealed)) if sealed else {}


def _judged(one: Claimed, answer: Answer, failures: int) -> _Done:
    again = None if answer.delivered else retry_in_s(one.tries + 1, answer)
    rest = 0.0 if answer.delivered else rest_s(failures, answer)
    return _Done(one, answer, time.monotonic(), None if answer.gone else again, rest)
