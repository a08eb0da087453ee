"""`rdev login`: remember a server and its key."""

from __future__ import annotations

import getpass
import sys

import click

from rdev.app import App
from rdev.errors import WrongUsage
from rdev.options import TEXT
from rdev.profiles import Profile
from rdev.settings import Server, checked_url
from rdev.verb import Verb


@click.command(
    cls=Verb,
    examples=(
        "rdev login --url http://127.0.0.1:8080 < .rdev/admin.key",
        "rdev login --url http://127.0.0.1:8080 --profile laptop --project demo < .rdev/admin.key",
    ),
)
@click.option("--url", type=TEXT, required=True, help="The server, such as https://rdev.example.")
@click.option("--profile", type=TEXT, default="default", show_default=True, help="A name for it.")
@click.option("--project", type=TEXT, help="The project to use when none is named.")
@click.pass_obj
def login(app: App, /, url: str, profile: str, project: str | None) -> int:
    # httpx, by way of rdev.http, is imported only once there is something to ask a server.
    """Remember a server and a key for it, which is asked for or read from standard input."""
    from rdev.http import Api

    address = checked_url(url, "--url")
    key = _ask_for_key()
    with Api(Server(address, "--url", key, "the given key"), tell=app.console.say) as api:
        api.get("/v1/projects")
    store = app.settings.profiles
    store.put(Profile(profile, address, key, project))
    app.console.say(f"profile {profile} is kept in {store.path}")
    return 0


def _ask_for_key() -> str:
    text = getpass.getpass("API key: ") if sys.stdin.isatty() else sys.stdin.readline()
    key = text.strip()
    if not key:
        raise WrongUsage("no key was given")
    return key
