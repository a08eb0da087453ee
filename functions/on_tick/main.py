"""The tick: repairs what lost events left behind. It rings; it never executes."""

from __future__ import annotations

from common.bootstrap import App
from common.entrypoints.cloud_events import IncomingEvent
from common.entrypoints.function import Account, Function, Scale

function = Function(
    name="on_tick",
    summary="Repairs: rings for waiting work, promotes, times out, publishes, reconciles, expires",
    account=Account.WATCHER,
    scale=Scale(maximum=2, target=1, concurrency=2),
    schedule="* * * * *",
)


@function.event(summary="One round of repairs")
def tick(app: App, _event: IncomingEvent) -> None:
    app.repair()


handle = function.target()
