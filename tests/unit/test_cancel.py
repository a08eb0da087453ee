"""common/services/cancel.py: ending a command on request."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from common.domain import identifiers
from common.domain.command import Command, State
from common.domain.errors import Forbidden, NotFound
from common.domain.keys import Caller
from common.ports import signals
from common.ports.commands import Cancelled, Origin
from common.services.cancel import Cancel
from common.services.read_commands import ReadCommands
from common.services.wakeups import Wakeups
from tests.unit import fakes
from tests.unit.fakes import CALLER, KEY, FakeBell, FakeCommands, FakeRelay, FakeSignals

ORIGIN = Origin("req_1")
EVENT = UUID(int=9)


class World:
    def __init__(self, state: State, **more: Any) -> None:
        self.command: Command = replace(fakes.command(state=state), **more)
        self.commands = FakeCommands(self.command)
        self.relay, self.signals, self.bell = FakeRelay(), FakeSignals(), FakeBell()
        reader = ReadCommands(self.commands, self.bell)
        self.cancel = Cancel(
            reader,
            self.commands,
            self.relay,  # type: ignore[arg-type]
            Wakeups(self.signals),
            self.bell,
        )

    def ask(self, caller: Caller = CALLER) -> tuple[Command, bool]:
        text = identifiers.show(identifiers.COMMAND, self.command.id)
        return self.cancel(text, "graceful", caller, ORIGIN)

    @property
    def channels(self) -> list[str]:
        return [channel for channel, _ in self.signals.said]


def test_a_waiting_command_ends_at_once() -> None:
    """Its terminal event is published and streams are woken; no runner is concerned."""
    world = World(State.QUEUED)
    world.commands.cancel_answer = Cancelled(ended=False, lease_dead=False, event=EVENT)
    _, ended = world.ask()
    assert ended is False
    assert world.commands.cancelled == [(world.command.id, "graceful", "user")]
    assert (world.relay.asked, world.channels) == ([EVENT], [signals.OUTPUT])


def test_a_running_command_is_told_to_its_runner() -> None:
    """It is marked, and whoever follows it hears at once."""
    world = World(State.RUNNING)
    assert world.ask()[1] is False
    assert world.channels == [signals.OUTPUT, signals.CONTROL]
    assert world.bell.rung == []


def test_a_command_nobody_follows_rings_the_runner() -> None:
    """A dead lease: somebody must adopt it to end it."""
    world = World(State.RUNNING)
    world.commands.cancel_answer = Cancelled(ended=False, lease_dead=True, event=None)
    world.ask()
    assert world.bell.wait(1) == ["demo"]


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.LOST, State.CANCELLED])
def test_a_command_that_ended_is_shown_as_it_is(state: State) -> None:
    """Nothing is written, nobody is woken."""
    world = World(state)
    command, ended = world.ask()
    assert (command.state, ended) == (state, True)
    assert (world.commands.cancelled, world.signals.said) == ([], [])


def test_a_command_that_ends_meanwhile_counts_as_ended() -> None:
    """The end won the race; no runner is told to kill anything."""
    world = World(State.RUNNING)
    world.commands.cancel_answer = Cancelled(ended=True, lease_dead=False, event=None)
    assert world.ask()[1] is True
    assert signals.CONTROL not in world.channels


def test_cancelling_needs_the_scope_of_the_kind() -> None:
    """A key for git cannot end a shell command it can see."""
    world = World(State.RUNNING)
    with pytest.raises(Forbidden):
        world.ask(Caller(KEY, "git", frozenset({"commands:write:git", "commands:read"}), None))
    assert world.commands.cancelled == []


def test_a_foreign_command_is_not_found() -> None:
    """Before anything about it is checked."""
    world = World(State.RUNNING)
    with pytest.raises(NotFound):
        world.ask(Caller(KEY, "ci", frozenset({"commands:write"}), frozenset({"other"})))


def test_a_shutdown_marks_without_a_caller() -> None:
    """The laptop's rdev stops: mode and reason say so."""
    world = World(State.RUNNING)
    world.cancel.by_shutdown(world.command.id)
    assert world.commands.cancelled == [(world.command.id, "shutdown", "shutdown")]
