"""common/domain/outcome.py: the truth table from exit records to states and reasons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.domain.command import REASONS, Kind, Reason, State
from common.domain.events import dumps
from common.domain.outcome import EMPTY_SHA256, conclude, lost, never_ran
from common.domain.workspace import ExitRecord, StreamTotal

OUT = StreamTotal(12, "ab" * 32)
ERR = StreamTotal(3, "cd" * 32, "cap")
CAPTURES = Path(__file__).parents[1] / "fixtures" / "claude-2.1.197"
OK = {"type": "result", "subtype": "success", "is_error": False, "num_turns": 1, "result": "done"}


def record(reason: str = "exited", code: int | None = 0, **more: Any) -> ExitRecord:
    signal = code - 128 if code is not None and code > 128 else None
    return ExitRecord(reason, code, more.pop("signal", signal), OUT, ERR, **more)


def verdict(kind: Kind, end: ExitRecord, result: dict[str, Any] | None = None) -> tuple[str, str]:
    done = conclude(kind, end, result, separate=kind is Kind.CLAUDE)
    return str(done.state), done.outcome["reason"]


def captured(name: str) -> dict[str, Any] | None:
    lines = map(json.loads, (CAPTURES / f"{name}.jsonl").read_text().splitlines())
    return next((line for line in lines if line["type"] == "result"), None)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (record("user", 143), ("cancelled", "user")),
        (record("user", 0), ("cancelled", "user")),
        (record("user", None, detail="supervisor_died"), ("cancelled", "user")),
        (record("shutdown", 137), ("cancelled", "shutdown")),
        (record("key_revoked", 143), ("cancelled", "key_revoked")),
        (record("run_timeout", 143), ("timed_out", "run")),
        (record("idle_timeout", None), ("timed_out", "idle")),
        (record("start_failed", None, detail="cwd_missing"), ("failed", "start_failed")),
        (record(code=None), ("lost", "supervisor")),
        (record(code=137), ("failed", "signalled")),
        (record(code=143), ("failed", "signalled")),
        (record(code=2), ("failed", "exit_nonzero")),
        (record(code=127), ("failed", "exit_nonzero")),
    ],
)
def test_endings_that_are_the_same_for_every_kind(
    kind: Kind, end: ExitRecord, expected: tuple[str, str]
) -> None:
    """A kill, a limit, a failed start, a signal or a code decides before anything claude said."""
    assert verdict(kind, end, OK) == expected


@pytest.mark.parametrize("kind", [Kind.SHELL, Kind.GIT])
@pytest.mark.parametrize(("code", "reason"), [(0, "exit_zero"), (1, "exit_nonzero")])
def test_shell_and_git_go_by_their_exit_code(kind: Kind, code: int, reason: str) -> None:
    """0 is success, everything else is not."""
    assert verdict(kind, record(code=code)) == ("failed" if code else "succeeded", reason)


@pytest.mark.parametrize(
    ("capture", "code", "expected"),
    [
        ("tool_ok", 0, ("succeeded", "exit_zero")),
        ("permission_denied", 0, ("succeeded", "completed_with_denials")),
        ("mcp_failed", 0, ("succeeded", "exit_zero")),
        ("api_error_400", 1, ("failed", "api_error")),
        ("max_turns", 1, ("failed", "max_turns")),
        ("max_budget", 1, ("failed", "max_budget")),
        ("resume_missing", 1, ("failed", "session_unknown")),
        ("sigint_during_tool", 1, ("failed", "agent_error")),
        ("sigint_no_result", 0, ("failed", "no_result")),
        ("sigint_no_result", 1, ("failed", "exit_nonzero")),
    ],
)
def test_what_real_claude_runs_came_to(capture: str, code: int, expected: tuple[str, str]) -> None:
    """The table of claude.md, from captures of claude 2.1.197."""
    assert verdict(Kind.CLAUDE, record(code=code), captured(capture)) == expected


@pytest.mark.parametrize(
    ("result", "code", "expected"),
    [
        (OK, 0, ("succeeded", "exit_zero")),
        (OK, 1, ("failed", "exit_nonzero")),
        (
            OK | {"num_turns": 0, "result": "Unknown command: /x"},
            0,
            ("failed", "unknown_slash_command"),
        ),
        (OK | {"result": "Unknown command: /x"}, 0, ("succeeded", "exit_zero")),
        (OK | {"is_error": True}, 0, ("failed", "api_error")),
        (OK | {"is_error": None}, 0, ("failed", "api_error")),
        ({"type": "result"}, 0, ("failed", "agent_error")),
        (OK | {"subtype": ["success"]}, 0, ("succeeded", "exit_zero")),
        (OK | {"subtype": {"a": 1}, "is_error": 1}, 1, ("failed", "agent_error")),
        (OK | {"permission_denials": [{"tool_name": "Bash"}]}, 1, ("failed", "exit_nonzero")),
        (OK | {"num_turns": 0, "result": None}, 0, ("succeeded", "exit_zero")),
    ],
)
def test_claude_must_say_success_and_exit_zero(
    result: dict[str, Any], code: int, expected: tuple[str, str]
) -> None:
    """Neither the exit code nor the result line is believed alone, nor is any shape of it."""
    assert verdict(Kind.CLAUDE, record(code=code), result) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(alphabet=st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = ["subtype", "is_error", "num_turns", "result", "errors", "permission_denials", "usage"]


@given(
    st.sampled_from(Kind),
    st.sampled_from([None, 0, 1, 2, 137]),
    st.dictionaries(st.sampled_from(NAMES), JSON),
)
def test_no_result_breaks_a_conclusion(
    kind: Kind, code: int | None, result: dict[str, Any]
) -> None:
    """Whatever claude printed, there is a state, one of its reasons and an outcome for jsonb."""
    done = conclude(kind, record(code=code), result, separate=True)
    assert Reason(done.outcome["reason"]) in REASONS[done.state]
    line = dumps(done.outcome)
    assert b"\\u0000" not in line.replace(b"\\\\", b"")
    json.loads(line)


def test_what_jsonb_cannot_hold_is_replaced() -> None:
    """NUL, lone surrogates, infinities and endless nesting would keep a command from ending."""
    deep: Any = "x"
    for _ in range(500):
        deep = [deep]
    odd = OK | {"result": "a\0b\ud800c", "usage": {"k\0": float("inf"), "d": deep}}
    agent = conclude(Kind.CLAUDE, record(), odd, separate=True).outcome["agent"]
    assert agent["result"] == "a\ufffdb\ufffdc"
    assert agent["usage"]["k\ufffd"] is None
    assert len(dumps(agent)) < 500


def test_the_outcome_of_merged_output() -> None:
    """Field for field as api.md shows it."""
    done = conclude(Kind.SHELL, record(code=3, orphans=2), None, separate=False)
    assert done.outcome == {
        "reason": "exit_nonzero",
        "exit_code": 3,
        "signal": None,
        "orphans_killed": 2,
        "output": {"bytes": 12, "sha256": "ab" * 32, "truncated": False, "stderr": None},
        "agent": None,
    }


def test_the_outcome_of_separate_streams_has_stderr() -> None:
    """With separate streams stderr has its own totals."""
    done = conclude(Kind.SHELL, record(), None, separate=True)
    assert done.outcome["output"]["stderr"] == {"bytes": 3, "sha256": "cd" * 32, "truncated": True}


def test_the_outcome_of_claude_has_what_it_said() -> None:
    """Session, turns, cost, usage, denials and result are taken from the result line."""
    said = captured("permission_denied")
    assert said is not None
    agent = conclude(Kind.CLAUDE, record(), said, separate=True).outcome["agent"]
    assert (agent["session_id"], agent["num_turns"]) == (said["session_id"], 2)
    assert (agent["cost_usd"], agent["usage"]) == (said["total_cost_usd"], said["usage"])
    assert agent["permission_denials"] == said["permission_denials"]
    assert (agent["result"], agent["structured_output"]) == (said["result"], None)


def test_claude_without_a_result_has_no_agent_part() -> None:
    """Nothing is made up."""
    assert conclude(Kind.CLAUDE, record(), None, separate=True).outcome["agent"] is None


@pytest.mark.parametrize(
    ("end", "result", "expected"),
    [
        (record("result_seen", 143), OK, ("succeeded", "exit_zero")),
        (record("result_seen", 137), OK, ("succeeded", "exit_zero")),
        (record("result_seen", 0), OK, ("succeeded", "exit_zero")),
        (record("result_seen", None), OK, ("succeeded", "exit_zero")),
        (record("result_seen", 143), OK | {"is_error": True}, ("failed", "api_error")),
        (record("result_seen", 143), None, ("failed", "signalled")),
    ],
)
def test_a_claude_that_hung_after_its_result_ends_as_the_result_says(
    end: ExitRecord, result: dict[str, Any] | None, expected: tuple[str, str]
) -> None:
    """Its exit code is our doing; the outcome shows it and says why."""
    assert verdict(Kind.CLAUDE, end, result) == expected
    outcome = conclude(Kind.CLAUDE, end, result, separate=True).outcome
    assert outcome["detail"] == "claude did not exit after its result and was ended"
    assert outcome["exit_code"] == end.code


@pytest.mark.parametrize(
    ("end", "result", "reason"),
    [
        (record(), OK, "mcp_failed"),
        (record(), OK | {"permission_denials": [{}]}, "mcp_failed"),
        (record("mcp_failed", 143), None, "mcp_failed"),
        (record("mcp_failed", 0), OK, "mcp_failed"),
        (record(code=1), OK | {"subtype": "error_max_turns"}, "max_turns"),
        (record("user", 143), OK, "user"),
    ],
)
def test_a_required_server_that_is_not_connected(
    end: ExitRecord, result: dict[str, Any] | None, reason: str
) -> None:
    """No success without it; what else went wrong is said first, and the detail names it."""
    done = conclude(Kind.CLAUDE, end, result, separate=True, unconnected=["hub (failed)"])
    assert done.outcome["reason"] == reason
    named = done.outcome.get("detail") == "not connected: hub (failed)"
    assert named == (reason == "mcp_failed")


@pytest.mark.parametrize("reason", ["exited", "idle_timeout", "run_timeout"])
def test_an_answer_that_was_never_printed_is_told(reason: str) -> None:
    """claude's stdout can stop while its transcript goes on; with a result it does not matter."""
    end = record(reason, 0, detail="answer_in_transcript")
    outcome = conclude(Kind.CLAUDE, end, None, separate=True).outcome
    assert "transcript" in outcome["detail"]
    assert outcome["agent"] is None
    assert "detail" not in conclude(Kind.CLAUDE, end, OK, separate=True).outcome


def test_a_detail_is_passed_on() -> None:
    """Why a start failed is for the caller to read."""
    end = record("start_failed", None, detail="cwd_missing")
    assert conclude(Kind.SHELL, end, None, separate=False).outcome["detail"] == "cwd_missing"


def test_what_never_ran_has_the_totals_of_nothing() -> None:
    """No bytes, and the digest of no bytes."""
    outcome = never_ran(Reason.QUEUE)
    assert outcome["reason"] == "queue"
    assert outcome["output"] == {
        "bytes": 0,
        "sha256": EMPTY_SHA256,
        "truncated": False,
        "stderr": None,
    }
    assert (outcome["exit_code"], outcome["signal"], outcome["agent"]) == (None, None, None)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({}, {"bytes": 0, "sha256": "o", "truncated": True, "stderr": None}),
        ({"merged": 5}, {"bytes": 5, "sha256": "m", "truncated": True, "stderr": None}),
        (
            {"stdout": 7, "stderr": 0},
            {
                "bytes": 7,
                "sha256": "o",
                "truncated": True,
                "stderr": {"bytes": 0, "sha256": EMPTY_SHA256, "truncated": True},
            },
        ),
    ],
)
def test_a_lost_run_says_what_was_stored_of_it(
    sizes: dict[str, int], expected: dict[str, Any]
) -> None:
    """Sizes and digests are of the stored bytes, and the output counts as cut."""
    done = lost(Reason.SUPERVISOR, sizes, {"merged": "m", "stdout": "o"})
    assert done.state is State.LOST
    assert done.outcome["output"] == expected
