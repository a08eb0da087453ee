"""The sender: rung when there are deliveries; it sends them outside of the request that rang."""

from __future__ import annotations

from common.bootstrap import App
from common.entrypoints.cloud_events import IncomingEvent
from common.entrypoints.function import Function, Scale
from common.entrypoints.hold import hold

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


function.post("/follow", summary="Held open while deliveries are sent, for the autoscaler")(hold)


@function.on_startup
async def start(app: App) -> None:
    app.sender.on_change = app.sender_presence.changed
    app.background(app.sender_presence.run())
    app.sender.ring()  # whatever woke this process, something may be due


@function.on_shutdown
def stop(app: App) -> None:
    app.sender.stop()


handle = function.target()
