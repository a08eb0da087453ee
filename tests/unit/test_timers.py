"""common/services/timers.py: what is due soon is promoted by whoever scheduled it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import pytest

from common.services import timers
from common.services.timers import Timers


class FakeTimer:
    made: ClassVar[list[FakeTimer]] = []

    def __init__(self, seconds: float, call: Callable[[], None]) -> None:
        self.seconds, self.call, self.daemon, self.started = seconds, call, False, False
        FakeTimer.made.append(self)

    def start(self) -> None:
        self.started = True


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[FakeTimer]:
    FakeTimer.made = []
    monkeypatch.setattr(timers.threading, "Timer", FakeTimer)
    return FakeTimer.made


def ahead(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


@pytest.mark.parametrize(("seconds", "kept"), [(-5, True), (0, True), (80, True), (95, False)])
def test_only_the_next_90_seconds_are_kept(
    made: list[FakeTimer], seconds: float, kept: bool
) -> None:
    """Later ones are the tick's; a timer never keeps the process alive."""
    Timers(lambda: None).due_at(ahead(seconds))
    assert len(made) == kept
    assert all(t.started and t.daemon and 0 < t.seconds <= 90.02 for t in made)


def test_what_is_due_is_promoted() -> None:
    """With a real timer."""
    promoted = threading.Event()
    Timers(promoted.set).due_at(ahead(-1))
    assert promoted.wait(20)


def test_a_promotion_that_fails_is_left_to_the_tick(made: list[FakeTimer]) -> None:
    """The timer's thread dies of nothing."""

    def broken() -> None:
        raise RuntimeError("a bug")

    Timers(broken).due_at(ahead(0))
    made[0].call()
