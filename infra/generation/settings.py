"""docs/reference/settings.md: every environment variable rdev reads."""

from __future__ import annotations

from dataclasses import fields
from pathlib import PurePosixPath
from typing import Any, Final

from common.settings import Settings
from infra.generation.markdown import page, table

PATH: Final = PurePosixPath("docs/reference/settings.md")

# What other programs of rdev read, by who reads it; a test finds any variable that is missing here.
PROCESS: Final = {
    "FUNCTION_SOURCE": "path of the function's `main.py`",
    "FUNCTION_TARGET": "always `handle`",
    "PORT": "port to listen on; default 8080",
    "RDEV_HOST": "address to listen on; default `0.0.0.0`, on a laptop `127.0.0.1`",
    "OTEL_*": "OpenTelemetry's own variables; without an exporter named there, nothing is sent",
}
LAPTOP: Final = {
    "RDEV_PORT": "port of `rdev up`; default 8080, 0 is any free one",
    "RDEV_HOME": "where `rdev up` keeps its state; default `.rdev`",
    "RDEV_TICK_S": "seconds between two repairs; default 5",
    "RDEV_IDLE_S": "seconds without requests after which a function goes to zero; default 30",
    "RDEV_ZYGOTE": "`0`: start each function as a new interpreter instead of a fork",
    "RDEV_DATABASE_URL": "use this PostgreSQL instead of the embedded one",
    "RDEV_BROKER_FAULTS": (
        "for tests: `seed=7,drop=0.1,double=0.1,reorder=0.1,delay=0.05`, the share of deliveries "
        "that each happens to"
    ),
    "RDEV_PG_BIN": "folder of PostgreSQL's programs to use instead of the wheel's",
}
COMMAND_LINE: Final = {
    "RDEV_URL": "the server to talk to",
    "RDEV_API_KEY": "the key to show it; only ever sent to `RDEV_URL` or the server found",
    "RDEV_PROJECT": "the project to work in when none is named",
    "RDEV_PROFILE": "the profile to use (`rdev login`)",
    "XDG_CONFIG_HOME": "where profiles are kept, in `rdev/profiles.json`; default `~/.config`",
    "NO_COLOR": "set: no colours",
}
INSIDE: Final = {
    "RDEV_COMMAND_ID": "id of the command, for the programs it starts",
}
CLUSTER: Final = {
    "RDEV_PG_MAX_CONNECTIONS": (
        "`max_connections` of the server; `make generate` refuses scales that need more"
    ),
}


def files() -> dict[PurePosixPath, str]:
    """The page."""
    rows = [
        [f"`{f.metadata['variable']}`", _default(f.default), f.metadata["what"]]
        for f in fields(Settings)
    ]
    text = page(
        "Settings",
        "`common/settings.py`",
        "Environment variables, read once at the start of a process. A value that cannot be read "
        "ends the process and says which.",
        "## Functions",
        table(["variable", "default", "meaning"], rows),
        "## One process of a function",
        _listed(PROCESS),
        "## A cluster's ConfigMap `rdev-settings`, besides",
        _listed(CLUSTER),
        "## `rdev up`",
        _listed(LAPTOP),
        "## The command line",
        _listed(COMMAND_LINE),
        "## Set for the commands that run",
        _listed(INSIDE),
    )
    return {PATH: text}


def _listed(variables: dict[str, str]) -> str:
    rows = [[f"`{name}`", meaning] for name, meaning in variables.items()]
    return table(["variable", "meaning"], rows)


def _default(value: Any) -> str:
    if value in ("", ()):
        return ""
    if isinstance(value, bool):
        return f"`{int(value)}`"
    return f"`{value}`"
