"""`rdev keys`: who may do what."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import click

from rdev import ids
from rdev.app import App
from rdev.errors import OutcomeUnknown, ServerFault, WrongUsage
from rdev.listing import print_items
from rdev.options import DURATION, RATE, TEXT, output_option
from rdev.text import age, parse_time, printable
from rdev.verb import Verbs

if TYPE_CHECKING:
    from rdev.output import Console

_MOST = 10_000


@click.group(cls=Verbs)
def keys() -> None:
    """Create, list, change, rotate and revoke API keys."""


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
@click.option("--rate-limit", type=RATE, help="Most requests in a time, such as 100/1m.")
@click.option("--max-concurrent", type=click.IntRange(min=1), help="Most commands at once.")
@output_option()
@click.argument("name", type=TEXT, metavar="NAME")
@click.pass_obj
def create(app: App, /, mode: str, expires_in: int | None, **values: Any) -> int:
    """Create a key and print it; it is shown this once and never again."""
    body = {name: _plain(value) for name, value in values.items() if value not in (None, ())}
    if expires_in is not None:
        body["expires_at"] = _expiry(expires_in)
    with app.connect() as api:
        key = api.create("/v1/keys", body, starting=False).object
    _print_secret(app.console, key, mode)
    return 0


@keys.command(
    "show",
    examples=("rdev keys show key_0190f3c2", "rdev keys show key_0190f3c2 -o json"),
)
@output_option()
@click.argument("identifier", type=TEXT, metavar="ID")
@click.pass_obj
def show(app: App, /, identifier: str, mode: str) -> int:
    """Show one key, without its secret."""
    with app.connect() as api:
        key = api.get(f"/v1/keys/{ids.key_id(api, identifier)}").object
    _print_key(app.console, key, mode)
    return 0


@keys.command(
    "update",
    examples=(
        "rdev keys update key_0190f3c2 --allowed-ip 10.0.0.0/8",
        "rdev keys update key_0190f3c2 --all-projects --expires-in 30d",
    ),
)
@click.option("--name", type=TEXT, help="Another name.")
@click.option("--scope", "scopes", type=TEXT, multiple=True, help="All its rights; repeat.")
@click.option("--project", "projects", type=TEXT, multiple=True, help="All its projects; repeat.")
@click.option("--all-projects", is_flag=True, help="Every project.")
@click.option(
    "--allowed-ip", "allowed_ips", type=TEXT, multiple=True, help="All its addresses; repeat."
)
@click.option("--any-ip", is_flag=True, help="From everywhere.")
@click.option("--expires-in", type=DURATION, help="How long it works from now on, such as 30d.")
@click.option("--never-expires", is_flag=True, help="It works until it is revoked.")
@click.option("--rate-limit", type=RATE, help="Most requests in a time, such as 100/1m.")
@click.option("--max-concurrent", type=click.IntRange(min=1), help="Most commands at once.")
@click.option("--no-max-concurrent", is_flag=True, help="As many commands as there is room for.")
@output_option()
@click.argument("identifier", type=TEXT, metavar="ID")
@click.pass_obj
def update(app: App, /, identifier: str, mode: str, **given: Any) -> int:
    """Change a key from its next request on; what is not named stays."""
    body = _changes(**given)
    with app.connect() as api:
        key = api.patch(f"/v1/keys/{ids.key_id(api, identifier)}", body).object
    _print_key(app.console, key, mode)
    return 0


def _changes(
    *,
    all_projects: bool,
    any_ip: bool,
    never_expires: bool,
    no_max_concurrent: bool,
    expires_in: int | None,
    **values: Any,
) -> dict[str, Any]:
    """The body of an update. Raises WrongUsage for nothing, and for two answers to one question."""
    body = {name: _plain(value) for name, value in values.items() if value not in (None, ())}
    if expires_in is not None:
        body["expires_at"] = _expiry(expires_in)
    wide: tuple[tuple[bool, str, Any], ...] = (
        (all_projects, "projects", None),
        (any_ip, "allowed_ips", []),
        (never_expires, "expires_at", None),
        (no_max_concurrent, "max_concurrent", None),
    )
    for wanted, name, value in wide:
        if wanted and name in body:
            raise WrongUsage(f"{name.replace('_', ' ')}: give either values or none")
        if wanted:
            body[name] = value
    if not body:
        raise WrongUsage("nothing to change", hint="`rdev keys update --help` lists what can be")
    return body


@keys.command(
    "rotate",
    examples=(
        "rdev keys rotate key_0190f3c2",
        "rdev keys rotate key_0190f3c2 --grace 1h -o json",
    ),
)
@click.option("--grace", type=DURATION, help="How long the old key still works.  [default: 1d]")
@output_option()
@click.argument("identifier", type=TEXT, metavar="ID")
@click.pass_obj
def rotate(app: App, /, identifier: str, grace: int | None, mode: str) -> int:
    """Replace a key by a new one with the same rights, and print that; it is shown this once."""
    body = {} if grace is None else {"grace_s": grace}
    with app.connect() as api:
        path = f"/v1/keys/{ids.key_id(api, identifier)}/rotate"
        key = api.create(path, body, starting=False).object
    _print_secret(app.console, key, mode)
    return 0


def _print_secret(console: Console, key: dict[str, Any], mode: str) -> None:
    if not key.get("key"):
        raise _secret_lost(key)
    if mode == "text":
        console.line(str(key["key"]))
        console.say(f"this is {key.get('id')}; it is not shown again")
    else:
        console.json(key, compact=mode == "jsonl")


def _print_key(console: Console, key: dict[str, Any], mode: str) -> None:
    if mode != "text":
        console.json(key, compact=mode == "jsonl")
        return
    rate, now = key.get("rate_limit"), dt.datetime.now(dt.UTC)
    facts = {
        "id": _id(key),
        "name": key.get("name"),
        "prefix": key.get("prefix"),
        "state": _state(key, now),
        "scopes": _words(key.get("scopes"), "none"),
        "projects": _words(key.get("projects"), "all"),
        "addresses": _words(key.get("allowed_ips"), "everywhere"),
        "expires at": key.get("expires_at") or "never",
        "rate limit": f"{rate['limit']}/{rate['window_s']}s" if rate else "none",
        "at once": key.get("max_concurrent") or "no limit",
        "created at": key.get("created_at"),
        "last used": key.get("last_used_at") or "never",
        "replaced by": key.get("replaced_by") or "-",
    }
    for name, value in facts.items():
        console.line(f"{name.ljust(11)}  {printable(str(value))}")


def _words(values: Any, none: str) -> str:
    return " ".join(map(str, values)) if values else none


def _expiry(seconds: int) -> str:
    at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


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
@output_option()
@click.pass_obj
def ls(app: App, /, name: str | None, quiet: bool, mode: str) -> int:
    """List the keys, without their secrets."""
    with app.connect() as api:
        items = list(api.pages("/v1/keys", {}, limit=_MOST))
    items = [item for item in items if name is None or item.get("name") == name]
    if quiet:
        for item in items:
            app.console.line(_id(item))
        return 0
    now = dt.datetime.now(dt.UTC)
    headers = ("ID", "NAME", "PREFIX", "STATE", "LAST USED", "PROJECTS", "SCOPES")
    empty = "no key; `rdev keys create NAME --scope commands:read` makes one"
    rows = (_row(item, now) for item in items)
    print_items(app.console, items, mode, headers, rows, empty=empty)
    return 0


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
