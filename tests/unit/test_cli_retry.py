"""How long rdev keeps trying."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rdev.retry import Backoff, Clock


class FakeTime:
    """A clock that moves only when somebody pauses."""

    def __init__(self, random: float = 0.5) -> None:
        self.now = 0.0
        self.clock = Clock(lambda: self.now, self.pause, lambda: random)

    def pause(self, seconds: float) -> None:
        self.now += seconds


def pauses(backoff: Backoff, time: FakeTime, at_least_s: float | None = None) -> list[float]:
    found = []
    while (delay := backoff.next_delay(at_least_s)) is not None:
        found.append(delay)
        time.pause(delay)
    return found


@given(st.floats(0, 0.999), st.floats(1, 600))
def test_pauses_grow_and_end_at_the_bound(random: float, bound: float) -> None:
    """Pauses never shrink, never exceed the cap, and together never exceed the bound."""
    time = FakeTime(random)
    found = pauses(Backoff(time.clock, bound), time)
    assert found == sorted(found)
    assert all(0 < pause <= 5 for pause in found)
    assert sum(found) <= bound


def test_many_clients_do_not_come_back_as_one() -> None:
    """The first pause depends on chance."""
    early, late = FakeTime(0.0), FakeTime(0.9)
    assert Backoff(early.clock, 60).next_delay() != Backoff(late.clock, 60).next_delay()


def test_waits_as_long_as_the_server_asks() -> None:
    """Retry-After is a least pause."""
    time = FakeTime()
    assert Backoff(time.clock, 60).next_delay(30) >= 30  # type: ignore[operator]


def test_gives_up_at_once_when_asked_to_wait_beyond_the_bound() -> None:
    """Nobody is kept waiting for what cannot come in time."""
    time = FakeTime()
    assert Backoff(time.clock, 60).next_delay(3600) is None


def test_a_sign_of_life_starts_it_anew() -> None:
    """The bound counts from the last sign of life."""
    time = FakeTime()
    backoff = Backoff(time.clock, 10)
    pauses(backoff, time)
    backoff.reset()
    assert backoff.next_delay() is not None
