"""What happened becomes deliveries: rung by every event that a webhook may want to hear."""

from __future__ import annotations

from common.bootstrap import App
from common.entrypoints.cloud_events import IncomingEvent
from common.entrypoints.function import Function, Scale

function = Function(
    name="on_command_finished",
    summary="Turns what happened into deliveries of webhooks",
    # Many may ring at once, and each takes all that is there: a second instance has nothing to do.
    scale=Scale(maximum=1, target=40, concurrency=100),
    # Events carry this attribute only when an endpoint may want them: without webhooks nobody rings.
    trigger={"webhooks": "wanted"},
)


@function.event(summary="Look for what happened and make deliveries of it")
def happened(app: App, _event: IncomingEvent) -> None:
    app.fan_out()


handle = function.target()
