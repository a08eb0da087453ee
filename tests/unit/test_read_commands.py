"""common/services/read_commands.py: showing commands, and ringing for those nobody follows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from common.domain import identifiers
from common.domain.command import State
from common.domain.errors import NotFound
from common.domain.keys import Caller
from common.ports.commands import Filter
from common.services import read_commands
from common.services.read_commands import ReadCommands
from tests.unit import fakes
from tests.unit.fakes import CALLER, KEY, FakeBell, FakeCommands

COMMAND = fakes.command(state=State.RUNNING)
TEXT = identifiers.show(identifiers.COMMAND, COMMAND.id)
STRANGER = Caller(KEY, "x", frozenset({"commands:read"}), frozenset({"other"}))


def test_a_command_is_found_by_its_id() -> None:
    """As it is stored; a live one rings for nobody."""
    bell = FakeBell()
    assert ReadCommands(FakeCommands(COMMAND), bell).one(TEXT, CALLER) == COMMAND
    assert bell.rung == []


def test_a_foreign_command_and_none_read_the_same() -> None:
    """404 with the same words."""
    with pytest.raises(NotFound) as foreign:
        ReadCommands(FakeCommands(COMMAND), FakeBell()).one(TEXT, STRANGER)
    with pytest.raises(NotFound) as none:
        ReadCommands(FakeCommands(), FakeBell()).one(TEXT, STRANGER)
    assert foreign.value.detail == none.value.detail


def test_a_command_whose_runner_died_rings_once_in_5_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However often it is read; and again after that."""
    now = [100.0]
    monkeypatch.setattr(read_commands.time, "monotonic", lambda: now[0])
    bell = FakeBell()
    other = replace(COMMAND, id=identifiers.new_id(), project="other", lease_dead=True)
    reader = ReadCommands(FakeCommands(replace(COMMAND, lease_dead=True), other), bell)
    for _ in range(3):
        reader.one(TEXT, CALLER)
    assert bell.wait(1) == ["demo"]
    reader.one(identifiers.show(identifiers.COMMAND, other.id), CALLER)
    assert sorted(bell.wait(2)) == ["demo", "other"]
    now[0] += 5.0
    reader.one(TEXT, CALLER)
    assert sorted(bell.wait(3)) == ["demo", "demo", "other"]
    assert len(reader._rung) == 1  # what is over is forgotten


def test_a_foreign_command_rings_for_nobody() -> None:
    """Not even that may be learnt or caused."""
    bell = FakeBell()
    with pytest.raises(NotFound):
        ReadCommands(FakeCommands(replace(COMMAND, lease_dead=True)), bell).one(TEXT, STRANGER)
    assert bell.rung == []


def test_many_are_what_the_store_lists() -> None:
    """Asked for the projects that the caller sees, whatever was wanted."""
    store = FakeCommands(COMMAND)
    reader = ReadCommands(store, FakeBell())
    assert reader.many(Filter(limit=1), CALLER) == [COMMAND]
    reader.many(Filter(frozenset({"demo", "other"})), STRANGER)
    assert store.listed[-1] == Filter(frozenset({"other"}))
