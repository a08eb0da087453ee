"""common/services/reprioritise.py: another priority while it waits."""

from __future__ import annotations

import pytest

from common.domain import identifiers
from common.domain.command import Priority, State
from common.domain.errors import Conflict, Forbidden, NotFound
from common.domain.keys import Caller
from common.ports.commands import Origin
from common.services.read_commands import ReadCommands
from common.services.reprioritise import Reprioritise
from tests.unit import fakes
from tests.unit.fakes import CALLER, KEY, FakeBell, FakeCommands

COMMAND = fakes.command(state=State.QUEUED)
TEXT = identifiers.show(identifiers.COMMAND, COMMAND.id)


def ask(commands: FakeCommands, caller: Caller = CALLER) -> Priority:
    use = Reprioritise(ReadCommands(commands, FakeBell()), commands)
    return use(TEXT, Priority.URGENT, caller, Origin("r")).priority


def test_a_waiting_command_gets_the_priority() -> None:
    """And is shown with it."""
    assert ask(FakeCommands(COMMAND)) is Priority.URGENT


def test_a_command_that_no_longer_waits_keeps_its_own() -> None:
    """409: too late."""
    commands = FakeCommands(COMMAND)
    commands.waits = False
    with pytest.raises(Conflict):
        ask(commands)


def test_it_needs_the_scope_of_the_kind() -> None:
    """A key for git cannot move a shell command."""
    with pytest.raises(Forbidden):
        ask(FakeCommands(COMMAND), Caller(KEY, "x", frozenset({"commands:write:git"}), None))


def test_a_foreign_command_is_not_found() -> None:
    """As if it were not there."""
    with pytest.raises(NotFound):
        ask(FakeCommands(COMMAND), Caller(KEY, "x", frozenset({"commands:write"}), frozenset()))
