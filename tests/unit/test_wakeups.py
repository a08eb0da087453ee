"""common/services/wakeups.py: saying that there is news, but not too often."""

from __future__ import annotations

from uuid import UUID

import pytest

from common.ports import signals
from common.services import wakeups
from common.services.wakeups import PER_PROCESS, Wakeups
from tests.unit.fakes import FakeSignals


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(wakeups.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_output_is_said_at_most_once_in_100_ms(clock: Clock) -> None:
    """The first at once, then one for all that came meanwhile."""
    said = FakeSignals()
    wakes = Wakeups(said)
    for _ in range(100):
        wakes.news(UUID(int=1), "demo")
        clock.now += 0.01
    assert len(said.said) == 10
    assert said.said[0] == (signals.OUTPUT, f"{UUID(int=1).hex} demo")


def test_a_process_says_at_most_20_a_second(clock: Clock) -> None:
    """However many commands print."""
    said = FakeSignals()
    wakes = Wakeups(said)
    commands = [UUID(int=n) for n in range(1, 51)]
    for command in commands:
        wakes.news(command, "demo")
    first = len(said.said)
    for _ in range(100):
        clock.now += 0.1
        for command in commands:
            wakes.news(command, "demo")
    assert first == len(commands)  # the first output of each is always said
    assert len(said.said) - first <= 10 * PER_PROCESS


def test_states_and_cancels_are_always_said(clock: Clock) -> None:
    """They are rare, and somebody waits for them."""
    said = FakeSignals()
    wakes = Wakeups(said)
    for _ in range(30):
        wakes.state(UUID(int=1), "demo")
        wakes.control(UUID(int=1))
    assert len(said.said) == 60
    assert said.said[1] == (signals.CONTROL, UUID(int=1).hex)


def test_a_command_that_ended_is_forgotten(clock: Clock) -> None:
    """Nothing grows with the number of commands."""
    wakes = Wakeups(FakeSignals())
    wakes.news(UUID(int=1), "demo")
    wakes.forget(UUID(int=1))
    wakes.forget(UUID(int=2))
    assert wakes._last == {}
