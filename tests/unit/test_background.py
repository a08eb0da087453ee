"""common/services/background.py: work that nobody waits for."""

from __future__ import annotations

from common.services.background import Background


def test_work_is_done_in_order_before_the_end() -> None:
    """Closing does what waits, in the order in which it came."""
    done: list[int] = []
    later = Background("test")
    for number in range(50):
        later(lambda number=number: done.append(number))
    later.close()
    assert done == list(range(50))


def test_a_failure_does_not_stop_what_waits_behind_it() -> None:
    """One piece of work that raises leaves the others to be done."""
    done: list[str] = []
    later = Background("test")
    later(lambda: 1 / 0)
    later(lambda: done.append("next"))
    later.close()
    assert done == ["next"]


def test_it_can_be_used_again_after_closing() -> None:
    """A late caller starts a new thread instead of losing work."""
    done: list[str] = []
    later = Background("test")
    later.close()
    later(lambda: done.append("late"))
    later.close()
    assert done == ["late"]
