"""`rdev projects`: where commands can run."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from rdev.app import MOST_PROJECTS, App, project_name
from rdev.options import TEXT, output_option
from rdev.table import render
from rdev.text import printable
from rdev.verb import Verbs

if TYPE_CHECKING:
    from rdev.output import Console

_FIELDS = ("phase", "workspace", "running", "queued", "max_concurrent_commands", "paused")


@click.group(cls=Verbs)
def projects() -> None:
    """List projects, or show one."""


@projects.command(
    "ls",
    examples=("rdev projects ls", "rdev projects ls -o json"),
)
@output_option(("text", "json", "jsonl"))
@click.pass_obj
def ls(app: App, /, mode: str) -> int:
    """List the projects that the key may see."""
    with app.connect() as api:
        items = list(api.pages("/v1/projects", {}, limit=MOST_PROJECTS))
    if mode == "json":
        app.console.json({"items": items})
    elif mode == "jsonl":
        for item in items:
            app.console.json(item, compact=True)
    else:
        _print_table(app.console, items)
    return 0


@projects.command(
    "show",
    examples=("rdev projects show demo", "rdev projects show demo -o json"),
)
@output_option(("text", "json", "jsonl"))
@click.argument("name", type=TEXT, metavar="NAME")
@click.pass_obj
def show(app: App, /, name: str, mode: str) -> int:
    """Show one project: its state, its limits, and what is wrong with it."""
    with app.connect() as api:
        project = api.get(f"/v1/projects/{quote(name, safe='')}").object
    if mode == "text":
        _print_project(app.console, project)
    else:
        app.console.json(project, compact=mode == "jsonl")
    return 0


def _print_table(console: Console, items: list[Any]) -> None:
    if not items:
        console.say("no project; in a local rdev, a folder in $RDEV_HOME/workspaces is one")
        return
    rows = [
        (
            printable(project_name(item)),
            _text(item.get("phase")),
            f"{_text(item.get('running'))}/{_text(item.get('max_concurrent_commands'))}",
            _text(item.get("queued")) + (" paused" if item.get("paused") else ""),
            _text(item.get("description")),
        )
        for item in items
    ]
    width = shutil.get_terminal_size().columns if console.out_is_terminal else None
    for line in render(("NAME", "PHASE", "RUNNING", "QUEUED", "DESCRIPTION"), rows, width=width):
        console.line(line)


def _print_project(console: Console, project: dict[str, Any]) -> None:
    rows = [("name", project_name(project)), ("description", _text(project.get("description")))]
    rows += [(name.replace("_", " "), _text(project.get(name))) for name in _FIELDS]
    allowed = project.get("allowed_commands")
    rows.append(("allowed commands", " ".join(map(str, allowed)) if allowed else "all"))
    issues = project.get("issues")
    rows += [("issue", str(issue)) for issue in (issues if isinstance(issues, list) else [])]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        console.line(f"{name.ljust(width)}  {printable(value)}")


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None or value == "" else printable(str(value))
