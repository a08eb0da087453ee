"""Other people's JavaScript libraries, in the versions of tests/javascript/package-lock.json."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

JAVASCRIPT = Path(__file__).resolve().parents[1] / "javascript"


def read(folder: Path, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What they make of requests (`headers`, `body`, and for a webhook its `secret`).

    Skips the test, and says so, on a machine without node or without a registry to install from.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("SKIPPED: no node and npm here, so JavaScript's libraries were not asked")
    for name in ("package.json", "package-lock.json", "read.mjs"):
        shutil.copy(JAVASCRIPT / name, folder / name)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    installed = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    if installed.returncode:
        pytest.skip(f"SKIPPED: npm cannot install here: {installed.stderr[-300:]}")
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    done = subprocess.run(
        [node, "read.mjs"],
        cwd=folder,
        input=lines,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]
