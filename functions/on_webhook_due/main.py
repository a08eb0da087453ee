"""The sender: rung when there are deliveries; it sends them outside of the request that rang."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from common.bootstrap import App
from common.domain.errors import ShuttingDown
from common.entrypoints.call import Call, Later, Reply
from common.entrypoints.cloud_events import IncomingEvent
from common.entrypoints.function import Function, Scale

HELD_S = 240.0  # below timeoutSeconds; the presence renews it

function = Function(
    name="on_webhook_due",
    summary="Sends webhooks' deliveries, each endpoint's on its own",
    secret_keys=True,
    scale=Scale(maximum=2, target=20, concurrency=100, timeout_s=300),
    rung=True,
)


@function.event(summary="Look for what is due and send it")
def due(app: App, _event: IncomingEvent) -> None:
    app.sender.ring()


@function.post("/follow", summary="Held open while deliveries are sent, for the autoscaler")
def follow(call: Call) -> Later:
    async def later() -> Reply:
        try:
            await asyncio.wait_for(call.app.draining.wait(), HELD_S)
        except TimeoutError:
            return Reply(status=204)
        # An error, so that the presence pauses before it asks again instead of spinning.
        raise ShuttingDown("this instance is stopping")

    return later


@function.on_startup
async def start(app: App) -> None:
    loop = asyncio.get_running_loop()

    def changed() -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it what it was told for
            loop.call_soon_threadsafe(app.sender_presence.changed)

    app.sender.on_change = changed
    app.background(app.sender_presence.run())
    app.sender.ring()  # whatever woke this process, something may be due


@function.on_shutdown
def stop(app: App) -> None:
    app.sender.stop()


handle = function.target()
