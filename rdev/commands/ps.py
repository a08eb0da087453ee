"""`rdev ps`: the commands, newest first."""

from __future__ import annotations

import datetime as dt
import shutil
from typing import TYPE_CHECKING, Any

import click

from rdev.app import App
from rdev.options import LABEL, output_option, project_option
from rdev.resources import Command
from rdev.table import render
from rdev.text import age, printable
from rdev.verb import Verb

if TYPE_CHECKING:
    from rdev.output import Console

_STATES = (
    "scheduled", "queued", "running", "cancelling",
    "succeeded", "failed", "cancelled", "timed_out", "lost",
)  # fmt: skip
_STYLES = {
    "running": "yellow", "cancelling": "yellow", "succeeded": "green",
    "failed": "red", "timed_out": "red", "lost": "red",
}  # fmt: skip
_STATE = 1
_HEADERS = ("ID", "STATE", "PROJECT", "KIND", "AGE", "SUMMARY")


@click.command(
    cls=Verb,
    examples=("rdev ps -p demo", "rdev ps --state running -o jsonl"),
)
@project_option
@click.option("-A", "--all-projects", is_flag=True, help="All projects that the key may see.")
@click.option("--state", type=click.Choice(_STATES), help="Only commands in this state.")
@click.option("--kind", type=click.Choice(["claude", "shell", "git"]), help="Only this kind.")
@click.option("--label", type=LABEL, metavar="NAME=VALUE", help="Only commands with this label.")
@click.option(
    "-n", "count", type=click.IntRange(min=1), default=20, show_default=True, help="How many."
)
@click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
@output_option(("text", "json", "jsonl"))
@click.pass_obj
def ps(app: App, /, count: int, quiet: bool, all_projects: bool, mode: str, **filters: Any) -> int:
    """List commands, newest first."""
    with app.connect() as api:
        project = filters["project"] or (None if all_projects else api.server.project)
        asked = _query(project, filters)
        commands = [Command.parse(c) for c in api.pages("/v1/commands", asked, limit=count)]
    console = app.console
    if quiet:
        for command in commands:
            console.line(command.id)
    elif mode == "json":
        console.json({"items": [command.raw for command in commands]})
    elif mode == "jsonl":
        for command in commands:
            console.json(command.raw, compact=True)
    else:
        _print_table(console, commands, filtered=bool(asked))
    return 0


def _query(project: str | None, filters: dict[str, Any]) -> dict[str, str]:
    label = filters["label"]
    asked = {
        "project": project,
        "state": filters["state"],
        "kind": filters["kind"],
        "label": None if label is None else "=".join(label),
    }
    return {name: value for name, value in asked.items() if value}


def _print_table(console: Console, commands: list[Command], *, filtered: bool) -> None:
    if not commands:
        console.say(
            "no command matches; leave out the filters, or use -A for all projects"
            if filtered
            else "no command yet; start one with `rdev run -p demo -- echo hello`"
        )
        return
    now = dt.datetime.now(dt.UTC)
    width = shutil.get_terminal_size().columns if console.out_is_terminal else None
    rows = [_row(command, now) for command in commands]

    def style(column: int, text: str) -> str:
        colour = _STYLES.get(text.split(maxsplit=1)[0]) if column == _STATE else None
        return console.styled(text, colour) if colour else text

    for line in render(_HEADERS, rows, width=width, style=style):
        console.line(line)


def _row(command: Command, now: dt.datetime) -> tuple[str, ...]:
    return (
        command.id,
        _state_text(command),
        printable(command.project),
        command.kind,
        age(command.time("created_at"), now),
        command.summary,
    )


def _state_text(command: Command) -> str:
    if command.state == "queued" and command.queue_position:
        return f"queued #{command.queue_position}"
    return command.state
