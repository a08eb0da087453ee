"""Use case: show commands. What a key may not see is not there."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Final
from uuid import UUID

from common.domain import identifiers
from common.domain.command import Command
from common.domain.errors import NotFound
from common.domain.keys import Caller
from common.ports.commands import CommandStore, Filter
from common.ports.outbox import RunnerBell

RING_S: Final = 5.0  # whoever reads a command whose runner died rings, at most this often


class ReadCommands:
    """One command or many, as the caller may see them."""

    def __init__(self, commands: CommandStore, bell: RunnerBell) -> None:
        self._commands = commands
        self._bell = bell
        self._rung: dict[UUID, float] = {}
        self._lock = threading.Lock()

    def one(self, text: str, caller: Caller) -> Command:
        """The command with this id. Raises NotFound, the same for a foreign one as for none."""
        command_id = identifiers.parse(identifiers.COMMAND, text)
        command = self._commands.get(command_id)
        if command is None or not caller.sees(command.project):
            raise NotFound.named(text)
        if command.lease_dead:
            self._ring(command)
        return command

    def many(self, wanted: Filter, caller: Caller) -> list[Command]:
        """Those of the wanted ones that the caller may see."""
        return self._commands.list(replace(wanted, projects=caller.narrowed(wanted.projects)))

    def _ring(self, command: Command) -> None:
        now = time.monotonic()
        with self._lock:
            if now - self._rung.get(command.id, -RING_S) < RING_S:
                return
            self._rung = {i: at for i, at in self._rung.items() if now - at < RING_S}
            self._rung[command.id] = now
        threading.Thread(target=self._bell.ring, args=(command.project,), daemon=True).start()
