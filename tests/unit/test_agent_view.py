"""common/domain/agent_view.py: claude's lines in a few typed items."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.domain.agent_view import MAX_TEXT, MAX_VIEW, view
from common.domain.events import dumps

CAPTURES = Path(__file__).parents[1] / "fixtures" / "claude-2.1.197"


def captured(name: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (CAPTURES / f"{name}.jsonl").read_text().splitlines())
    return [item for line in lines for item in view(line)]


def test_a_run_with_a_tool() -> None:
    """From its beginning through a tool call to its result."""
    items = captured("tool_ok")
    kinds = [item["kind"] for item in items]
    assert kinds == ["init", "text", "tool_call", "tool_result", "text", "result"]
    init, _, call, result, text, end = items
    assert init["model"]
    assert init["mcp_servers"] == []
    assert (call["name"], call["id"]) == ("Bash", result["id"])
    assert json.loads(call["input"])["command"]
    assert (result["is_error"], end["is_error"], end["num_turns"]) == (False, False, 2)
    assert end["text"] == text["text"]


def test_a_denied_tool() -> None:
    """Its result is an error, and the end counts it."""
    items = captured("permission_denied")
    assert [i["is_error"] for i in items if i["kind"] == "tool_result"] == [True]
    assert items[-1]["denials"] == 1


def test_a_message_as_it_grows() -> None:
    """Deltas say what they add to."""
    deltas = [item for item in captured("partial") if item["kind"] == "delta"]
    assert deltas
    assert {item["of"] for item in deltas} <= {"text", "thinking", "input"}


def test_what_went_wrong_is_in_the_result() -> None:
    """Errors are its text when there is no other."""
    [end] = captured("resume_missing")
    assert (end["kind"], end["is_error"]) == ("result", True)
    assert "No conversation found" in end["text"]


def test_a_failed_mcp_server_is_seen_at_once() -> None:
    """By name and status."""
    assert captured("mcp_failed")[0]["mcp_servers"][0]["status"] == "failed"


def test_a_retry() -> None:
    """Why, which one, and when the next is due."""
    line = {
        "type": "system",
        "subtype": "api_retry",
        "attempt": 2,
        "max_retries": 10,
        "retry_delay_ms": 1100,
        "error_status": 529,
        "error": "overloaded_error",
    }
    assert view(line) == [
        {
            "kind": "retry",
            "attempt": 2,
            "max_retries": 10,
            "delay_ms": 1100,
            "status": 529,
            "error": "overloaded_error",
        }
    ]


def test_thinking_and_who_thinks() -> None:
    """A subagent's words carry the tool call that made it."""
    block = {"type": "thinking", "thinking": "hm"}
    line = {"type": "assistant", "message": {"content": [block]}, "parent_tool_use_id": "toolu_1"}
    assert view(line) == [{"kind": "thinking", "text": "hm", "parent": "toolu_1"}]


@pytest.mark.parametrize(
    "line",
    [
        {"type": "rate_limit_event"},
        {"type": "system", "subtype": "compact_boundary"},
        {"type": "of tomorrow", "message": {"content": [{"type": "text", "text": "x"}]}},
        {},
    ],
)
def test_unknown_types_pass_through_without_items(line: dict[str, Any]) -> None:
    """The line itself is there all the same."""
    assert view(line) == []


def test_long_texts_are_clipped() -> None:
    """The line beside the view has the whole."""
    parts = [{"type": "text", "text": "x" * 5000}, {"type": "image"}]
    block = {"type": "tool_result", "content": parts}
    [item] = view({"type": "user", "message": {"content": [block]}})
    assert (len(item["text"]), item["text"][-1]) == (MAX_TEXT, "…")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=12)
        | st.dictionaries(
            st.sampled_from(
                ["type", "text", "thinking", "content", "name", "delta", "id", "status"]
            )
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)
TYPES = ["system", "assistant", "user", "stream_event", "result"]
FIELDS = ["subtype", "message", "event", "mcp_servers", "errors", "result", "permission_denials"]


@given(st.sampled_from(TYPES), st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_no_line_breaks_a_view(kind: str, fields: dict[str, Any]) -> None:
    """Whatever a line holds, its view is JSON and leaves room for it."""
    blocks = {"message": {"content": fields.get("message")}}
    for line in ({"type": kind} | fields, {"type": kind} | fields | blocks):
        assert len(dumps(view(line))) <= MAX_VIEW


def test_a_view_is_small_whatever_it_is_of() -> None:
    """What does not fit is left out: the line has it."""
    blocks = [{"type": "text", "text": "𝄞" * 2000}] * 9
    servers = [{"name": "𝄞" * 500, "status": "𝄞" * 500}] * 99
    for line in (
        {"type": "assistant", "message": {"content": blocks}, "parent_tool_use_id": "𝄞" * 999},
        {"type": "system", "subtype": "init", "mcp_servers": servers},
    ):
        assert len(dumps(view(line))) <= MAX_VIEW
