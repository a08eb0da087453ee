"""Use case: change the priority of a command that still waits."""

from __future__ import annotations

from common.domain.command import Command, Priority
from common.domain.errors import Conflict
from common.domain.keys import Caller
from common.ports.commands import CommandStore, Origin
from common.services.read_commands import ReadCommands


class Reprioritise:
    def __init__(self, reader: ReadCommands, commands: CommandStore) -> None:
        self._reader = reader
        self._commands = commands

    def __call__(self, text: str, priority: Priority, caller: Caller, origin: Origin) -> Command:
        """Raises NotFound, Forbidden, and Conflict once the command no longer waits."""
        command = self._reader.one(text, caller)
        caller.require(f"commands:write:{command.kind}")
        if not self._commands.reprioritise(command.id, priority, origin, caller):
            raise Conflict("the priority can be changed only while the command waits")
        return self._reader.one(text, caller)
