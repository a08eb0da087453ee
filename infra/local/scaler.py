"""Keeps as many processes of each function as its requests need: from zero, out, in, back to zero.

What activator, queue-proxy and autoscaler do in Knative. A request takes a slot of the least busy
instance; without one it is held, in order, while an instance starts. `containerConcurrency` is a
hard limit, `target` what the average should be. Scaling out looks at the last second, scaling in at
the whole idle window, so that a burst is met at once and not forgotten at once.
"""

import asyncio
import logging
import math
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from infra.local import instance as instances
from infra.local.instance import Instance, StartError
from infra.local.manifests import FunctionSpec
from infra.local.process import Launcher, how_it_ended
from infra.local.wire import HttpError

log = logging.getLogger("rdev.functions")

_SAMPLE_S = 1.0
_QUEUE_FACTOR = 10  # queue-proxy holds ten times containerConcurrency, then answers 503
_QUEUE_UNLIMITED = 10_000  # what the activator holds for a function without containerConcurrency
_SHORT_LIFE_S = 5.0  # who exits by itself sooner than this after its start is in a crash loop
_BACKOFF_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
_UNREACHABLE_GRACE_S = 1.0
_PROBE_EVERY_S = 2.0
_PROBE_FAILURES = 3  # a kubelet's default failureThreshold
_DRAIN_S = 30.0  # Knative waits so long before SIGTERM, and takes it off timeoutSeconds


class Function:
    """A function and its instances."""

    def __init__(
        self,
        spec: FunctionSpec,
        environment: Mapping[str, str],
        launcher: Launcher,
        log_file: Path,
        *,
        idle_s: float,
        on_change: Callable[[], None],
        on_death: Callable[[str], None],
    ) -> None:
        self.spec = spec
        self.cold_starts = 0
        self._environment = environment
        self._launcher = launcher
        self._log_file = log_file
        self._on_change = on_change  # an instance came or went
        self._on_death = on_death  # one went that nobody told to go
        self._instances: list[Instance] = []
        self._starting = 0
        self._waiting: deque[asyncio.Future[Instance]] = deque()
        self._crashes = _CrashLoop()
        self._demand = _Demand(spec.target, idle_s)
        self._sampler: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def instances(self) -> tuple[Instance, ...]:
        return tuple(self._instances)

    @property
    def in_flight(self) -> int:
        return sum(one.in_flight for one in self._instances)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def trouble(self) -> str:
        """Why it cannot be started; empty when it can."""
        return self._crashes.reason

    @asynccontextmanager
    async def slot(self, *, background: bool = False) -> AsyncIterator[Instance]:
        """Lend an instance for one request, starting one when needed.

        `background` is for ticks: by themselves they keep no instance where starting one is cheap.
        Raises HttpError 503 when the function cannot start or too many requests wait already.
        """
        weight = 0 if background and self._launcher.cheap else 1
        self._demand.change(weight)
        try:
            chosen = (None if self._waiting else self._free()) or await self._wait_for_slot()
            try:
                yield chosen
            finally:
                chosen.give_back()
                self._serve_waiting()
        finally:
            self._demand.change(-weight)
            if self._sampler is None:
                self._sample_after(_SAMPLE_S if weight else 0.0)

    def discard(self, unreachable: Instance) -> None:
        """Use an instance no more that does not accept connections: it is dead, or as good as."""
        if unreachable in self._instances:
            self._instances.remove(unreachable)
            log.warning("%s (pid %s) is unreachable", self.spec.name, unreachable.process.pid)
            self._run(unreachable.stop(_UNREACHABLE_GRACE_S))
            self._on_change()
            self._on_death(self.spec.name)

    def ensure_min_scale(self) -> None:
        """Start what `min-scale` asks for."""
        self._scale_out(self.spec.min_scale)

    async def ensure_one(self) -> None:
        """Return when an instance runs; raise HttpError 503 when none can."""
        async with self.slot():
            return

    async def close(self, grace_s: float, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop every instance: `number`, and SIGKILL after `grace_s`. None is started any more."""
        self._closed = True
        if self._sampler is not None:
            self._sampler.cancel()
        self._fail_waiting(_shutting_down())
        stopping = [one.stop(grace_s, settle_s=0.0, number=number) for one in self._instances]
        self._instances.clear()
        for task in self._tasks:
            task.cancel()  # starts, and stops that were more patient than this one
        await asyncio.gather(*stopping)

    # slots

    def _free(self) -> Instance | None:
        limit = self.spec.concurrency or math.inf
        usable = [one for one in self._ready() if one.in_flight < limit]
        chosen = min(usable, key=_busyness, default=None)
        if chosen is not None:
            chosen.take()
        return chosen

    async def _wait_for_slot(self) -> Instance:
        self._refuse_hopeless()
        turn: asyncio.Future[Instance] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        busy = self.in_flight + len(self._waiting)
        self._scale_out(math.ceil(busy / self.spec.concurrency) if self.spec.concurrency else 1)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif not turn.cancelled() and turn.exception() is None:
                turn.result().give_back()  # the slot came at the moment the client left
                self._serve_waiting()
            raise

    def _refuse_hopeless(self) -> None:
        if self._closed:
            raise _shutting_down()
        if self._crashes.blocked_s() > 0 and not self._ready() and not self._starting:
            raise self._cannot_start()
        room = _QUEUE_FACTOR * self.spec.concurrency * max(1, len(self._instances))
        if len(self._waiting) >= (room or _QUEUE_UNLIMITED):
            detail = f"{self.spec.name}: pending request queue full"
            raise HttpError(503, "not_ready", detail, {"Retry-After": "1"})

    def _serve_waiting(self) -> None:
        while self._waiting:
            if self._waiting[0].done():
                self._waiting.popleft()  # its client left
            elif (chosen := self._free()) is not None:
                self._waiting.popleft().set_result(chosen)
            else:
                return

    def _ready(self) -> list[Instance]:
        return [one for one in self._instances if one.ready]

    def _fail_waiting(self, error: HttpError) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(error)

    def _cannot_start(self) -> HttpError:
        detail = f"{self.spec.name} {self._crashes.reason}"
        retry_after = str(max(1, math.ceil(self._crashes.blocked_s())))
        return HttpError(503, "not_ready", detail, {"Retry-After": retry_after})

    # starting and ending

    def _scale_out(self, wanted: int) -> None:
        missing = wanted - len(self._ready()) - self._starting
        if self.spec.max_scale:
            room = self.spec.max_scale - len(self._instances) - self._starting
            # An instance that does not answer must not be the one that max-scale leaves.
            missing = min(missing, max(room, 0 if self._ready() else 1 - self._starting))
        for _ in range(0 if self._closed else missing):
            self._starting += 1
            self._run(self._start())

    async def _start(self) -> None:
        began = time.monotonic()
        try:
            started = await instances.start(
                self.spec, self._environment, self._launcher, self._log_file
            )
        except StartError as error:
            self._starting -= 1
            self._crashed(str(error))
            return
        except BaseException:
            self._starting -= 1
            raise
        self._starting -= 1
        self._instances.append(started)
        self.cold_starts += 1
        seconds = time.monotonic() - began
        started.process.exited.add_done_callback(lambda end: self._ended(started, end.result()))
        loop = asyncio.get_running_loop()
        loop.call_later(_SHORT_LIFE_S, self._lived, started)
        self._run(self._keep_asking(started))
        self._serve_waiting()
        self._tell_start(started, seconds)
        if self._sampler is None:
            self._sample_after(_SAMPLE_S)

    def _tell_start(self, started: Instance, seconds: float) -> None:
        # A start for a tick alone happens every few seconds: only those who ask see it.
        level = logging.INFO if self._demand.busy else logging.DEBUG
        fields = {
            "event": "function_started",
            "function": self.spec.name,
            "pid": started.process.pid,
            "ms": round(seconds * 1000),
        }
        text = "%s started in %d ms (pid %d)"
        log.log(level, text, *(fields[key] for key in ("function", "ms", "pid")), extra=fields)
        self._on_change()

    async def _keep_asking(self, instance: Instance) -> None:
        """Route nothing new to an instance while it fails its readiness probe."""
        failures = 0
        exited = instance.process.exited
        while not (await asyncio.wait([exited], timeout=_PROBE_EVERY_S))[0]:
            if instance.ready and not instance.in_flight:
                continue  # the next request finds out
            if instance not in self._instances:
                return
            ready = await instances.still_ready(instance, self.spec.readiness_path)
            failures = 0 if ready else failures + 1
            if ready != instance.ready and (ready or failures >= _PROBE_FAILURES):
                instance.ready = ready
                word = "answers again" if ready else "does not answer its readiness probe"
                log.warning("%s (pid %d) %s", self.spec.name, instance.process.pid, word)
                self._serve_waiting()
                self._scale_out(max(self.spec.min_scale, 1 if self._waiting else 0))

    def _lived(self, instance: Instance) -> None:
        if instance in self._instances:
            self._crashes.reset()

    def _ended(self, instance: Instance, status: int) -> None:
        """Note the end of an instance that nobody told to stop."""
        instance.pool.close()
        if instance not in self._instances:
            return
        self._instances.remove(instance)
        how = how_it_ended(status)
        if status > 0 and time.monotonic() - instance.ready_at < _SHORT_LIFE_S:
            self._crashed(f"{how} soon after its start: {instance.last_words()}")
        else:
            fields = {"event": "function_died", "function": self.spec.name}
            log.warning("%s (pid %s) %s", self.spec.name, instance.process.pid, how, extra=fields)
            self._scale_out(max(self.spec.min_scale, 1 if self._waiting else 0))
        self._on_change()
        self._on_death(self.spec.name)

    def _crashed(self, reason: str) -> None:
        pause_s = self._crashes.failed(reason)
        fields = {"event": "function_crashed", "function": self.spec.name}
        log.error(
            "%s %s; not started again for %s s", self.spec.name, reason, pause_s, extra=fields
        )
        self._on_change()
        if not self._instances and not self._starting:
            self._fail_waiting(self._cannot_start())
        if self.spec.min_scale:
            asyncio.get_running_loop().call_later(pause_s, self.ensure_min_scale)

    # scaling

    def _sample_after(self, seconds: float) -> None:
        if self._instances and not self._closed:
            self._sampler = asyncio.get_running_loop().call_later(seconds, self._sample)

    def _sample(self) -> None:
        """Compare what runs with what the last second and the idle window asked for."""
        self._sampler = None
        now, kept = self._demand.sample()
        self._scale_out(now)
        kept = max(kept, self.spec.min_scale)
        grace_s = max(1.0, self.spec.timeout_s - _DRAIN_S)
        # An instance that does not answer is left to recover, until nothing is needed at all.
        candidates = self._ready() if kept else self._instances
        surplus = max(0, len(candidates) - kept)
        for spare in sorted(candidates, key=_busyness)[:surplus]:
            self._instances.remove(spare)
            self._run(spare.stop(grace_s))
            self._on_change()
        if len(self._instances) > self.spec.min_scale or self._demand.busy:
            self._sample_after(_SAMPLE_S)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Demand:
    """How many instances the requests of the last second, and of the idle window, needed."""

    def __init__(self, target: float, window_s: float) -> None:
        self._target = target
        self._window_s = window_s
        self._concurrency = 0
        self._area = 0.0  # concurrency integrated over time since the last sample
        self._peak = 0
        self._since = self._changed = time.monotonic()
        self._history: deque[tuple[float, int]] = deque()

    @property
    def busy(self) -> bool:
        return self._concurrency > 0

    def change(self, difference: int) -> None:
        now = time.monotonic()
        self._area += self._concurrency * (now - self._changed)
        self._changed = now
        self._concurrency += difference
        self._peak = max(self._peak, self._concurrency)

    def sample(self) -> tuple[int, int]:
        """Return what the time since the last sample needed, and the most of the window."""
        self.change(0)
        span = max(self._changed - self._since, 1e-3)
        needed = math.ceil(self._area / span / self._target) if self._peak else 0
        if self._peak:
            self._history.append((self._changed, max(1, needed)))
        while self._history and self._history[0][0] < self._changed - self._window_s:
            self._history.popleft()
        self._since, self._area, self._peak = self._changed, 0.0, self._concurrency
        return needed, max((most for _, most in self._history), default=0)


class _CrashLoop:
    """Starts that failed in a row, and how long to leave the function alone for them."""

    def __init__(self) -> None:
        self.reason = ""
        self._failures = 0
        self._blocked_until = 0.0

    def failed(self, reason: str) -> float:
        self.reason = reason
        pause_s = _BACKOFF_S[min(self._failures, len(_BACKOFF_S) - 1)]
        self._failures += 1
        self._blocked_until = time.monotonic() + pause_s
        return pause_s

    def blocked_s(self) -> float:
        return self._blocked_until - time.monotonic()

    def reset(self) -> None:
        self.reason = ""
        self._failures = 0


def _busyness(instance: Instance) -> int:
    return instance.in_flight


def _shutting_down() -> HttpError:
    return HttpError(503, "shutting_down", "rdev is shutting down")
