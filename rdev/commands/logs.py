"""`rdev logs`: the output of a command, now or as it comes."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import click

from rdev import exit_codes, ids
from rdev.app import App
from rdev.backlog import Backlog, End
from rdev.errors import WrongUsage
from rdev.excerpt import After, CaughtUp, Since, UpTo
from rdev.follow import Follower, Sink
from rdev.options import DURATION, output_option
from rdev.resources import Command
from rdev.sinks import ClaudeSink, sink_for
from rdev.verb import Verb

if TYPE_CHECKING:
    from rdev.http import Api
    from rdev.output import Console


@click.command(
    cls=Verb,
    examples=("rdev logs $(rdev ps -q -n 1)", "rdev logs -f -n 20 $(rdev ps -q -n 1)"),
)
@click.option("-f", "--follow", is_flag=True, help="Go on until the command has ended.")
@click.option("-n", "lines", type=click.IntRange(min=1), help="Only the last lines of each stream.")
@click.option("--since", "since_s", type=DURATION, help="Only what is younger than, say, 5m.")
@output_option(("text", "jsonl", "raw"))
@click.argument("identifier", metavar="ID")
@click.pass_obj
def logs(
    app: App, /, identifier: str, follow: bool, lines: int | None, since_s: int | None, mode: str
) -> int:
    """Print the output of a command."""
    if lines is not None and (since_s is not None or mode == "jsonl"):
        raise WrongUsage("-n counts lines of output, so it goes neither with --since nor jsonl")
    with app.connect() as api:
        found = api.get(f"/v1/commands/{ids.command_id(api, identifier)}")
        command = Command.parse(found.json)
        reader = _Reader(api, app.console, command, mode)
        if since_s is not None:
            reader.since(dt.datetime.now(dt.UTC) - dt.timedelta(seconds=since_s), follow=follow)
        elif mode == "jsonl" or (follow and lines is None):
            reader.stream(reader.sink, follow=follow)
        elif lines is not None:
            reader.tail(lines, follow=follow)
        else:
            reader.stored()
        return reader.exit_code


@dataclass
class _Reader:
    """One way of reading for each combination of options."""

    api: Api
    console: Console
    command: Command
    mode: str
    exit_code: int = exit_codes.OK

    def __post_init__(self) -> None:
        self.sink = sink_for(self.mode, self.command.kind, self.console, live=True)

    def stored(self) -> None:
        """All that is there, without waiting for more."""
        backlog = Backlog(self.api, self.command)
        for name in self.command.streams:
            backlog.copy(name, partial(self._show, name))
        self._finish()

    def tail(self, lines: int, *, follow: bool) -> None:
        """The last lines, then what comes after them."""
        backlog, ends = Backlog(self.api, self.command), dict[str, End]()
        for name in self.command.streams:
            content, ends[name] = backlog.tail(name, lines)
            self._show(name, content)
        if follow and not self.command.ended:
            self.stream(After(self.sink, ends), follow=True)
        else:
            self._finish()

    def since(self, instant: dt.datetime, *, follow: bool) -> None:
        """What happened after an instant."""
        self.stream(Since(self.sink, instant), follow=follow)

    def stream(self, sink: Sink, *, follow: bool) -> None:
        """The events, up to the end or to where the output stands now."""
        if not follow and not self.command.ended:
            ends = Backlog(self.api, self.command).ends()
            if not any(end.bytes for end in ends.values()):
                return
            sink = UpTo(sink, ends)
        try:
            followed = Follower(self.api, self.command.id, self.console, sink).run()
        except CaughtUp:
            return
        if followed.lost_events:
            self.exit_code = exit_codes.OUTCOME_UNKNOWN

    def _show(self, stream: str, data: bytes) -> None:
        if isinstance(self.sink, ClaudeSink):
            self.sink.output(stream, data)
        else:
            self.console.remote(stream, data)

    def _finish(self) -> None:
        if self.command.ended:
            self.sink.done(self.command)
