"""From zero, out, in and back, with instances that are servers of this very process."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from infra.local import instance, scaler
from infra.local.manifests import FunctionSpec
from infra.local.scaler import Function
from infra.local.wire import HttpError


class Process:
    """A started process that is really a listener here."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.signals: list[signal.Signals] = []
        self.server: asyncio.Server | None = None
        self.deaf = False  # ends at SIGKILL only

    def signal(self, number: signal.Signals) -> None:
        self.signals.append(number)
        if number == signal.SIGKILL or not self.deaf:
            self.end(0 if number == signal.SIGTERM else -number)

    def end(self, status: int) -> None:
        if self.server is not None:
            self.server.close()
        if not self.exited.done():
            self.exited.set_result(status)


class Launcher:
    """Starts listeners; `fail` makes processes end before they are ready."""

    def __init__(self, *, cheap: bool = True) -> None:
        self.cheap = cheap
        self.started: list[Process] = []
        self.fail: int | None = None
        self.deaf = False
        self.gate: asyncio.Event | None = None  # until it is set, processes are not ready

    async def close(self) -> None:
        pass

    async def launch(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> Process:
        process = Process(len(self.started) + 1)
        process.deaf = self.deaf
        self.started.append(process)
        if self.fail is not None:
            log.write_text("ImportError: it is broken\n")
            process.end(self.fail)
            return process
        if self.gate is not None:
            await self.gate.wait()
        process.server = await asyncio.start_server(
            lambda _, writer: writer.close(), "127.0.0.1", int(environment["PORT"])
        )
        return process


class Bench:
    """One function under test and what it told."""

    def __init__(
        self, tmp_path: Path, *, cheap: bool = True, idle_s: float = 30.0, **spec: Any
    ) -> None:
        self.launcher = Launcher(cheap=cheap)
        self.deaths: list[str] = []
        self.changed = asyncio.Event()
        self.function = Function(
            FunctionSpec("hello", ("python",), **spec),
            {},
            self.launcher,
            tmp_path / "hello.log",
            idle_s=idle_s,
            on_change=self.changed.set,
            on_death=self.deaths.append,
        )

    async def until(self, check: Callable[[], bool]) -> None:
        """Wait for an instance to come or go until `check` holds."""
        while not check():
            self.changed.clear()
            await self.changed.wait()


def run(tmp_path: Path, test: Callable[[Bench], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, **options)
        try:
            async with asyncio.timeout(30):
                await test(bench)
        finally:
            await bench.function.close(0.1)

    asyncio.run(main())


async def held(stack: AsyncExitStack, bench: Bench, count: int) -> list[instance.Instance]:
    """Take slots one after the other and keep them."""
    return [await stack.enter_async_context(bench.function.slot()) for _ in range(count)]


def test_the_first_request_starts_an_instance_and_the_next_uses_it(tmp_path: Path) -> None:
    """From zero one request costs one start, the next none."""

    async def test(bench: Bench) -> None:
        async with bench.function.slot() as first:
            pass
        async with bench.function.slot() as second:
            assert second is first
        assert bench.function.cold_starts == 1

    run(tmp_path, test)


def test_requests_wait_in_order_while_an_instance_starts(tmp_path: Path) -> None:
    """What arrives during a start is held and served first come, first served."""

    async def test(bench: Bench) -> None:
        order: list[int] = []

        async def request(number: int) -> None:
            async with bench.function.slot():
                order.append(number)

        await asyncio.gather(*(request(number) for number in range(5)))
        assert order == [0, 1, 2, 3, 4]
        assert len(bench.launcher.started) == 1

    run(tmp_path, test, concurrency=1, max_scale=1)


def test_a_full_instance_brings_another_up_to_max_scale(tmp_path: Path) -> None:
    """containerConcurrency is a hard limit, max-scale another."""

    async def test(bench: Bench) -> None:
        async with AsyncExitStack() as stack:
            taken = await held(stack, bench, 4)
            assert sorted(taken.count(one) for one in set(taken)) == [2, 2]
            waiting = asyncio.create_task(stack.enter_async_context(bench.function.slot()))
            await asyncio.sleep(0)
            assert bench.function.waiting == 1 and not waiting.done()
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting
            assert bench.function.waiting == 0

    run(tmp_path, test, concurrency=2, max_scale=2)


def test_the_least_busy_instance_is_chosen(tmp_path: Path) -> None:
    """Requests spread over the instances."""

    async def test(bench: Bench) -> None:
        bench.function.ensure_min_scale()
        await bench.until(lambda: len(bench.function.instances) == 2)
        async with AsyncExitStack() as stack:
            taken = await held(stack, bench, 2)
            assert taken[0] is not taken[1]

    run(tmp_path, test, min_scale=2)


def test_more_requests_than_the_target_bring_an_instance_before_the_limit(tmp_path: Path) -> None:
    """The average of the last second is compared with the target."""

    async def test(bench: Bench) -> None:
        async with AsyncExitStack() as stack:
            await held(stack, bench, 3)
            await bench.until(lambda: len(bench.function.instances) == 2)

    run(tmp_path, test, concurrency=10, target=2.0)


def test_without_requests_an_idle_window_long_it_goes_to_zero(tmp_path: Path) -> None:
    """An idle function ends by SIGTERM and starts again when asked."""

    async def test(bench: Bench) -> None:
        async with bench.function.slot():
            pass
        await bench.until(lambda: not bench.function.instances)
        assert bench.launcher.started[0].signals == [signal.SIGTERM]
        async with bench.function.slot():
            assert bench.function.cold_starts == 2
        assert bench.deaths == []

    run(tmp_path, test, idle_s=0.01)


def test_min_scale_is_kept(tmp_path: Path) -> None:
    """What min-scale asks for neither waits for a request nor goes without one."""

    async def test(bench: Bench) -> None:
        bench.function.ensure_min_scale()
        await bench.until(lambda: len(bench.function.instances) == 1)
        async with AsyncExitStack() as stack:
            await held(stack, bench, 2)
            assert len(bench.function.instances) == 2
        await bench.until(lambda: len(bench.function.instances) == 1)
        bench.function._instances[0].process.signal(signal.SIGKILL)
        await bench.until(lambda: len(bench.launcher.started) == 3 and bool(bench.deaths))

    run(tmp_path, test, idle_s=0.01, min_scale=1, concurrency=1)


def test_a_tick_alone_keeps_nothing_warm_where_starts_are_cheap(tmp_path: Path) -> None:
    """A background request counts for no idle window, and its instance ends with it."""

    async def test(bench: Bench) -> None:
        async with bench.function.slot(background=True):
            pass
        await bench.until(lambda: not bench.function.instances)

    run(tmp_path, test)


def test_a_tick_counts_where_starts_are_dear(tmp_path: Path) -> None:
    """Without a zygote the instance of the last tick serves the next one."""

    async def test(bench: Bench) -> None:
        async with bench.function.slot(background=True):
            pass
        bench.function._sample()
        assert len(bench.function.instances) == 1

    run(tmp_path, test, cheap=False)


def test_a_function_that_cannot_start_says_why_and_is_left_alone(tmp_path: Path) -> None:
    """Requests get 503 with the reason; the next start waits longer each time."""

    async def test(bench: Bench) -> None:
        bench.launcher.fail = 1
        for starts in (1, 1):
            with pytest.raises(HttpError, match="ImportError: it is broken") as refused:
                async with bench.function.slot():
                    pass
            assert refused.value.status == 503 and "Retry-After" in refused.value.headers
            assert len(bench.launcher.started) == starts
        assert bench.function.trouble.startswith("exited with status 1 before it was ready")

    run(tmp_path, test)


def test_the_pause_between_failed_starts_doubles_up_to_half_a_minute() -> None:
    """A crash loop backs off."""
    crashes = scaler._CrashLoop()
    assert [crashes.failed("x") for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    crashes.reset()
    assert crashes.failed("x") == 0.5


def test_an_exit_soon_after_the_start_is_a_crash_loop_and_a_kill_is_not(tmp_path: Path) -> None:
    """A process that ends itself backs off; one that was killed is replaced at once."""

    async def test(bench: Bench) -> None:
        async with bench.function.slot():
            pass
        bench.launcher.started[0].end(-signal.SIGKILL)
        await bench.until(lambda: bench.deaths == ["hello"])
        async with bench.function.slot():
            assert bench.function.trouble == ""
        bench.launcher.started[1].end(3)
        await bench.until(lambda: len(bench.deaths) == 2)
        assert "exited with status 3 soon after its start" in bench.function.trouble
        with pytest.raises(HttpError, match="soon after its start"):
            async with bench.function.slot():
                pass

    run(tmp_path, test)


def test_too_many_waiting_requests_are_refused(tmp_path: Path) -> None:
    """Ten times containerConcurrency may wait, as at a queue-proxy; the next gets 503."""

    async def test(bench: Bench) -> None:
        bench.launcher.gate = asyncio.Event()

        async def request() -> None:
            async with bench.function.slot():
                pass

        waiting = [asyncio.create_task(request()) for _ in range(10)]
        await asyncio.sleep(0)
        with pytest.raises(HttpError, match="queue full"):
            await request()
        bench.launcher.gate.set()
        await asyncio.gather(*waiting)

    run(tmp_path, test, concurrency=1, max_scale=1)


def test_an_unreachable_instance_is_replaced(tmp_path: Path) -> None:
    """What accepts no connections is ended and told as a death; the next request starts another."""

    async def test(bench: Bench) -> None:
        async with bench.function.slot() as first:
            bench.function.discard(first)
        assert bench.deaths == ["hello"]
        async with bench.function.slot() as second:
            assert second is not first

    run(tmp_path, test)


def test_closing_ends_the_deaf_too_and_starts_nothing_more(tmp_path: Path) -> None:
    """SIGTERM, after the grace SIGKILL; whoever asks afterwards gets 503 shutting_down."""

    async def test(bench: Bench) -> None:
        bench.launcher.deaf = True
        async with bench.function.slot():
            pass
        await bench.function.close(0.01)
        assert bench.launcher.started[0].signals == [signal.SIGTERM, signal.SIGKILL]
        with pytest.raises(HttpError) as refused:
            async with bench.function.slot():
                pass
        assert refused.value.code == "shutting_down"

    run(tmp_path, test)


def test_closing_refuses_those_who_wait(tmp_path: Path) -> None:
    """A request that is held when the end comes is answered instead of dropped."""

    async def test(bench: Bench) -> None:
        bench.launcher.gate = asyncio.Event()

        async def request() -> None:
            async with bench.function.slot():
                pass

        waiting = asyncio.create_task(request())
        await asyncio.sleep(0)
        await bench.function.close(0.01)
        with pytest.raises(HttpError, match="shutting down"):
            await waiting

    run(tmp_path, test)


def test_demand_looks_at_the_last_second_outwards_and_at_the_window_inwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Out by the average since the last sample, in by the most of the window."""
    now = [100.0]
    monkeypatch.setattr("infra.local.scaler.time.monotonic", lambda: now[0])
    demand = scaler._Demand(target=10.0, window_s=5.0)
    demand.change(25)
    now[0] += 1
    assert demand.sample() == (3, 3)
    demand.change(-24)
    now[0] += 1
    assert demand.sample() == (1, 3)
    demand.change(-1)
    now[0] += 1
    assert demand.sample() == (0, 3)
    now[0] += 10
    assert demand.sample() == (0, 0)
