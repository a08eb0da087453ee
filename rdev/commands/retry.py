"""`rdev retry`: what a command ran, once more, as a new command."""

from __future__ import annotations

import click

from rdev import ids
from rdev.app import App
from rdev.options import detach_option, environment_option, interrupt_option, output_option
from rdev.submission import Showing, see_through, start
from rdev.verb import Verb


@click.command(
    cls=Verb,
    examples=("rdev retry $(rdev ps -q -n 1)", "rdev retry -d $(rdev ps -q -n 1)"),
)
@detach_option
@environment_option
@interrupt_option
@output_option(("text", "json", "jsonl", "raw"))
@click.argument("identifier", metavar="ID")
@click.pass_obj
def retry(
    app: App,
    /,
    identifier: str,
    detach: bool,
    environment: tuple[tuple[str, str], ...],
    on_interrupt: str | None,
    mode: str,
) -> int:
    """Run what a command ran once more, as a new command, and follow it."""
    with app.connect() as api:
        path = f"/v1/commands/{ids.command_id(api, identifier)}/retry"
        # The server forgets a command's environment when it ends, so it has to be given again.
        body = {"env": dict(environment)} if environment else None
        command = start(api, path, body)
        app.console.say(f"retrying as {command.id}")
        return see_through(app, api, command, Showing(detach, on_interrupt, mode))
