"""Which exit code an outcome becomes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdev import exit_codes


@pytest.mark.parametrize(
    ("state", "outcome", "code"),
    [
        ("succeeded", {"reason": "exit_zero", "exit_code": 0}, 0),
        ("succeeded", {"reason": "completed_with_denials", "exit_code": 0}, 0),
        ("failed", {"reason": "exit_nonzero", "exit_code": 3}, 3),
        ("failed", {"reason": "exit_nonzero", "exit_code": 255}, 255),
        ("failed", {"reason": "signalled", "exit_code": None, "signal": 9}, 137),
        ("failed", {"reason": "signalled", "signal": "SIGTERM"}, 143),
        ("failed", {"reason": "signalled", "signal": "KILL"}, 137),
        ("failed", {"reason": "start_failed", "exit_code": 127}, 125),
        ("failed", {"reason": "no_result", "exit_code": 0}, 1),
        ("failed", {"reason": "api_error", "exit_code": 1}, 1),
        ("failed", {}, 1),
        ("timed_out", {"reason": "queue"}, 124),
        ("timed_out", {"reason": "run", "signal": 15}, 124),
        ("cancelled", {"reason": "user", "exit_code": 0}, 130),
        ("lost", {"reason": "pod_deleted", "exit_code": 0}, 75),
        ("running", {}, 75),
        ("a state of tomorrow", {"exit_code": 0}, 75),
    ],
)
def test_maps_outcomes(state: str, outcome: dict[str, Any], code: int) -> None:
    """Each state and reason has the code that cli.md gives it."""
    assert exit_codes.of_outcome(state, outcome) == code


_ANY = st.one_of(st.none(), st.booleans(), st.integers(-300, 300), st.text(max_size=5))


@given(
    st.sampled_from(["failed", "cancelled", "timed_out", "lost", "running", "odd"]),
    st.fixed_dictionaries({"exit_code": _ANY, "signal": _ANY, "reason": _ANY}),
)
def test_is_never_zero_without_success(state: str, outcome: dict[str, Any]) -> None:
    """Only `succeeded` is success, whatever else the outcome says."""
    assert exit_codes.of_outcome(state, outcome) != 0
