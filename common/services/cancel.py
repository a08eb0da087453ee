"""Use case: end a command on request.

One that was never claimed ends at once. One that was may be running, or about to: it is
`cancelling` until the workspace has said that it ended or will never run.
"""

from __future__ import annotations

import threading
from uuid import UUID

from common.domain.command import Command, Reason
from common.domain.keys import Caller
from common.domain.outcome import never_ran
from common.ports.commands import Cancelled, CommandStore, Origin
from common.ports.outbox import RunnerBell
from common.services.read_commands import ReadCommands
from common.services.relay import Relay
from common.services.wakeups import Wakeups


class Cancel:
    """Cancel a command, gracefully or by force."""

    def __init__(
        self,
        reader: ReadCommands,
        commands: CommandStore,
        relay: Relay,
        wakeups: Wakeups,
        bell: RunnerBell,
    ) -> None:
        self._reader = reader
        self._commands = commands
        self._relay = relay
        self._wakeups = wakeups
        self._bell = bell

    def __call__(
        self, text: str, mode: str, caller: Caller, origin: Origin
    ) -> tuple[Command, bool]:
        """The command as it is now, and whether it had ended before. Raises NotFound, Forbidden."""
        command = self._reader.one(text, caller)
        caller.require(f"commands:write:{command.kind}")
        if command.ended:
            return command, True
        done = self._mark(command.id, mode, Reason.USER, caller, origin)
        self._tell(command, done)
        return self._reader.one(text, caller), done.ended

    def by_shutdown(self, command_id: UUID) -> None:
        """Mark a command whose runner stops with the laptop's rdev."""
        self._mark(command_id, "shutdown", Reason.SHUTDOWN, None, Origin("shutdown"))

    def _mark(
        self, command_id: UUID, mode: str, reason: Reason, caller: Caller | None, origin: Origin
    ) -> Cancelled:
        return self._commands.cancel(command_id, mode, reason, never_ran(reason), origin, caller)

    def _tell(self, command: Command, done: Cancelled) -> None:
        self._wakeups.state(command.id, command.project)
        self._relay.soon(done.event)
        if done.event is None and not done.ended:
            self._wakeups.control(command.id)
        if done.lease_dead:  # not in the request's time: a cold runner takes seconds to answer
            threading.Thread(target=self._bell.ring, args=(command.project,), daemon=True).start()
