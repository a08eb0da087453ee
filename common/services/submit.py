"""Use case: accept a command. Everything is written in one transaction, then the bell is rung."""

from __future__ import annotations

from dataclasses import replace

from common.domain import mcp
from common.domain.command import NewCommand
from common.domain.errors import Conflict
from common.domain.keys import Caller
from common.domain.launch import session_id
from common.ports.commands import CommandStore, Firing, Idempotency, Origin, Submitted
from common.ports.sealer import Sealer
from common.services import telemetry
from common.services.relay import Relay
from common.services.timers import Timers
from common.services.wakeups import Wakeups


class Submit:
    """Accept a command that has been validated for its form."""

    def __init__(
        self,
        commands: CommandStore,
        sealer: Sealer,
        relay: Relay,
        timers: Timers,
        wakeups: Wakeups,
    ) -> None:
        self._commands = commands
        self._sealer = sealer
        self._relay = relay
        self._timers = timers
        self._wakeups = wakeups

    def __call__(
        self,
        command: NewCommand,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None = None,
        firing: Firing | None = None,
    ) -> Submitted:
        """Raises what CommandStore.submit raises, Forbidden for a kind, InvalidField for run_at."""
        caller.require(f"commands:write:{command.kind}")
        caller.require_project(command.project)
        secrets = mcp.pack(command.env, command.mcp_secrets)
        sealed = self._sealer.seal(secrets) if secrets else None
        command = replace(command, traceparent=command.traceparent or telemetry.traceparent())
        done = self._store(command, sealed, caller, origin, idempotency, firing)
        self._relay.soon(done.doorbell)
        if not done.replayed:
            self._wakeups.state(command.id, command.project)
        if command.run_at is not None and not done.replayed:
            self._timers.due_at(command.run_at)
        telemetry.submitted.add(1, {"kind": str(command.kind)})
        return done

    def _store(
        self,
        command: NewCommand,
        sealed: bytes | None,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None,
        firing: Firing | None,
    ) -> Submitted:
        def store(wanted: NewCommand) -> Submitted:
            return self._commands.submit(wanted, sealed, caller, origin, idempotency, firing)

        if not command.fork_if_session_busy:
            return store(command)
        strict = replace(command, reject_if_session_busy=True)
        try:
            return store(strict)
        except Conflict as error:
            if error.code != "session_busy":
                raise
        return store(_forked(command))


def _forked(command: NewCommand) -> NewCommand:
    """The same command in a copy of its session, which nobody else holds."""
    spec = command.spec | {"session": command.spec["session"] | {"mode": "fork"}}
    return replace(command, spec=spec, session=session_id(command.id))
