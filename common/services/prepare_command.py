"""Use case: the command that an event makes at a trigger, and in whose name.

Nothing is stored here, so a dry run goes the very same way as the event itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from common.domain import templates
from common.domain.command import NewCommand
from common.domain.identifiers import TRIGGER, show
from common.domain.keys import Caller
from common.domain.templates import Unfit
from common.domain.triggers import Channel, Inbound, Trigger
from common.ports.sealer import Sealer
from common.ports.triggers import TriggerStore

ToCommand = Callable[[dict[str, Any]], NewCommand]
"""A body of `POST /v1/commands` as a command. Raises InvalidRequest or InvalidField."""

LABEL: Final = "rdev/trigger"  # by which commands of a trigger are found
_TRACEPARENT: Final = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_NO_LONGER: Final = {
    "revoked": "the key that owns this trigger was revoked",
    "expired": "the key that owns this trigger has expired",
    "unknown": "the key that owns this trigger is not there",
}


class PrepareCommand:
    def __init__(self, triggers: TriggerStore, sealer: Sealer) -> None:
        self._triggers = triggers
        self._sealer = sealer

    def __call__(
        self, trigger: Trigger, event: Inbound, to_command: ToCommand
    ) -> tuple[NewCommand, Caller]:
        """Raises Unfit, Forbidden, NotFound, InvalidField for an event that cannot run."""
        owner = self._owner(trigger, event.channel)
        body = dict(event.data) if trigger.takes_data else self._filled_in(trigger, event)
        command = to_command(body)
        owner.require(f"commands:write:{command.kind}")
        owner.require_project(command.project)
        traced = event.attributes.get("traceparent", "")
        return replace(
            command,
            labels=command.labels | {LABEL: show(TRIGGER, trigger.id)},
            traceparent=traced if _TRACEPARENT.fullmatch(traced) else None,
        ), owner

    def _owner(self, trigger: Trigger, channel: Channel) -> Caller:
        owner = self._triggers.owner(trigger.key_id)
        if owner.caller is None or owner.status != "ok":
            raise Unfit(f"key_{owner.status}", _NO_LONGER[owner.status])
        owner.caller.require("triggers:write")
        if channel is Channel.BROKER:
            owner.caller.require("triggers:broker")
        return owner.caller

    def _filled_in(self, trigger: Trigger, event: Inbound) -> dict[str, Any]:
        sealed = trigger.sealed_parts
        parts = json.loads(self._sealer.unseal(sealed)) if sealed is not None else {}
        whole = trigger.command | {"env": parts.get("env", {})}
        if "mcp_servers" in parts:
            servers = {"mcp_servers": parts["mcp_servers"]}
            whole["options"] = trigger.command["options"] | servers
        return templates.rendered(whole, templates.lookup_in(event.attributes, event.data))
