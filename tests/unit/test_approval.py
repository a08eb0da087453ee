"""common/domain/approval.py: claude's questions and the words that answer them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from common.domain import approval
from common.domain.approval import Approval, ApprovalState, Asked, Refused

CAPTURE = Path(__file__).parents[1] / "fixtures" / "claude-2.1.197" / "can_use_tool.jsonl"
AT = datetime(2026, 1, 1, tzinfo=UTC)


def line(**request: Any) -> dict[str, Any]:
    plain = {"subtype": "can_use_tool", "tool_use_id": "toolu_1", "tool_name": "Bash", "input": {}}
    return {"type": "control_request", "request_id": "r1", "request": plain | request}


def said(reply: bytes) -> dict[str, Any]:
    """The one line that a reply is."""
    assert reply.endswith(b"\n")
    assert reply.count(b"\n") == 1
    answer: dict[str, Any] = json.loads(reply)
    assert answer["type"] == "control_response"
    return dict(answer["response"])


def test_a_captured_request_is_read() -> None:
    """As claude 2.1.197 wrote it."""
    captured = [json.loads(text) for text in CAPTURE.read_text().splitlines()]
    [request] = [entry for entry in captured if entry["type"] == "control_request"]
    asked = approval.read(request)
    assert isinstance(asked, Asked)
    assert (asked.request_id, asked.tool_name) == (request["request_id"], "Bash")
    assert asked.tool_use_id == request["request"]["tool_use_id"]
    assert json.loads(asked.input) == request["request"]["input"]


def test_what_is_allowed_is_what_was_shown() -> None:
    """The answer repeats the input, whatever characters it has, on one line."""
    asked = approval.read(line(input={"content": "\u2028\n\0\ud800é"}))
    assert isinstance(asked, Asked)
    answer = said(approval.allow(asked.request_id, asked.input))
    assert (answer["subtype"], answer["request_id"]) == ("success", "r1")
    assert answer["response"]["behavior"] == "allow"
    assert answer["response"]["updatedInput"] == {"content": "\u2028\n\0\ud800é"}


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (approval.deny("r1", "Ask the owner."), "Ask the owner."),
        (approval.deny("r1", None), "denied"),
        (approval.expire("r1"), "in time"),
    ],
)
def test_a_denial_says_why(reply: bytes, words: str) -> None:
    """The model reads it as the tool's result."""
    answer = said(reply)["response"]
    assert answer["behavior"] == "deny"
    assert words in answer["message"]


@pytest.mark.parametrize(
    "request_line",
    [
        line(subtype="hook_callback"),
        line(tool_use_id="a b"),
        line(tool_use_id=None),
        line(tool_name="a\x1b[2J"),
        line(tool_name="x" * 201),
        line(input="rm"),
        line(input={"content": "x" * approval.MAX_INPUT}),
        {"type": "control_request", "request_id": "r1"},
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_nobody_can_be_asked_is_answered_with_an_error(request_line: dict[str, Any]) -> None:
    """Else claude would wait for ever."""
    refused = approval.read(request_line)
    assert isinstance(refused, Refused)
    answer = said(refused.reply)
    assert (answer["subtype"], answer["request_id"]) == ("error", "r1")
    assert answer["error"]


@pytest.mark.parametrize("request_id", [None, 7, "", "a\nb", "x" * 201])
def test_a_request_without_an_id_has_no_answer(request_id: Any) -> None:
    """There is nothing to address it by."""
    assert approval.read(line() | {"request_id": request_id}) is None


def test_a_prompt_is_a_line_of_its_own() -> None:
    """Whatever it holds."""
    text = approval.prompt_line("one\ntwo\u2028 --version é")
    assert text.count(b"\n") == 1
    assert json.loads(text)["message"] == {"role": "user", "content": "one\ntwo\u2028 --version é"}


def test_the_event_holds_the_input_while_it_fits() -> None:
    """A larger one, and one that is gone, are left out and said so."""
    asked = Approval(
        UUID(int=1), "r1", "toolu_1", "Bash", b'{"command":"make"}', ApprovalState.PENDING,
        None, None, AT, AT, None,
    )  # fmt: skip
    event = approval.event(asked)
    assert (event["input"], event["state"], "truncated" in event) == (
        {"command": "make"}, "pending", False,
    )  # fmt: skip
    for missing in (b'{"a":"' + b"x" * approval.MAX_SHOWN + b'"}', None):
        event = approval.event(replace(asked, input=missing))
        assert (event["input"], event["truncated"]) == (None, True)
