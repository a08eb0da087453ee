"""What runs, as a file: `$RDEV_HOME/status.json`, for `rdev doctor`, tests and the curious.

Forked functions all look alike to `ps`; here they have names.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.local.scaler import Function


class StatusFile:
    """Rewrites the file whenever an instance comes or goes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, functions: Mapping[str, Function], url: str) -> None:
        unfinished = self._path.with_suffix(".new")
        unfinished.write_text(
            json.dumps({"pid": os.getpid(), "url": url, "functions": rows(functions)})
        )
        unfinished.rename(self._path)  # who reads sees the old or the new, never a half

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def rows(functions: Mapping[str, Function]) -> list[dict[str, Any]]:
    """Describe every function: its instances, requests, cold starts and trouble."""
    return [
        {
            "name": name,
            "instances": [
                {"pid": one.process.pid, "port": one.port, "in_flight": one.in_flight}
                for one in function.instances
            ],
            "in_flight": function.in_flight,
            "waiting": function.waiting,
            "cold_starts": function.cold_starts,
            "trouble": function.trouble,
        }
        for name, function in functions.items()
    ]
