"""`rdev up`: all of rdev on this machine."""

from __future__ import annotations

import importlib
from typing import cast

import click

from rdev.app import App
from rdev.errors import WrongUsage
from rdev.verb import Verb

_LOCAL = "infra.local.main"


@click.command(
    cls=Verb,
    examples=(
        "rdev up",
        "rdev up --port 9000 --home /tmp/rdev-second",
    ),
)
@click.option("--port", type=click.IntRange(0, 65535), help="Port; by default RDEV_PORT or 8080.")
@click.option("--home", metavar="DIR", help="Where state is kept; by default RDEV_HOME or .rdev.")
@click.option("--keep-running", is_flag=True, help="Leave commands running at Ctrl-C.")
@click.option("--kubernetes", is_flag=True, help="Run commands in a cluster's pods.")
@click.option("--context", metavar="NAME", help="Context of the kubeconfig, with --kubernetes.")
@click.option("--namespace", metavar="NAME", help="Namespace of the pods, with --kubernetes.")
@click.option("--json", "as_json", is_flag=True, help="Log as JSON lines.")
@click.pass_obj
def up(
    app: App,
    /,
    port: int | None,
    home: str | None,
    keep_running: bool,
    kubernetes: bool,
    context: str | None,
    namespace: str | None,
    as_json: bool,
) -> int:
    """Run all of rdev on this machine, in the foreground, until Ctrl-C."""
    del app
    argv = [] if port is None else ["--port", str(port)]
    argv += [] if home is None else ["--home", home]
    argv += ["--keep-running"] if keep_running else []
    argv += _cluster(kubernetes, context, namespace)
    argv += ["--json"] if as_json else []
    return _run_local(argv)


def _cluster(kubernetes: bool, context: str | None, namespace: str | None) -> list[str]:
    if not kubernetes and (context or namespace):
        raise WrongUsage("--context and --namespace go with --kubernetes")
    argv = ["--kubernetes"] if kubernetes else []
    argv += [] if context is None else ["--context", context]
    return argv + ([] if namespace is None else ["--namespace", namespace])


def _run_local(argv: list[str]) -> int:
    # The server side is imported by nobody else here: this one verb runs it, the others talk to it.
    try:
        local = importlib.import_module(_LOCAL)
    except ModuleNotFoundError as error:
        if error.name is None or not _LOCAL.startswith(error.name):
            raise
        raise WrongUsage(
            "this installation has only the command line, not the server",
            hint="run `rdev up` from a checkout or from the full package",
        ) from error
    return cast(int, local.main(argv))
