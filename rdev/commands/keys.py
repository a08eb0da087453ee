"""`rdev keys`: who may do what."""

from __future__ import annotations

import datetime as dt
import re
import shutil
from typing import TYPE_CHECKING, Any

import click

from rdev import ids
from rdev.app import App
from rdev.errors import OutcomeUnknown, ServerFault
from rdev.options import DURATION, TEXT, output_option
from rdev.table import render
from rdev.text import age, parse_duration, parse_time, printable
from rdev.verb import Verbs

if TYPE_CHECKING:
    from rdev.output import Console

_MOST = 10_000
_RATE = re.compile(r"([0-9]{1,7})/(\w+)")


class Rate(click.ParamType[dict[str, int]]):
    """`100/60` or `100/1m`: that many requests in that time."""

    name = "n/duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, int]:
        """As the API writes it; a usage error for anything else."""
        if isinstance(value, dict):
            return value
        match = _RATE.fullmatch(value)
        if match is None:
            self.fail("write it as 100/60 or 100/1m", param, ctx)
        try:
            return {"limit": int(match[1]), "window_s": parse_duration(match[2])}
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.group(cls=Verbs)
def keys() -> None:
    """Create, list and revoke API keys."""


@keys.command(
    "create",
    examples=(
        "rdev keys create ci --scope commands:write --scope commands:read --project demo",
        "rdev keys create reader --scope commands:read --expires-in 30d -o json",
    ),
)
@click.option(
    "--scope", "scopes", type=TEXT, multiple=True, required=True, help="A right; repeat for more."
)
@click.option("--project", "projects", type=TEXT, multiple=True, help="Only in this project.")
@click.option(
    "--allowed-ip",
    "allowed_ips",
    type=TEXT,
    multiple=True,
    help="Only from there, such as 10.0.0.0/8.",
)
@click.option("--expires-in", type=DURATION, help="How long it works, such as 30d.")
@click.option("--rate-limit", type=Rate(), help="Most requests in a time, such as 100/1m.")
@click.option("--max-concurrent", type=click.IntRange(min=1), help="Most commands at once.")
@output_option(("text", "json", "jsonl"))
@click.argument("name", type=TEXT, metavar="NAME")
@click.pass_obj
def create(app: App, /, mode: str, expires_in: int | None, **values: Any) -> int:
    """Create a key and print it; it is shown this once and never again."""
    body = {name: _plain(value) for name, value in values.items() if value not in (None, ())}
    if expires_in is not None:
        expiry = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=expires_in)
        body["expires_at"] = expiry.isoformat(timespec="seconds").replace("+00:00", "Z")
    with app.connect() as api:
        key = api.create("/v1/keys", body, starting=False).object
    if not key.get("key"):
        raise _secret_lost(key)
    if mode == "text":
        app.console.line(str(key["key"]))
        app.console.say(f"this is {key.get('id')}; it is not shown again")
    else:
        app.console.json(key, compact=mode == "jsonl")
    return 0


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _secret_lost(key: dict[str, Any]) -> OutcomeUnknown:
    """The first answer was lost, and the server shows a secret only once."""
    identifier = _id(key)
    return OutcomeUnknown(
        f"{identifier} was created, but the answer that held the key was lost on the way",
        hint=f"remove it with `rdev keys revoke {identifier}` and create another",
    )


def _id(key: Any) -> str:
    if isinstance(key, dict) and isinstance(key.get("id"), str):
        return str(key["id"])
    raise ServerFault("the server's answer is not a key; is this an rdev server?")


@keys.command(
    "ls",
    examples=("rdev keys ls", "rdev keys ls -q --name ci"),
)
@click.option("--name", type=TEXT, help="Only keys of this name.")
@click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
@output_option(("text", "json", "jsonl"))
@click.pass_obj
def ls(app: App, /, name: str | None, quiet: bool, mode: str) -> int:
    """List the keys, without their secrets."""
    with app.connect() as api:
        items = list(api.pages("/v1/keys", {}, limit=_MOST))
    items = [item for item in items if name is None or item.get("name") == name]
    if quiet:
        for item in items:
            app.console.line(_id(item))
    elif mode == "json":
        app.console.json({"items": items})
    elif mode == "jsonl":
        for item in items:
            app.console.json(item, compact=True)
    else:
        _print_table(app.console, items)
    return 0


def _print_table(console: Console, items: list[Any]) -> None:
    if not items:
        console.say("no key; `rdev keys create NAME --scope commands:read` makes one")
        return
    now = dt.datetime.now(dt.UTC)
    width = shutil.get_terminal_size().columns if console.out_is_terminal else None
    headers = ("ID", "NAME", "PREFIX", "STATE", "LAST USED", "PROJECTS", "SCOPES")
    for line in render(headers, [_row(item, now) for item in items], width=width):
        console.line(line)


def _row(key: Any, now: dt.datetime) -> tuple[str, ...]:
    identifier = _id(key)
    projects = key.get("projects")
    return (
        identifier,
        printable(str(key.get("name") or "-")),
        printable(str(key.get("prefix") or "-")),
        _state(key, now),
        age(parse_time(key.get("last_used_at")), now),
        printable(" ".join(map(str, projects))) if projects is not None else "all",
        printable(" ".join(map(str, key.get("scopes") or []))),
    )


def _state(key: dict[str, Any], now: dt.datetime) -> str:
    if key.get("revoked_at"):
        return "revoked"
    expires = parse_time(key.get("expires_at"))
    return "expired" if expires is not None and expires <= now else "valid"


@keys.command(
    "revoke",
    examples=(
        "rdev keys revoke $(rdev keys ls -q --name ci)",
        "rdev keys ls -q --name ci | xargs rdev keys revoke",
    ),
)
@click.argument("identifiers", nargs=-1, required=True, metavar="ID…")
@click.pass_obj
def revoke(app: App, /, identifiers: tuple[str, ...]) -> int:
    """Revoke keys: they stop working with the next request."""
    with app.connect() as api:
        wanted = [ids.key_id(api, text) for text in identifiers]
        for key_id in wanted:
            api.delete(f"/v1/keys/{key_id}")
            app.console.line(f"{key_id} revoked")
    return 0
