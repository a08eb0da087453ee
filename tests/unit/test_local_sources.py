"""Ticks: at once, by the interval, when something happened, and rarely when nothing does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from infra.local.delivery import Response
from infra.local.manifests import Destination, PingSpec
from infra.local.sources import Ticker
from infra.local.wire import Headers

SOURCE = PingSpec("tick", Destination("on-tick"), b"{}", "application/json", {"extra": "x"})


class Sink:
    """Takes ticks and tells of each."""

    def __init__(self, status: int = 202) -> None:
        self.status = status
        self.ticks: asyncio.Queue[dict[bytes, bytes]] = asyncio.Queue()

    async def __call__(
        self, destination: Destination, headers: Headers, body: bytes, timeout_s: float
    ) -> Response:
        assert (destination, body) == (SOURCE.sink, b"{}")
        self.ticks.put_nowait(dict(headers))
        return Response(self.status, [], b"")


def run(test: Callable[[Sink, Ticker], Awaitable[None]], interval_s: float, quiet: bool) -> None:
    async def main() -> None:
        sink = Sink()
        ticker = Ticker([SOURCE], sink, interval_s, lambda: quiet)
        running = asyncio.create_task(ticker.run())
        try:
            async with asyncio.timeout(30):
                await test(sink, ticker)
        finally:
            running.cancel()

    asyncio.run(main())


def test_a_tick_is_a_ping_sources_event() -> None:
    """Type, source, extensions and data are those of Knative's adapter; each has its own id."""

    async def test(sink: Sink, ticker: Ticker) -> None:
        first, second = await sink.ticks.get(), await sink.ticks.get()
        assert first[b"ce-type"] == b"dev.knative.sources.ping"
        assert first[b"ce-source"] == b"/apis/v1/namespaces/rdev/pingsources/tick"
        assert first[b"ce-extra"] == b"x"
        assert first[b"ce-id"] != second[b"ce-id"]

    run(test, interval_s=0.001, quiet=False)


def test_what_happened_does_not_wait_for_the_interval() -> None:
    """tick_now ticks at once, and once more when it was said during a tick."""

    async def test(sink: Sink, ticker: Ticker) -> None:
        await sink.ticks.get()
        ticker.tick_now()
        await sink.ticks.get()

    run(test, interval_s=3600, quiet=False)


def test_activity_ends_only_an_overlong_pause() -> None:
    """While nothing runs the pause is longer; whatever starts then brings the due tick."""

    async def test(sink: Sink, ticker: Ticker) -> None:
        await sink.ticks.get()
        await ticker.first
        ticker.activity()
        assert not ticker._asked.is_set()
        ticker._began -= 3600
        ticker.activity()
        await sink.ticks.get()

    run(test, interval_s=3600, quiet=True)


def test_a_tick_that_nobody_takes_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """A refused tick is a warning with the answer; it is not made up for."""

    async def main() -> None:
        sink = Sink(status=400)
        outcomes = await Ticker([SOURCE], sink, 1.0).tick()
        assert not outcomes[0].acknowledged and sink.ticks.qsize() == 1

    asyncio.run(main())
    assert "tick: its sink answered 400" in caplog.text
