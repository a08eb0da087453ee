"""The `rdev` command: its verbs, in the order in which a person meets them.

`cli` is a plain click tree, so that the reference can be generated and tests can walk it. `main`
is the entry point; it returns the exit code of exit_codes.py, whatever happened.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from rdev import exit_codes
from rdev.app import App
from rdev.commands.approvals import approvals
from rdev.commands.audit import audit
from rdev.commands.cancel import cancel
from rdev.commands.claude import claude
from rdev.commands.config import config
from rdev.commands.doctor import doctor
from rdev.commands.events import events
from rdev.commands.git import git
from rdev.commands.keys import keys
from rdev.commands.login import login
from rdev.commands.logs import logs
from rdev.commands.migrate import migrate
from rdev.commands.projects import projects
from rdev.commands.ps import ps
from rdev.commands.queue import queue
from rdev.commands.retry import retry
from rdev.commands.run import run
from rdev.commands.sessions import sessions
from rdev.commands.show import show
from rdev.commands.triggers import triggers
from rdev.commands.up import up
from rdev.commands.usage import usage
from rdev.commands.wait import wait
from rdev.commands.webhooks import webhooks
from rdev.commands.whoami import whoami
from rdev.verb import Root


@click.group(cls=Root)
@click.version_option(package_name="rdev", message="rdev %(version)s")
def cli() -> None:
    """Run claude, shell and git commands in long-lived project workspaces."""


for _verb in (
    up, doctor, run, claude, git,
    ps, show, logs, wait, cancel, retry,
    projects, config, sessions, approvals, queue, usage,
    triggers, events, webhooks, keys, audit, login, whoami, migrate,
):  # fmt: skip
    cli.add_command(_verb)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    app = App.from_environment()
    try:
        return int(cli.main(argv, prog_name="rdev", standalone_mode=False, obj=app) or 0)
    except click.UsageError as error:
        error.show()
        return exit_codes.USAGE
    except click.ClickException as error:
        error.show()
        return exit_codes.FAILED
    except click.Abort:
        return exit_codes.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
