"""`rdev queue`: what waits and runs where, and who may start."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from rdev.app import MOST_PROJECTS, App
from rdev.listing import print_items
from rdev.options import TEXT, output_option
from rdev.text import printable
from rdev.verb import Verbs

_PRIORITIES = ("urgent", "high", "normal", "low")


@click.group(cls=Verbs)
def queue() -> None:
    """List what waits and runs, pause a project, let it go on."""


@queue.command("ls", examples=("rdev queue ls", "rdev queue ls -o json"))
@output_option()
@click.pass_obj
def ls(app: App, /, mode: str) -> int:
    """List every project's queue: running, waiting by priority, and how long the oldest has."""
    with app.connect() as api:
        items = list(api.pages("/v1/queue", {}, limit=MOST_PROJECTS))
    headers = ("PROJECT", "RUNNING", "WAITING", *(p.upper() for p in _PRIORITIES), "OLDEST", "")
    rows = (_row(item) for item in items)
    print_items(app.console, items, mode, headers, rows, empty="no project")
    return 0


@queue.command("pause", examples=("rdev queue pause demo", "rdev queue pause demo -o json"))
@output_option()
@click.argument("project", type=TEXT, metavar="PROJECT")
@click.pass_obj
def pause(app: App, /, project: str, mode: str) -> int:
    """Start nothing more in a project; what runs goes on."""
    return _set(app, project, "pause", "paused", mode)


@queue.command("resume", examples=("rdev queue resume demo", "rdev queue resume demo -o json"))
@output_option()
@click.argument("project", type=TEXT, metavar="PROJECT")
@click.pass_obj
def resume(app: App, /, project: str, mode: str) -> int:
    """Let what waits in a project start again."""
    return _set(app, project, "resume", "resumed", mode)


def _set(app: App, project: str, verb: str, done: str, mode: str) -> int:
    with app.connect() as api:
        answer = api.post(f"/v1/queue/{quote(project, safe='')}/{verb}").object
    if mode == "text":
        waiting, running = answer.get("queued"), answer.get("running")
        app.console.line(f"{printable(project)} {done}: {running} running, {waiting} waiting")
    else:
        app.console.json(answer, compact=mode == "jsonl")
    return 0


def _row(item: dict[str, Any]) -> tuple[str, ...]:
    depths, oldest = item.get("by_priority") or {}, item.get("oldest_s")
    return (
        printable(str(item.get("project"))),
        str(item.get("running")),
        str(item.get("queued")),
        *(str((depths.get(name) or {}).get("queued", 0)) for name in _PRIORITIES),
        "-" if oldest is None else f"{oldest:.0f}s",
        "paused" if item.get("paused_at") else "",
    )
