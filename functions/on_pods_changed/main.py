"""The watcher: a pod or ConfigMap that changes shows or hides its project within a second.

The event is only a doorbell (ApiServerSource loses some, and an instance that starts for one would be
late), so one instance always runs and watches for itself.
"""

from __future__ import annotations

import asyncio

from common.bootstrap import App
from common.entrypoints.cloud_events import IncomingEvent
from common.entrypoints.function import Account, Function, Scale

function = Function(
    name="on_pods_changed",
    summary="Watches pods and ConfigMap rdev-projects, and keeps the registry of projects",
    account=Account.WATCHER,
    scale=Scale(minimum=1, maximum=2, target=20, concurrency=40),
    watches=("Pod", "ConfigMap"),
    workspaces="kubernetes",
)


@function.event(summary="Something changed in the cluster: look")
def changed(app: App, _event: IncomingEvent) -> None:
    app.watch.ring()


@function.on_startup
async def start(app: App) -> None:
    await asyncio.to_thread(app.watch.start)


@function.on_shutdown
def stop(app: App) -> None:
    """The next instance takes the lock as soon as this one lets go."""
    app.watch.stop()


handle = function.target()
