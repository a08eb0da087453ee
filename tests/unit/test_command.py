"""common/domain/command.py: the state machine and its tables."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.domain import command
from common.domain.command import (
    ACTIVE,
    REASONS,
    TERMINAL,
    WAITING,
    Command,
    Kind,
    Priority,
    Reason,
    State,
    may_follow,
    shown,
    sources_of,
)

STATES = st.sampled_from(State)


@given(st.lists(STATES, max_size=12))
def test_every_walk_along_arrows_ends_at_the_first_terminal_state(wishes: list[State]) -> None:
    """Whatever is asked, a command takes only the machine's arrows, and none leaves its end."""
    state, seen = State.QUEUED, [State.QUEUED]
    for wish in wishes:
        if may_follow(state, wish):
            state = wish
            seen.append(state)
    assert len(seen) == len(set(seen)), "no state comes twice"
    assert not any(s in TERMINAL for s in seen[:-1]), "nothing follows the end"


def test_every_reachable_sequence_is_finite_and_ends() -> None:
    """From each first state every maximal path ends in a terminal state."""

    def paths(state: State) -> list[tuple[State, ...]]:
        after = [s for s in State if may_follow(state, s)]
        return [(state, *rest) for s in after for rest in paths(s)] or [(state,)]

    for first in WAITING:
        found = paths(first)
        assert all(path[-1] in TERMINAL for path in found)
        assert (
            max(map(len, found)) <= 6
        )  # scheduled, queued, claimed, running, cancelling and an end


@given(STATES, STATES)
def test_sources_are_the_inverse_of_arrows(old: State, new: State) -> None:
    """`sources_of` lists exactly the states with an arrow to the new one."""
    assert (old in sources_of(new)) == may_follow(old, new)


def test_states_fall_into_three_disjoint_groups() -> None:
    """Every state waits, is active or has ended, and never two of these."""
    assert set(State) == WAITING | ACTIVE | TERMINAL
    assert len(State) == len(WAITING) + len(ACTIVE) + len(TERMINAL)


def test_every_reason_belongs_to_exactly_one_state() -> None:
    """A reason alone says in which state a command ended."""
    listed = [reason for reasons in REASONS.values() for reason in reasons]
    assert sorted(listed) == sorted(Reason)


def test_nothing_returns_to_waiting_once_claimed() -> None:
    """A command runs at most once, so no arrow leads from an active state back to the queue."""
    assert not any(may_follow(old, new) for old in ACTIVE for new in WAITING)


def test_only_a_queued_command_can_be_claimed() -> None:
    """`claimed` has one way in."""
    assert sources_of(State.CLAIMED) == [State.QUEUED]


@pytest.mark.parametrize("state", State)
def test_a_claimed_command_is_shown_as_queued(state: State) -> None:
    """Callers see `queued` for `claimed`, and every other state as it is."""
    assert shown(state) is (State.QUEUED if state is State.CLAIMED else state)


def test_priorities_order_from_urgent_to_low_and_have_labels() -> None:
    """The lower number runs first and carries the API's word."""
    assert [p.label for p in sorted(Priority)] == ["urgent", "high", "normal", "low"]


@pytest.mark.parametrize("state", State)
def test_ended_is_the_same_as_terminal(state: State) -> None:
    """`Command.ended` follows the state alone."""
    some = Command(
        UUID(int=1), "demo", UUID(int=2), Kind.SHELL, {}, Priority.LOW, state, datetime.now(UTC)
    )
    assert some.ended == (state in TERMINAL)


def test_the_first_docstring_line_lists_every_visible_state() -> None:
    """The module's drawing names every state there is."""
    drawing = command.__doc__ or ""
    assert all(str(state) in drawing for state in State)
