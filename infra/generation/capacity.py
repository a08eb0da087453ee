"""Whether PostgreSQL has a connection for every instance that Knative may start.

A server that runs out refuses whoever comes next, the tick included, so the sum over full scale
must fit, with some left for people, migrations and backups.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import yaml

from common.entrypoints.function import Function

RESERVE: Final = 20  # psql, a migration, a backup, and the server's own reserved three
LISTEN: Final = 1  # each instance may hold one connection besides its pool


def needed(functions: list[Function], pool: int) -> int:
    """Connections at full scale."""
    return sum(f.scale.maximum for f in functions) * (pool + LISTEN) + RESERVE


def complaint(functions: list[Function], root: Path) -> str | None:
    """What is wrong with the numbers in infra/base/settings.yaml, or None."""
    settings = yaml.safe_load((root / "infra/base/settings.yaml").read_text("utf-8"))["data"]
    pool, there = int(settings["RDEV_PG_POOL"]), int(settings["RDEV_PG_MAX_CONNECTIONS"])
    total = needed(functions, pool)
    if total <= there:
        return None
    instances = sum(f.scale.maximum for f in functions)
    return (
        f"{instances} instances x (RDEV_PG_POOL {pool} + {LISTEN} for LISTEN) + {RESERVE} are "
        f"{total} connections, RDEV_PG_MAX_CONNECTIONS is {there}: lower a max-scale or the pool"
    )
