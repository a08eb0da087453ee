"""`rdev sessions`: claude's conversations in a project, to go on with."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from rdev import ids
from rdev.app import App
from rdev.listing import print_items
from rdev.options import TEXT, output_option, project_option
from rdev.text import age, parse_time, printable
from rdev.verb import Verbs

if TYPE_CHECKING:
    from rdev.output import Console

_HEADERS = ("SESSION", "STATE", "COMMANDS", "TURNS", "COST", "USED", "MODEL")
_FIELDS = ("id", "project", "state", "busy_with", "waiting", "forked_from", "model", "commands")
_MORE_FIELDS = ("first_command", "last_command", "started_at", "last_used_at")


@click.group(cls=Verbs)
def sessions() -> None:
    """List claude's sessions in a project, or show one."""


@sessions.command("ls", examples=("rdev sessions ls -p demo", "rdev sessions ls --limit 5 -o json"))
@project_option
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most."
)
@output_option()
@click.pass_obj
def ls(app: App, /, project: str | None, limit: int, mode: str) -> int:
    """List the sessions of a project, the last used first."""
    with app.connect() as api:
        name = app.project(api, project)
        items = list(api.pages(f"/v1/projects/{quote(name, safe='')}/sessions", {}, limit=limit))
    now = dt.datetime.now(dt.UTC)
    rows = (_row(item, now) for item in items)
    empty = f"no session yet; start one with `rdev claude -p {printable(name)} PROMPT`"
    print_items(app.console, items, mode, _HEADERS, rows, empty=empty)
    return 0


@sessions.command(
    "show",
    examples=(
        "rdev sessions show -p demo 0190f3c2",
        "rdev sessions show -p demo 0190f3c2-a4b8-7c0e-9a5d-1f2e3c4b5a69 -o json",
    ),
)
@project_option
@output_option()
@click.argument("session", type=TEXT, metavar="ID")
@click.pass_obj
def show(app: App, /, project: str | None, session: str, mode: str) -> int:
    """Show a session: who holds it, how many turns it took and what it cost."""
    with app.connect() as api:
        name = app.project(api, project)
        identifier = quote(ids.session_id(api, name, session), safe="")
        found = api.get(f"/v1/projects/{quote(name, safe='')}/sessions/{identifier}").object
    if mode == "text":
        _print_session(app.console, found)
    else:
        app.console.json(found, compact=mode == "jsonl")
    return 0


def _row(item: dict[str, Any], now: dt.datetime) -> tuple[str, ...]:
    waiting = item.get("waiting")
    return (
        _text(item.get("id")),
        _text(item.get("state")) + (f" +{waiting}" if waiting else ""),
        _text(item.get("commands")),
        _text(item.get("turns")),
        _dollars(item.get("cost_usd")),
        age(parse_time(item.get("last_used_at")), now),
        _text(item.get("model")),
    )


def _print_session(console: Console, item: dict[str, Any]) -> None:
    rows = [(name, _text(item.get(name))) for name in _FIELDS]
    rows += [("turns", _text(item.get("turns"))), ("cost", _dollars(item.get("cost_usd")))]
    rows += [(name, _text(item.get(name))) for name in _MORE_FIELDS]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        console.line(f"{name.replace('_', ' ').ljust(width)}  {value}")
    project, session = _text(item.get("project")), _text(item.get("id"))
    console.say(f"go on with `rdev claude -p {project} --session {session}`")


def _dollars(value: object) -> str:
    return f"${value:.4f}" if isinstance(value, int | float) else "-"


def _text(value: object) -> str:
    return "-" if value is None or value == "" else printable(str(value))
