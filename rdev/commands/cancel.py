"""`rdev cancel`: stop commands."""

from __future__ import annotations

import click

from rdev import ids, submission
from rdev.app import App
from rdev.options import output_option
from rdev.verb import Verb


@click.command(
    cls=Verb,
    examples=("rdev cancel $(rdev ps -q -n 1)", "rdev cancel --force $(rdev ps -q -n 1)"),
)
@click.option("--force", is_flag=True, help="Kill at once, without time to clean up.")
@output_option()
@click.argument("identifiers", nargs=-1, required=True, metavar="ID…")
@click.pass_obj
def cancel(app: App, /, identifiers: tuple[str, ...], force: bool, mode: str) -> int:
    """Cancel commands, whether they wait or run."""
    how = "force" if force else "graceful"
    with app.connect() as api:
        wanted = [ids.command_id(api, text) for text in identifiers]
        cancelled = [submission.cancel(api, command_id, how) for command_id in wanted]
    if mode == "json":
        app.console.json({"items": [command.raw for command in cancelled]})
    for command in cancelled:
        if mode == "jsonl":
            app.console.json(command.raw, compact=True)
        elif mode == "text":
            ended = "had ended already: " if command.ended else ""
            app.console.line(f"{command.id} {ended}{command.state}")
    return 0
