"""`rdev whoami`: which server, and which key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rdev.app import App
from rdev.errors import NotAllowed
from rdev.options import output_option
from rdev.text import printable
from rdev.verb import Verb

if TYPE_CHECKING:
    from rdev.http import Api

_MOST = 10_000


@click.command(
    cls=Verb,
    examples=("rdev whoami", "rdev whoami -o json"),
)
@output_option()
@click.pass_obj
def whoami(app: App, /, mode: str) -> int:
    """Show which server and which key are used here, without the key's secret."""
    with app.connect() as api:
        api.get("/v1/projects")
        facts = {
            "url": api.server.url,
            "url_from": api.server.source,
            "key": f"{key_prefix(api.server.api_key)}…",
            "key_from": api.server.key_source,
            "project": api.server.project,
            **_rights(api),
        }
    if mode == "text":
        for name, value in facts.items():
            app.console.line(f"{name.replace('_', ' ').ljust(8)}  {printable(str(value or '-'))}")
    else:
        app.console.json(facts, compact=mode == "jsonl")
    return 0


def key_prefix(key: str | None) -> str:
    """The public part of a key, `rdev_<8 characters>`: it names the key and opens nothing."""
    head, _, rest = (key or "").partition("_")
    name, separator, _ = rest.partition("_")
    return f"{head}_{name}" if head == "rdev" and separator else "a key of another form"


def _rights(api: Api) -> dict[str, Any]:
    """Name and scopes, which only a key that administers keys can look up."""
    prefix = key_prefix(api.server.api_key)
    try:
        keys = list(api.pages("/v1/keys", {}, limit=_MOST))
    except NotAllowed:
        return {"scopes": "unknown: this key may not list keys"}
    for key in keys:
        if isinstance(key, dict) and str(key.get("prefix", "")) in (prefix, prefix[5:]):
            scopes = key.get("scopes")
            shown = " ".join(map(str, scopes)) if isinstance(scopes, list) else None
            return {"name": key.get("name"), "scopes": shown}
    return {"scopes": "unknown: this key is not in the list"}
