"""What claude asks for while it is followed: said in one line, and asked about on a terminal.

claude stands still until somebody answers, so the question may hold up the stream as well. The
server decides who was first: an answer that comes too late is said and changes nothing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import quote

from rdev.errors import CliError
from rdev.text import clipped, printable

if TYPE_CHECKING:
    from rdev.events import CommandEvent
    from rdev.follow import Sink
    from rdev.http import Api
    from rdev.output import Console
    from rdev.resources import Command

_WIDTH = 300
_YES, _NO = ("y", "yes"), ("n", "no")


class Approver:
    """A sink before another one: asks about each request, and sends the answer."""

    def __init__(
        self, sink: Sink, api: Api, command_id: str, console: Console, answers: TextIO
    ) -> None:
        self._sink = sink
        self._api = api
        self._id = command_id
        self._console = console
        self._answers = answers

    def event(self, event: CommandEvent) -> None:
        """Pass it on; a request is asked about then."""
        self._sink.event(event)
        if event.type == "approval" and event.data.get("state") == "pending":
            self._ask(str(event.data.get("tool_use_id")))

    def done(self, command: Command) -> None:
        """The command has ended."""
        self._sink.done(command)

    def _ask(self, tool_use_id: str) -> None:
        while True:
            self._console.say("allow it? y, or n and why")
            line = self._answers.readline()
            if not line:  # nobody is there any more: the hint says how to answer
                return None
            word, _, why = line.strip().partition(" ")
            if word.lower() in _YES:
                return self._decide(tool_use_id, {"decision": "allow"})
            if word.lower() in _NO:
                more = {"message": why.strip()} if why.strip() else {}
                return self._decide(tool_use_id, {"decision": "deny", **more})

    def _decide(self, tool_use_id: str, decision: dict[str, str]) -> None:
        try:
            self._console.say(str(decide(self._api, self._id, tool_use_id, decision)["state"]))
        except CliError as error:
            self._console.warn(f"not decided: {error}")


def decide(api: Api, command_id: str, tool_use_id: str, decision: dict[str, str]) -> dict[str, Any]:
    """Allow or deny a request; the server's answer."""
    path = f"/v1/commands/{command_id}/approvals/{quote(tool_use_id, safe='')}"
    return api.post(path, decision).object


def wish(asked: Any) -> str:
    """What claude wants, on one line: the tool and the values of its input."""
    tool, shown = printable(str(asked.get("tool_name"))), asked.get("input")
    if not isinstance(shown, dict):
        return f"{tool} (too large to be shown here)" if asked.get("truncated") else tool
    values = (v if isinstance(v, str) else json.dumps(v) for v in shown.values())
    return clipped(f"{tool}: {printable(' '.join(values))}", _WIDTH)
