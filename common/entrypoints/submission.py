"""What creating a command answers, in the commands function and in the projects' short forms."""

from __future__ import annotations

import re
from typing import Any, Final

from common.domain.command import NewCommand
from common.domain.errors import RdevError
from common.domain.resources import command_resource
from common.entrypoints.call import Call, Later, Reply
from common.ports.commands import Submitted

SCOPES: Final = ("commands:write:claude", "commands:write:shell", "commands:write:git")
MAX_WAIT_S: Final = 45
_WAIT: Final = re.compile(r"(?:^|[,;\s])wait\s*=\s*(\d{1,6})(?:$|[,;\s])")


def submit(call: Call, command: NewCommand) -> Reply | Later:
    """Accept a command: 202, or its end when `Prefer: wait=N` asks and it comes in time."""
    return answered(call, call.app.submit(command, call.caller, call.origin, call.idempotency))


def answered(call: Call, done: Submitted) -> Reply | Later:
    """The answer to a submission."""
    reply = accepted(command_resource(done.command), replayed=done.replayed)
    seconds = wanted_wait(call)
    if seconds is None:
        return reply

    async def later() -> Reply:
        try:
            ended = await call.app.wait(done.command.id, seconds)
        except RdevError:  # it is accepted: an error here would make the caller send it again
            ended = None
        if ended is None:
            return reply
        return Reply(
            command_resource(ended), 200, reply.headers | {"preference-applied": f"wait={seconds}"}
        )

    return later


def accepted(resource: dict[str, Any], *, replayed: bool = False) -> Reply:
    """202 with Location and links."""
    headers = {"location": resource["links"]["self"]}
    if replayed:
        headers["idempotency-replayed"] = "true"
    return Reply(resource, 202, headers)


def wanted_wait(call: Call) -> int | None:
    """Seconds of `Prefer: wait=N` (RFC 7240), at most 45; None when the caller would not wait."""
    match = _WAIT.search(", ".join(call.headers.getlist("prefer")))
    return min(int(match[1]), MAX_WAIT_S) or None if match else None
