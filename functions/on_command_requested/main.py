"""Events from the broker that ask for a command. Anybody in the cluster may send them.

It says 202 to everything it has taken or refused and recorded: a broker would send again for ever
what can only be refused again. Trouble of our own is an error, and the broker's next try.
"""

from __future__ import annotations

from common.bootstrap import App
from common.domain import identifiers
from common.domain.errors import InvalidRequest, PayloadTooLarge
from common.domain.triggers import COMMAND_REQUESTED, Channel, Inbound
from common.entrypoints import intake
from common.entrypoints.cloud_events import IncomingEvent
from common.entrypoints.function import Function
from common.entrypoints.models.commands import new_command
from common.ports.commands import Origin
from common.ports.dead_letters import UNREADABLE
from common.services.bury import inbound_letter

function = Function(
    name="on_command_requested",
    summary="Runs the commands that events from the broker ask for, where a trigger allows it",
    trigger={"type": COMMAND_REQUESTED},
    salvages=True,
    secret_keys=True,
)


@function.event(summary="Run what an event asks for, if a trigger allows it")
def requested(app: App, event: IncomingEvent) -> None:
    try:
        wanted = intake.inbound(event, Channel.BROKER)
    except InvalidRequest as error:
        _bury(app, event, UNREADABLE, error.detail)
    except PayloadTooLarge as error:
        _bury(app, event, "too_large", error.detail)
    else:
        app.receive([wanted], new_command, Origin(_request_id()))


def _bury(app: App, event: IncomingEvent, reason: str, detail: str) -> None:
    poison = Inbound(Channel.BROKER, event.attributes, None, event.body)
    app.bury(inbound_letter(poison, reason, detail))


def _request_id() -> str:
    return identifiers.show(identifiers.REQUEST, identifiers.new_id())


handle = function.target()
