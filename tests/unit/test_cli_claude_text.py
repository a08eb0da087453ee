"""Claude's JSON lines as text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rdev.events import CommandEvent
from rdev.resources import Command
from rdev.sinks import Bytes, ClaudeSink


class FakeConsole:
    """Remembers what was said on which stream."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self.said: list[str] = []
        self.remote_bytes: dict[str, bytes] = {"stdout": b"", "stderr": b""}

    def line(self, text: str) -> None:
        self.out.append(text)

    def say(self, text: str) -> None:
        self.said.append(text)

    warn = say

    def remote(self, stream: str, data: bytes) -> None:
        self.remote_bytes[stream] += data


def ended(state: str = "succeeded", **agent: Any) -> Command:
    outcome = {"reason": "exit_zero", "exit_code": 0, "agent": {"num_turns": 1, **agent}}
    return Command(
        {"id": "cmd_1", "project": "demo", "kind": "claude", "state": state, "outcome": outcome}
    )


def assistant(*blocks: dict[str, Any], parent: str | None = None) -> dict[str, Any]:
    return {"type": "assistant", "message": {"content": list(blocks)}, "parent_tool_use_id": parent}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


RESULT = {"type": "result", "subtype": "success", "is_error": False, "result": "The answer"}


def play(console: FakeConsole, *lines: Any, live: bool, end: Command | None = None) -> None:
    sink = ClaudeSink(console, live=live)  # type: ignore[arg-type]
    for seq, line in enumerate(lines, 1):
        sink.event(CommandEvent(seq, "agent", {"seq": seq, "at": "now", **line}))
    sink.done(end or ended(session_id="s1", cost_usd=0.0008))


def test_a_pipe_gets_the_answer_alone() -> None:
    """Like `claude -p`: standard output is the result and nothing else."""
    console = FakeConsole()
    play(console, assistant(text("Let me see")), assistant(text("The answer")), RESULT, live=False)
    assert console.out == ["The answer"]


def test_a_terminal_sees_it_grow_and_the_answer_once() -> None:
    """The last text is the result, so it is not repeated."""
    console = FakeConsole()
    tool = {"type": "tool_use", "name": "Bash", "input": {"command": "ls\x1b[2J"}}
    play(console, assistant(text("Let me see"), tool), assistant(text("The answer")), RESULT,
         live=True)  # fmt: skip
    assert console.out == ["Let me see", "The answer"]
    assert console.said[0] == "Bash: ls[2J"


def test_subagents_do_not_speak_for_claude() -> None:
    """What a subagent says to claude is not said to the person."""
    console = FakeConsole()
    play(console, assistant(text("inner"), parent="t1"), RESULT, live=True)
    assert console.out == ["The answer"]


def test_an_error_is_no_answer() -> None:
    """claude reports an API error as a result; it must not look like an answer in a pipe."""
    console = FakeConsole()
    play(console, {**RESULT, "is_error": True, "result": "API Error: 400"}, live=False)
    assert console.out == []
    assert any("API Error: 400" in line for line in console.said)


def test_errors_without_a_result_are_said() -> None:
    """error_max_turns has a list of errors in place of a result."""
    console = FakeConsole()
    line = {"type": "result", "subtype": "error_max_turns", "is_error": True, "errors": ["5 turns"]}
    play(console, line, live=False)
    assert any("5 turns" in line for line in console.said)


def test_takes_the_answer_from_the_outcome_when_no_line_held_it() -> None:
    """A result line too long for one event is known from the final resource."""
    console = FakeConsole()
    play(console, live=False, end=ended(result="From the outcome"))
    assert console.out == ["From the outcome"]


def test_says_what_it_cost_and_how_to_go_on() -> None:
    """The person can go on with the session by copying one line."""
    console = FakeConsole()
    play(console, RESULT, live=True)
    assert console.said[-1] == ("1 turns, $0.0008, go on with `rdev claude -p demo --session s1`")


def test_names_what_was_denied() -> None:
    """A success with denials hides nothing."""
    console = FakeConsole()
    play(console, RESULT, live=False, end=ended(permission_denials=[{"tool_name": "Write"}]))
    assert "claude was not allowed to use Write" in console.said


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_reads_lines_that_come_as_plain_output(size: int) -> None:
    """A server that passes stdout through gives the same text, however it is cut."""
    console = FakeConsole()
    sink = ClaudeSink(console, live=True)  # type: ignore[arg-type]
    wire = b"".join(json.dumps(line).encode() + b"\n" for line in (assistant(text("ü")), RESULT))
    for start in range(0, len(wire), size):
        sink.output("stdout", wire[start : start + size])
    sink.output("stderr", b"complaint\n")
    sink.done(ended())
    assert console.out == ["ü", "The answer"]
    assert console.remote_bytes["stderr"] == b"complaint\n"


def test_shows_lines_that_are_no_json() -> None:
    """Whatever claude prints instead of JSON is not swallowed."""
    console = FakeConsole()
    sink = ClaudeSink(console, live=True)  # type: ignore[arg-type]
    sink.output("stdout", b"panic: no such flag")
    sink.done(ended("failed"))
    assert console.out == ["panic: no such flag"]


def test_raw_mode_prints_the_lines_themselves() -> None:
    """`-o raw` gives claude's lines without rdev's numbering, and an overlong one only once."""
    console = FakeConsole()
    sink = Bytes(console)  # type: ignore[arg-type]
    sink.event(CommandEvent(1, "agent", {"seq": 1, "at": "now", "type": "system"}))
    sink.event(CommandEvent(2, "agent", {"seq": 2, "raw": '{"type": "user"}'}))
    long = {"stream": "stdout", "offset": 0, "text": '{"type":"long"}\n'}
    sink.event(CommandEvent(3, "output", long))
    sink.event(CommandEvent(4, "agent", {"seq": 4, "raw": {"type": "long"}, "truncated": True}))
    assert console.remote_bytes["stdout"] == (
        b'{"type":"system"}\n{"type": "user"}\n{"type":"long"}\n'
    )


def partial(words: str, **more: Any) -> dict[str, Any]:
    event = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": words}}
    return {"type": "stream_event", "event": event, "parent_tool_use_id": None} | more


def test_a_text_grows_as_it_comes() -> None:
    """Each part is written once; the whole that follows only ends the line."""
    console = FakeConsole()
    other = {"type": "stream_event", "event": {"type": "message_stop"}}
    inner = partial("inner", parent_tool_use_id="t1")
    play(console, partial("The "), inner, partial("answer"), other, assistant(text("The answer")),
         RESULT, live=True)  # fmt: skip
    assert console.remote_bytes["stdout"] == b"The answer"
    assert console.out == [""]


def test_a_text_that_was_cut_off_ends_its_line() -> None:
    """What comes next begins on a line of its own."""
    console = FakeConsole()
    play(console, partial("The ans"), assistant(text("Another")), partial("wer"), live=True)
    assert console.out[:3] == ["", "Another", ""]


def test_a_pipe_gets_no_parts() -> None:
    """It gets the answer alone."""
    console = FakeConsole()
    play(console, partial("The "), assistant(text("The answer")), RESULT, live=False)
    assert (console.remote_bytes["stdout"], console.out) == (b"", ["The answer"])


def test_what_went_wrong_on_the_way_is_said() -> None:
    """A tool that failed, and an API that does not answer."""
    console = FakeConsole()
    failed = {
        "type": "tool_result",
        "is_error": True,
        "content": [{"type": "text", "text": "no\x1b[2J"}],
    }
    fine = {"type": "tool_result", "is_error": False, "content": "secret"}
    retry = {
        "type": "system",
        "subtype": "api_retry",
        "attempt": 1,
        "max_retries": 10,
        "error_status": 529,
    }
    play(
        console, {"type": "user", "message": {"content": [failed, fine]}}, retry, RESULT, live=True
    )
    assert console.said[:2] == [
        "it failed: no[2J",
        "the API did not answer (529), claude asks again: 1 of 10",
    ]
