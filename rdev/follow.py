"""Following one command from its first event to its last, whatever happens in between.

Events are numbered without gaps, so completeness is checked and never assumed: a repeated event is
dropped, a missing one is asked for once more and then said aloud. Only the `end` event, or the
command resource itself, decides how it ended; a connection that closes decides nothing.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rdev import events, exit_codes, sse
from rdev.approving import wish
from rdev.errors import OutcomeUnknown, StreamBroken, WrongUsage
from rdev.events import CommandEvent
from rdev.resources import Command
from rdev.retry import Clock
from rdev.stream import GaveUp, Patience, ResumingStream, Watcher
from rdev.text import printable, seconds_as_text

if TYPE_CHECKING:
    from rdev.http import Api
    from rdev.output import Console


class Sink(Protocol):
    """Where a command's events go; one per output mode."""

    def event(self, event: CommandEvent) -> None:
        """Take the next event, in order."""
        ...

    def done(self, command: Command) -> None:
        """The command has ended."""
        ...


class Discard:
    """A sink for those who only want to know how it ended."""

    def event(self, event: CommandEvent) -> None:
        """Nothing is shown."""

    def done(self, command: Command) -> None:
        """Nothing is shown."""


@dataclass(frozen=True, slots=True)
class Followed:
    """How it ended, and how many events nobody can give back."""

    command: Command
    lost_events: int

    @property
    def exit_code(self) -> int:
        """The command's own; but 0 with a hole in the output is no success."""
        code = self.command.exit_code
        return exit_codes.OUTCOME_UNKNOWN if code == 0 and self.lost_events else code


class Follower:
    """Follows one command into a sink. Use once."""

    def __init__(
        self,
        api: Api,
        command_id: str,
        console: Console,
        sink: Sink,
        *,
        clock: Clock | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._api = api
        self._id = command_id
        self._console = console
        self._sink = sink
        self._patience = patience or Patience()
        watcher = Watcher(self._admit, self._broken, self._resumed)
        path = f"/v1/streams/commands/{command_id}"
        self._stream = ResumingStream(api, path, watcher, clock=clock, patience=self._patience)
        self._seen = 0
        self._asked_again: set[int] = set()
        self._lost = 0
        self._lost_before_outage = 0

    def run(self) -> Followed:
        """Follow to the end.

        Raises OutcomeUnknown when the command can no longer be seen.
        """
        try:
            command = self._until_the_end()
        except GaveUp as gave_up:
            raise self._unknown(f"lost sight of {self._id}: {gave_up}") from gave_up
        except WrongUsage as error:
            # It was there a moment ago, so this is not about what the person typed.
            raise self._unknown(f"lost sight of {self._id}: {error}") from error
        self._sink.done(command)
        return Followed(command, self._lost)

    def _until_the_end(self) -> Command:
        with closing(self._stream.events()) as incoming:
            for raw in incoming:
                event = events.parse(raw)
                self._announce(event)
                self._sink.event(event)
                if event.type == "end":
                    return self._ended(event)
        return self._ask()

    def _ended(self, event: CommandEvent) -> Command:
        command = Command.parse(event.data)
        return command if command.ended else self._ask()

    def _ask(self) -> Command:
        """The stream has nothing more (204): the end was seen before, or its events are gone."""
        command = Command.parse(self._api.get(f"/v1/commands/{self._id}").json)
        if not command.ended:
            raise self._unknown(f"the stream of {self._id} ended, but it is still {command.state}")
        return command

    def _unknown(self, message: str) -> OutcomeUnknown:
        return OutcomeUnknown(message, hint=f"it may still run: `rdev logs -f {self._id}`")

    def _admit(self, event: sse.Event) -> bool:
        if event.type == "gap":
            return self._admit_gap(event)
        seq = events.sequence(event)
        if seq <= self._seen:
            return False
        if seq > self._seen + 1:
            self._hole(self._seen + 1, seq - 1)
        self._seen = seq
        return True

    def _admit_gap(self, event: sse.Event) -> bool:
        first, last = events.gap_of(events.parse(event))
        if last <= self._seen:
            return False
        self._lose(max(first, self._seen + 1), last)
        self._seen = last
        return True

    def _hole(self, first: int, last: int) -> None:
        """Events are missing that nobody declared gone: ask once more, then say it."""
        if first not in self._asked_again:
            self._asked_again.add(first)
            raise StreamBroken(f"events {first} to {last} did not come")
        self._lose(first, last)

    def _lose(self, first: int, last: int) -> None:
        self._lost += last - first + 1
        self._console.warn(f"events {first} to {last} of {self._id} are lost: output is missing")

    def _broken(self, reason: str) -> None:
        self._lost_before_outage = self._lost
        bound = seconds_as_text(self._patience.bound_s)
        self._console.say(f"reconnecting… ({printable(reason)}; for up to {bound})")

    def _resumed(self) -> None:
        self._console.say(f"resumed, {self._lost - self._lost_before_outage} lost")

    def _announce(self, event: CommandEvent) -> None:
        if event.type == "truncated":
            stream, size = event.data.get("stream"), event.data.get("bytes")
            self._console.warn(f"{stream} was cut at the output limit ({size} bytes kept)")
        elif event.type == "warning":
            text = event.data.get("message") or event.data.get("detail") or event.data
            self._console.say(f"warning: {printable(str(text))}")
        elif event.type == "approval" and event.data.get("state") == "pending":
            self._console.warn(
                f"claude asks to use {wish(event.data)}; answer with"
                f" `rdev approvals allow {self._id}`, or `deny`"
            )
