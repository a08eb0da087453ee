"""`rdev usage`: what was used, by whom and for what."""

from __future__ import annotations

import click

from rdev.app import App
from rdev.errors import ServerFault
from rdev.listing import print_items
from rdev.options import TEXT, output_option
from rdev.text import printable
from rdev.verb import Verb

_FIELDS = {"project": "project", "key": "key_id", "model": "model", "day": "day"}
_SUMS = ("commands", "seconds", "cost_usd", "input_tokens", "output_tokens")


@click.command(cls=Verb, examples=("rdev usage", "rdev usage --by model --by day -p demo -o json"))
@click.option(
    "--by",
    type=click.Choice(list(_FIELDS)),
    multiple=True,
    default=("project", "day"),
    show_default=True,
    help="What the sums are told apart by; repeat.",
)
@click.option("-p", "--project", type=TEXT, help="Only this project.")
@click.option("--key", type=TEXT, help="Only this key, by its whole id.")
@click.option("--model", type=TEXT, help="Only this model.")
@click.option("--since", type=TEXT, help="From this moment on; by default the last 30 days.")
@click.option("--until", type=TEXT, help="Before this moment.")
@output_option()
@click.pass_obj
def usage(app: App, /, by: tuple[str, ...], mode: str, **filters: str | None) -> int:
    """Sum up ended commands: how many, seconds, cost and tokens."""
    asked = [(name, value) for name, value in filters.items() if value is not None]
    with app.connect() as api:
        answer = api.get_all("/v1/usage", [*asked, *(("by", name) for name in by)]).object
    items = answer.get("items")
    if not isinstance(items, list):
        raise ServerFault("the server's answer is not a list; is this an rdev server?")
    names = [_FIELDS[name] for name in _FIELDS if name in by]
    headers = [n.upper() for n in _FIELDS if n in by] + [n.replace("_", " ").upper() for n in _SUMS]
    rows = (
        (*(printable(str(i.get(n) or "-")) for n in names), *(_number(n, i.get(n)) for n in _SUMS))
        for i in items
    )
    print_items(app.console, items, mode, headers, rows, empty="nothing ended in that time")
    return 0


def _number(name: str, value: object) -> str:
    if name == "cost_usd" and isinstance(value, int | float):
        return f"{value:.4f}"  # one command often costs less than a cent
    return f"{value:.2f}" if isinstance(value, float) else printable(str(value))
