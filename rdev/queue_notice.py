"""Why a command is not running yet, said to the person who waits for it.

Said only on a terminal, only when the wait lasts, and again only when something has changed: most
commands start within milliseconds, and nobody wants a line about those.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote

from rdev.errors import CliError
from rdev.events import CommandEvent
from rdev.follow import Sink
from rdev.resources import WAITING, Command

if TYPE_CHECKING:
    from rdev.http import Api
    from rdev.output import Console

FIRST_AFTER_S: Final = 0.7
"""Longer than a warm start, shorter than a person's doubt."""
AGAIN_AFTER_S: Final = 15.0
"""The place in the queue changes without an event of this command, so it has to be looked up."""
_JOIN_S: Final = 2.0


class QueueNotice:
    """A sink around a sink: it watches for the command to start, and tells why it has not."""

    def __init__(
        self,
        inner: Sink,
        api: Api,
        command_id: str,
        console: Console,
        *,
        first_after_s: float = FIRST_AFTER_S,
    ) -> None:
        self._inner = inner
        self._api = api
        self._id = command_id
        self._console = console
        self._first_after_s = first_after_s
        self._started = threading.Event()
        self._said = ""
        self._thread = threading.Thread(target=self._watch, name="queue-notice", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._started.set()
        # A question may be under way; its connection is about to be closed under it.
        self._thread.join(_JOIN_S)

    def event(self, event: CommandEvent) -> None:
        """Pass the event on, and stop watching once the command is past the queue."""
        if event.type in ("output", "agent", "end") or (
            event.type == "state" and event.data.get("state") not in WAITING
        ):
            self._begun()
        self._inner.event(event)

    def done(self, command: Command) -> None:
        """Stop watching."""
        self._begun()
        self._inner.done(command)

    def _begun(self) -> None:
        if not self._started.is_set():
            self._started.set()
            if self._said:
                self._console.say("started")

    def _watch(self) -> None:
        delay = self._first_after_s
        while not self._started.wait(delay):
            delay = AGAIN_AFTER_S
            try:
                self._tell()
            except CliError as error:
                self._console.say(f"still queued, and its place cannot be told: {error}")
                return

    def _tell(self) -> None:
        command = Command.parse(self._api.get(f"/v1/commands/{self._id}").json)
        if command.state not in WAITING:
            return
        project = self._api.get(f"/v1/projects/{quote(command.project, safe='')}").object
        text = why_waiting(command, project)
        if text != self._said and not self._started.is_set():
            self._said = text
            self._console.say(text)


def why_waiting(command: Command, project: dict[str, Any]) -> str:
    """One sentence: the place in the queue and what it waits for."""
    if command.state == "scheduled":
        return f"scheduled for {command.raw.get('run_at') or 'later'}"
    position = command.queue_position
    place = f"queued at position {position}" if position else "about to start"
    return f"{place}: {_reason(command, project)}"


def _reason(command: Command, project: dict[str, Any]) -> str:
    running, most = project.get("running"), project.get("max_concurrent_commands")
    if project.get("paused"):
        return f"{command.project} is paused"
    if isinstance(running, int) and isinstance(most, int) and running >= most:
        return f"{command.project} runs {running} of at most {most} commands"
    if command.session_id:
        return f"session {command.session_id} may be in use"
    return "waiting for a runner"
