"""The runner: a doorbell makes it claim and start commands; it follows them outside the delivery."""

from __future__ import annotations

import asyncio

from common.bootstrap import App
from common.entrypoints.cloud_events import IncomingEvent
from common.entrypoints.function import Account, Function, Scale
from common.entrypoints.hold import hold

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


function.post("/follow", summary="Held open while a command is followed, for the autoscaler")(hold)


@function.on_startup
async def start(app: App) -> None:
    app.runner.on_change = app.presence.changed
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
