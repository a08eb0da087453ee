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
        self._result: dict[str, Any] | None = None

    def line(self, line: Any) -> None:
        """One line of claude's, as JSON text or parsed already; what is no JSON is shown as is."""
        message = _parsed(line)
        if message is None:
            if str(line).strip():
                self._console.line(str(line))
        elif message.get("type") == "assistant" and message.get("parent_tool_use_id") is None:
            self._assistant(message)
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
            self._last_text = text
            self._console.line(text)

    def finish(self, command: Command) -> None:
        """Print the answer unless it stands there already; then what it took and how to go on."""
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
