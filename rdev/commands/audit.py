"""`rdev audit`: who did what, and whether the record of it is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rdev import exit_codes
from rdev.app import App
from rdev.listing import print_items
from rdev.options import TEXT, output_option
from rdev.text import printable
from rdev.verb import Verbs

if TYPE_CHECKING:
    from collections.abc import Callable


_ALL = 1 << 40


def _filters(function: Callable[..., Any]) -> Callable[..., Any]:
    """What `ls` and `export` have in common."""
    options = (
        click.option("-p", "--project", type=TEXT, help="Only this project."),
        click.option("--key", type=TEXT, help="Only what this key did, by its whole id."),
        click.option("--action", type=TEXT, help="Only this action, such as key.revoked."),
        click.option("--target", type=TEXT, help="Only what was done to this, by its whole id."),
        click.option("--since", type=TEXT, help="From this moment on, such as 2026-01-31T00:00Z."),
        click.option("--until", type=TEXT, help="Before this moment."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.group(cls=Verbs)
def audit() -> None:
    """List, export and verify the record of who did what."""


@audit.command(
    "ls",
    examples=("rdev audit ls --action key.revoked", "rdev audit ls -p demo --limit 200 -o jsonl"),
)
@_filters
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most."
)
@output_option()
@click.pass_obj
def ls(app: App, /, limit: int, mode: str, **filters: str | None) -> int:
    """List what was done and what was refused, newest first."""
    with app.connect() as api:
        items = list(api.pages("/v1/audit", _given(filters), limit=limit))
    headers = ("AT", "KEY", "ACTION", "TARGET", "PROJECT", "ADDRESS")
    names = ("at", "key_id", "action", "target", "project", "client_ip")
    rows = (tuple(printable(str(item.get(name) or "-")) for name in names) for item in items)
    print_items(app.console, items, mode, headers, rows, empty="no entry fits")
    return 0


@audit.command(
    "export",
    examples=("rdev audit export > audit.ndjson", "rdev audit export --since 2026-01-01T00:00Z"),
)
@_filters
@click.pass_obj
def export(app: App, /, **filters: str | None) -> int:
    """Print every entry as a line of JSON, newest first."""
    with app.connect() as api:
        for item in api.pages("/v1/audit", _given(filters), limit=_ALL):
            app.console.json(item, compact=True)
    return 0


@audit.command(
    "verify",
    examples=("rdev audit verify", "rdev audit verify -o json"),
)
@output_option()
@click.pass_obj
def verify(app: App, /, mode: str) -> int:
    """Check the chain that seals the record; exits 1 and names the first broken entry."""
    with app.connect() as api:
        verdict = api.get("/v1/audit/verify").object
    broken = verdict.get("broken")
    if mode != "text":
        app.console.json(verdict, compact=mode == "jsonl")
    elif isinstance(broken, dict):
        app.console.line(f"broken: {broken.get('id')} ({broken.get('reason')})")
    else:
        head = verdict.get("head") or {}
        app.console.line(f"whole: {verdict.get('checked')} entries, up to {_head(head)}")
    return 0 if verdict.get("ok") is True else exit_codes.FAILED


def _head(head: dict[str, Any]) -> str:
    return printable(f"{head.get('seq')}:{head.get('hash')}")


def _given(filters: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in filters.items() if value is not None}
