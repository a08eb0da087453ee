"""`rdev ps`: the commands, newest first."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import click

from rdev.app import App
from rdev.listing import print_items
from rdev.options import LABEL, output_option, project_option
from rdev.resources import Command
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
@output_option()
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
        return 0
    now = dt.datetime.now(dt.UTC)
    print_items(
        console,
        [command.raw for command in commands],
        mode,
        _HEADERS,
        (_row(command, now) for command in commands),
        empty="no command matches; leave out the filters, or use -A for all projects"
        if asked
        else "no command yet; start one with `rdev run -p demo -- echo hello`",
        style=lambda column, text: _styled(console, column, text),
    )
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


def _styled(console: Console, column: int, text: str) -> str:
    colour = _STYLES.get(text.split(maxsplit=1)[0]) if column == _STATE else None
    return console.styled(text, colour) if colour else text


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
