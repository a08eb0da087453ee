"""`rdev git`: git in a project's repository."""

from __future__ import annotations

from typing import Any

import click

from rdev.app import App
from rdev.options import TEXT, submit_options
from rdev.submission import Wishes, submit
from rdev.verb import Verb


@click.command(
    cls=Verb,
    examples=("rdev git -p demo -- log --oneline -5", "rdev git -p demo status"),
    context_settings={"allow_interspersed_args": False},
)
@submit_options
@click.argument("args", nargs=-1, required=True, type=TEXT, metavar="[--] ARG…")
@click.pass_obj
def git(app: App, /, args: tuple[str, ...], **wishes: Any) -> int:
    """Run git in a project, stream its output, and exit with its exit code."""
    return submit(app, Wishes(**wishes), {"kind": "git", "args": list(args), "streams": "separate"})
