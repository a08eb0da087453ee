"""`rdev run`: a shell command in a project, as if it ran here."""

from __future__ import annotations

from typing import Any

import click

from rdev.app import App
from rdev.errors import WrongUsage
from rdev.options import TEXT, submit_options
from rdev.submission import Wishes, submit
from rdev.verb import Verb


@click.command(
    cls=Verb,
    examples=(
        "rdev run -p demo -- sh -c 'for i in 1 2 3; do echo $i; sleep 1; done'",
        "rdev run -p demo --timeout 5m --script 'git status && ls -l'",
    ),
    context_settings={"allow_interspersed_args": False},
)
@submit_options
@click.option("--script", type=TEXT, help="A script for sh, instead of CMD.")
@click.argument("argv", nargs=-1, type=TEXT, metavar="[--] [CMD [ARG]…]")
@click.pass_obj
def run(app: App, /, script: str | None, argv: tuple[str, ...], **wishes: Any) -> int:
    """Run a command in a project, stream its output, and exit with its exit code."""
    if bool(argv) == (script is not None):
        raise WrongUsage("say what to run: either CMD or --script TEXT")
    what = {"script": script} if script is not None else {"argv": list(argv)}
    return submit(app, Wishes(**wishes), {"kind": "shell", **what, "streams": "separate"})
