"""Dead letters: events nobody could handle become rows that people can see."""

from __future__ import annotations

from common.bootstrap import App
from common.entrypoints.cloud_events import IncomingEvent
from common.entrypoints.function import Function, Scale
from common.services.bury import letter

function = Function(
    name="on_dead_letter",
    summary="Keeps events that could not be handled, visible and countable",
    dead_letter_sink=True,
    scale=Scale(maximum=1),  # one insert an event
)


@function.event(summary="Record an event that could not be delivered")
def bury(app: App, event: IncomingEvent) -> None:
    app.bury(letter(event.attributes, event.body, event.flaw))


handle = function.target()
