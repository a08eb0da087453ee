"""The output modes of a followed command: bytes, JSON lines, and nothing until the end.

`text` and `raw` are the command's own bytes; for claude, `raw` is its JSON lines and `text` what
they mean (claude_text.py). `jsonl` is the stream itself. `json` is the final resource alone.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rdev import events
from rdev.claude_text import ClaudeText
from rdev.events import CommandEvent
from rdev.follow import Sink
from rdev.resources import Command

if TYPE_CHECKING:
    from rdev.output import Console


class Bytes:
    """Exactly what the command wrote, to the stream that it wrote it to."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def event(self, event: CommandEvent) -> None:
        """Write output, and claude's lines as it printed them."""
        if event.type == "output":
            self._console.remote(*events.output_of(event))
        elif event.type == "agent":
            self._agent(events.agent_line(event))

    def _agent(self, line: Any) -> None:
        if line is None:
            return
        text = line if isinstance(line, str) else json.dumps(line, separators=(",", ":"))
        self._console.remote("stdout", text.rstrip("\n").encode() + b"\n")

    def done(self, command: Command) -> None:
        """Everything has been written already."""


class JsonLines:
    """Every event as one line of JSON."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def event(self, event: CommandEvent) -> None:
        """Print the event."""
        self._console.json(event.as_json(), compact=True)

    def done(self, command: Command) -> None:
        """The `end` event has said it already."""


class FinalJson:
    """The command as it ended, as one JSON document."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def event(self, event: CommandEvent) -> None:
        """Nothing is shown before the end."""

    def done(self, command: Command) -> None:
        """Print the resource, `outcome` included."""
        self._console.json(command.raw)


class ClaudeSink:
    """Claude's JSON lines as text, whether they come as `agent` events or as plain output."""

    def __init__(self, console: Console, *, live: bool) -> None:
        self._console = console
        self._text = ClaudeText(console, live=live)
        self._partial = b""

    def event(self, event: CommandEvent) -> None:
        """Show what the event means."""
        if event.type == "agent":
            line = events.agent_line(event)
            if line is not None:
                self._text.line(line)
        elif event.type == "output":
            stream, data = events.output_of(event)
            self.output(stream, data)

    def output(self, stream: str, data: bytes) -> None:
        """Bytes of claude's process: JSON lines on stdout, complaints on stderr."""
        if stream == "stderr":
            self._console.remote(stream, data)
            return
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._text.line(line.decode("utf-8", errors="replace"))

    def done(self, command: Command) -> None:
        """Show the result, how much it cost, and how to go on."""
        if self._partial:
            self._text.line(self._partial.decode("utf-8", errors="replace"))
        self._text.finish(command)


def sink_for(mode: str, kind: str, console: Console, *, live: bool) -> Sink:
    """The sink for `-o mode` of a command of `kind`; `live` shows claude's text as it comes."""
    if mode == "json":
        return FinalJson(console)
    if mode == "jsonl":
        return JsonLines(console)
    if mode == "text" and kind == "claude":
        return ClaudeSink(console, live=live)
    return Bytes(console)
