"""`rdev approvals`: what claude asks for, and what it is told."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import click

from rdev import approving, ids
from rdev.app import App
from rdev.errors import WrongUsage
from rdev.listing import print_items
from rdev.options import TEXT, output_option
from rdev.text import age, parse_time, printable, seconds_as_text
from rdev.verb import Verbs

if TYPE_CHECKING:
    from rdev.http import Api

_HEADERS = ("TOOL USE", "STATE", "WHEN", "WHAT")
_MOST = 10_000


@click.group(cls=Verbs)
def approvals() -> None:
    """List what a claude command asks for, allow it, or deny it."""


@approvals.command(
    "ls",
    examples=(
        "rdev approvals ls $(rdev ps -q -n 1)",
        "rdev approvals ls $(rdev ps -q -n 1) -o json",
    ),
)
@output_option()
@click.argument("identifier", type=TEXT, metavar="ID")
@click.pass_obj
def ls(app: App, /, identifier: str, mode: str) -> int:
    """List the permission requests of a command, as they came."""
    with app.connect() as api:
        items = _all(api, ids.command_id(api, identifier))
    now = dt.datetime.now(dt.UTC)
    rows = (_row(item, now) for item in items)
    print_items(app.console, items, mode, _HEADERS, rows, empty="it has asked for nothing")
    return 0


@approvals.command(
    "allow",
    examples=(
        "rdev approvals allow $(rdev ps -q -n 1)",
        "rdev approvals allow $(rdev ps -q -n 1) toolu_01A09q90qw90lq917835lq9",
    ),
)
@output_option()
@click.argument("identifier", type=TEXT, metavar="ID")
@click.argument("tool_use_id", type=TEXT, required=False, metavar="[TOOL_USE_ID]")
@click.pass_obj
def allow(app: App, /, identifier: str, tool_use_id: str | None, mode: str) -> int:
    """Let claude do what it asks for; without TOOL_USE_ID, the one thing that is pending."""
    return _decide(app, identifier, tool_use_id, {"decision": "allow"}, mode)


@approvals.command(
    "deny",
    examples=(
        "rdev approvals deny $(rdev ps -q -n 1)",
        "rdev approvals deny $(rdev ps -q -n 1) --message 'Ask the owner first.'",
    ),
)
@click.option("--message", type=TEXT, help="What claude is told about it.")
@output_option()
@click.argument("identifier", type=TEXT, metavar="ID")
@click.argument("tool_use_id", type=TEXT, required=False, metavar="[TOOL_USE_ID]")
@click.pass_obj
def deny(
    app: App, /, identifier: str, tool_use_id: str | None, message: str | None, mode: str
) -> int:
    """Do not let claude do it; without TOOL_USE_ID, the one thing that is pending."""
    said = {"message": message} if message else {}
    return _decide(app, identifier, tool_use_id, {"decision": "deny", **said}, mode)


def _decide(
    app: App, identifier: str, tool_use_id: str | None, decision: dict[str, str], mode: str
) -> int:
    with app.connect() as api:
        command_id = ids.command_id(api, identifier)
        chosen = tool_use_id or _only_one(_all(api, command_id))
        answer = approving.decide(api, command_id, chosen, decision)
    if mode == "text":
        app.console.line(f"{printable(chosen)} {printable(str(answer.get('state')))}")
    else:
        app.console.json(answer, compact=mode == "jsonl")
    return 0


def _all(api: Api, command_id: str) -> list[Any]:
    return list(api.pages(f"/v1/commands/{command_id}/approvals", {}, limit=_MOST))


def _only_one(items: list[Any]) -> str:
    pending = [str(item.get("tool_use_id")) for item in items if item.get("state") == "pending"]
    if len(pending) == 1:
        return pending[0]
    if not pending:
        raise WrongUsage("nothing is pending there", hint="`rdev approvals ls` shows what was")
    raise WrongUsage(f"several are pending, name one: {', '.join(map(printable, pending))}")


def _row(item: dict[str, Any], now: dt.datetime) -> tuple[str, ...]:
    state = str(item.get("state"))
    expires = parse_time(item.get("expires_at"))
    left = f"{seconds_as_text((expires - now).total_seconds())} left" if expires else "-"
    decided = age(parse_time(item.get("decided_at")), now)
    return (
        printable(str(item.get("tool_use_id"))),
        printable(state),
        left if state == "pending" else decided,
        approving.wish(item),
    )
