"""Use case: run a command again, as a new command that remembers which it repeats."""

from __future__ import annotations

from typing import Any

from common.domain import identifiers, mcp
from common.domain.command import Command, Kind, NewCommand
from common.domain.errors import Conflict, InvalidField
from common.domain.keys import Caller
from common.domain.launch import session_id
from common.ports.commands import Idempotency, Origin, Submitted
from common.services.read_commands import ReadCommands
from common.services.submit import Submit


class Retry:
    def __init__(self, reader: ReadCommands, submit: Submit) -> None:
        self._reader = reader
        self._submit = submit

    def __call__(
        self,
        text: str,
        env: dict[str, str],
        mcp_secrets: mcp.Secrets,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None,
    ) -> Submitted:
        """Raises Conflict while the first runs, InvalidField when its secret values are missing."""
        first = self._reader.one(text, caller)
        if not first.ended:
            raise Conflict("the command has not ended; cancel it first, or wait")
        missing = [name for name in first.env_names if name not in env]
        if missing:
            raise InvalidField.one(
                "env", "missing", f"env: values are not kept, send them again: {', '.join(missing)}"
            )
        if lacking := mcp.missing(_servers(first), mcp_secrets):
            raise InvalidField.one(
                "mcp_servers",
                "missing",
                f"mcp_servers: values are not kept, send them again: {', '.join(lacking)}",
            )
        return self._submit(_again(first, env, mcp_secrets), caller, origin, idempotency)


def _servers(command: Command) -> dict[str, dict[str, Any]]:
    servers: dict[str, dict[str, Any]] = (command.spec.get("options") or {}).get("mcp_servers", {})
    return servers


def _again(first: Command, env: dict[str, str], mcp_secrets: mcp.Secrets) -> NewCommand:
    new = identifiers.new_id()
    session = first.session
    if first.kind is Kind.CLAUDE and (first.spec.get("session") or {}).get("mode") != "resume":
        session = session_id(new)
    return NewCommand(
        id=new,
        project=first.project,
        kind=first.kind,
        spec=first.spec,
        priority=first.priority,
        timeouts=first.timeouts,
        env=env,
        mcp_secrets=mcp_secrets,
        labels=first.labels,
        session=session,
        retry_of=first.id,
    )
