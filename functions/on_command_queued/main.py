"""The runner: a doorbell makes it claim and start commands; it follows them outside the delivery."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from common.bootstrap import App
from common.domain.errors import ShuttingDown
from common.entrypoints.call import Call, Later, Reply
from common.entrypoints.cloud_events import IncomingEvent
from common.entrypoints.function import Account, Function, Scale

HELD_S = 240.0  # below timeoutSeconds; the presence renews it

function = Function(
    name="on_command_queued",
    summary="Claims queued commands, starts them in their workspaces and follows them",
    account=Account.RUNNER,
    secret_keys=True,
    claude_credentials=True,
    scale=Scale(maximum=10, target=10, concurrency=100, timeout_s=300),
    trigger={"type": "ai.orchard9.rdev.command.queued.v1"},
)


@function.event(summary="Look at a project: claim, start, follow")
def rung(app: App, event: IncomingEvent) -> None:
    data = event.data if isinstance(event.data, dict) else {}
    project = data.get("project")
    app.runner.ring(project if isinstance(project, str) else None)


@function.post("/follow", summary="Held open while a command is followed, for the autoscaler")
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
            loop.call_soon_threadsafe(app.presence.changed)

    app.runner.on_change = changed
    app.background(app.presence.run())
    await asyncio.to_thread(app.runner.start)


@function.on_shutdown
def stop(app: App) -> None:
    """Cancel what runs (the laptop stops), or hand it to the next instance of this Service."""
    if app.cancel_on_exit:
        app.runner.cancel_all(app.cancel_here)
    projects = app.runner.stop()
    if not app.cancel_on_exit:
        for project in projects:
            app.bell.ring(project)


handle = function.target()
