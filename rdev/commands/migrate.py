"""`rdev migrate`: bring the database up to date."""

from __future__ import annotations

import subprocess
import sys

import click

from rdev.app import App
from rdev.verb import Verb


@click.command(
    cls=Verb,
    examples=(
        "RDEV_DATABASE_URL=postgresql://rdev@localhost/rdev rdev migrate",
        "rdev migrate --admin-key-file ./admin.key",
    ),
)
@click.option(
    "--admin-key-file", metavar="PATH", help="Make sure that the admin key in this file exists."
)
@click.pass_obj
def migrate(app: App, /, admin_key_file: str | None) -> int:
    """Bring the database of RDEV_DATABASE_URL up to date; safe to run twice."""
    del app
    # Its own process: the command line imports no server code, and the environment decides there
    # exactly as it does in the cluster's Job.
    command = [sys.executable, "-m", "common.entrypoints.migrate"]
    if admin_key_file is not None:
        command += ["--admin-key-file", admin_key_file]
    code = subprocess.run(command, check=False).returncode
    return code if code >= 0 else 128 - code
