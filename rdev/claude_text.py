"""Claude's stream of JSON lines as text for people.

In a pipe, standard output is the final answer alone, as with `claude -p`. Live, on a terminal or in
`rdev logs`, the answer grows as claude writes it, and tools are named as they are used. The shapes
were captured from the real program (stream-json of Claude Code 2.1).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rdev.resources import Command
from rdev.text import clipped, printable

if TYPE_CHECKING:
    from rdev.output import Console

_TOOL_INPUT_WIDTH = 100


class ClaudeText:
    """Feed it lines, then finish it once."""

    def __init__(self, console: Console, *, live: bool) -> None:
        self._console = console
        self._live = live
        self._last_text: str | None = None
        self._growing = ""  # what stands on the screen of a text that is not complete
        self._result: dict[str, Any] | None = None

    def line(self, line: Any) -> None:
        """One line of claude's, as JSON text or parsed already; what is no JSON is shown as is."""
        message = _parsed(line)
        if message is None:
            if str(line).strip():
                self._console.line(str(line))
        elif message.get("type") == "assistant" and message.get("parent_tool_use_id") is None:
            self._assistant(message)
        elif message.get("type") == "stream_event" and message.get("parent_tool_use_id") is None:
            self._grow(_delta(message))
        elif message.get("type") == "user":
            self._failures(message)
        elif message.get("subtype") == "api_retry":
            self._console.say(_retry(message))
        elif message.get("type") == "result":
            self._result = message

    def _assistant(self, message: dict[str, Any]) -> None:
        for block in _blocks(message):
            if block.get("type") == "text":
                self._text(str(block.get("text", "")))
            elif block.get("type") == "tool_use":
                self._console.say(_tool(block))

    def _text(self, text: str) -> None:
        if self._live:
            shown = self._growing if text.startswith(self._growing) else ""
            if shown != self._growing:
                self._end_line()
            self._growing, self._last_text = "", text
            self._console.line(text[len(shown) :])

    def _grow(self, text: str) -> None:
        """A part of a text that will come again as a whole."""
        if self._live and text:
            self._growing += text
            self._console.remote("stdout", text.encode("utf-8", errors="replace"))

    def _end_line(self) -> None:
        if self._growing:
            self._growing = ""
            self._console.line("")

    def _failures(self, message: dict[str, Any]) -> None:
        """Tools that did not do what claude wanted; what went well is in what it says."""
        for block in _blocks(message):
            if block.get("type") == "tool_result" and block.get("is_error"):
                said = f"it failed: {printable(_words_of(block.get('content')))}"
                self._console.say(clipped(said, _TOOL_INPUT_WIDTH))

    def finish(self, command: Command) -> None:
        """Print the answer unless it stands there already; then what it took and how to go on."""
        self._end_line()
        answer, is_error = self._answer(command)
        if answer and is_error:
            self._console.warn(f"claude says: {printable(answer)}")
        elif answer and answer != self._last_text:
            self._console.line(answer)
        for denial in command.agent.get("permission_denials") or []:
            tool = denial.get("tool_name") if isinstance(denial, dict) else denial
            self._console.warn(f"claude was not allowed to use {printable(str(tool))}")
        self._console.say(_footer(command))

    def _answer(self, command: Command) -> tuple[str, bool]:
        if self._result is None:
            return str(command.agent.get("result") or ""), command.state != "succeeded"
        errors = self._result.get("errors")
        text = self._result.get("result") or "; ".join(map(str, errors or []))
        return str(text), bool(self._result.get("is_error"))


def _parsed(line: Any) -> dict[str, Any] | None:
    if isinstance(line, dict):
        return line
    try:
        value = json.loads(line)
    except (ValueError, TypeError):
        return None
    return value if isinstance(value, dict) else None


def _blocks(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    inner = message.get("message")
    content = inner.get("content") if isinstance(inner, dict) else None
    for block in content if isinstance(content, list) else []:
        if isinstance(block, dict):
            yield block


def _delta(message: dict[str, Any]) -> str:
    """The text that a stream event adds; most add none."""
    event = message.get("event")
    delta = event.get("delta") if isinstance(event, dict) else None
    is_text = isinstance(delta, dict) and delta.get("type") == "text_delta"
    return str(delta.get("text", "")) if is_text and isinstance(delta, dict) else ""


def _retry(message: dict[str, Any]) -> str:
    """Why claude is silent."""
    why = message.get("error_status") or message.get("error")
    return (
        f"the API did not answer ({printable(str(why))}), claude asks again:"
        f" {message.get('attempt')} of {message.get('max_retries')}"
    )


def _words_of(content: object) -> str:
    """A tool's result as text: it is one, or blocks of which some are."""
    if isinstance(content, list):
        texts = (block.get("text") for block in content if isinstance(block, dict))
        return " ".join(str(text) for text in texts if text)
    return str(content)


def _tool(block: dict[str, Any]) -> str:
    shown = block.get("input")
    values = [str(v) for v in shown.values()] if isinstance(shown, dict) else []
    return clipped(
        f"{printable(str(block.get('name')))}: {printable(' '.join(values))}", _TOOL_INPUT_WIDTH
    )


def _footer(command: Command) -> str:
    agent = command.agent
    parts = [f"{agent['num_turns']} turns"] if "num_turns" in agent else []
    if isinstance(agent.get("cost_usd"), int | float):
        parts.append(f"${agent['cost_usd']:.4f}")
    if command.session_id:
        parts.append(
            f"go on with `rdev claude -p {command.project} --session {command.session_id}`"
        )
    return ", ".join(parts) or f"{command.id} {command.state}"
