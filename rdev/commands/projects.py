"""`rdev projects`: where commands can run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from rdev.app import MOST_PROJECTS, App, project_name
from rdev.listing import print_items
from rdev.options import TEXT, output_option
from rdev.text import printable
from rdev.verb import Verbs

if TYPE_CHECKING:
    from rdev.output import Console

_FIELDS = ("phase", "workspace", "running", "queued", "max_concurrent_commands", "paused")

_HEADERS = ("NAME", "PHASE", "RUNNING", "QUEUED", "DESCRIPTION")


@click.group(cls=Verbs)
def projects() -> None:
    """List projects, or show one."""


@projects.command(
    "ls",
    examples=("rdev projects ls", "rdev projects ls -o json"),
)
@output_option()
@click.pass_obj
def ls(app: App, /, mode: str) -> int:
    """List the projects that the key may see."""
    with app.connect() as api:
        items = list(api.pages("/v1/projects", {}, limit=MOST_PROJECTS))
    empty = "no project; in a local rdev, a folder in $RDEV_HOME/workspaces is one"
    print_items(app.console, items, mode, _HEADERS, map(_row, items), empty=empty)
    return 0


@projects.command(
    "show",
    examples=("rdev projects show demo", "rdev projects show demo -o json"),
)
@output_option()
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


def _row(project: dict[str, Any]) -> tuple[str, ...]:
    return (
        printable(project_name(project)),
        _text(project.get("phase")),
        f"{_text(project.get('running'))}/{_text(project.get('max_concurrent_commands'))}",
        _text(project.get("queued")) + (" paused" if project.get("paused") else ""),
        _text(project.get("description")),
    )


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
