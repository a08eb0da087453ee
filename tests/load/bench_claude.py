"""Running claude: what rdev adds to it, beside what it adds to a shell command, in the same run.

The real claude with a stand-in model. Overhead is submit → end minus the same thing run directly.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra.local.claude import path_with_claude
from tests.harness.messages_api import stand_in, text
from tests.harness.running import Rdev

ROUNDS = 8
SCRIPT = "sleep 0.2; echo done"


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def submitted(rdev: Rdev, **body: Any) -> None:
    """Submit and follow to the end."""
    with rdev.client() as client:
        command = client.post("/v1/commands", json={"project": "demo"} | body).json()
    end = rdev.follow(command["id"])[-1]["data"]
    if end["state"] != "succeeded":
        raise SystemExit(f"the benchmark's own command ended as {end['state']}: {end['outcome']}")


def main() -> None:
    """Print the figures."""
    path = path_with_claude(os.environ["PATH"])
    with tempfile.TemporaryDirectory() as folder, stand_in(text("hello")) as model:
        own = model.environment(f"{folder}/config")
        direct = os.environ | own | {"PATH": path, "HOME": folder, "DISABLE_AUTOUPDATER": "1"}
        direct |= {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
        rdev = Rdev(Path(folder) / "home", **own).start()

        def claude() -> None:
            argv = ["claude", "-p", "--output-format", "stream-json", "--verbose"]
            argv += ["--session-id", str(uuid.uuid4())]
            subprocess.run(argv, input=b"hi", env=direct, capture_output=True, check=True)

        def shell() -> None:
            subprocess.run(["sh", "-c", SCRIPT], capture_output=True, check=True)

        extra: dict[str, list[float]] = {"claude": [], "shell": []}
        try:
            for kind in extra:
                submitted(rdev, kind=kind, **_body(kind))
            for _ in range(ROUNDS):
                for kind, alone in (("claude", claude), ("shell", shell)):
                    through = seconds(lambda kind=kind: submitted(rdev, kind=kind, **_body(kind)))
                    extra[kind].append(through - seconds(alone))
        finally:
            rdev.stop()
    middle = {kind: statistics.median(values) * 1000 for kind, values in extra.items()}
    print(f"rdev adds to claude: p50 {middle['claude']:.0f} ms")
    print(f"rdev adds to a shell command: p50 {middle['shell']:.0f} ms")
    print(f"ratio {middle['claude'] / middle['shell']:.1f} (at most 3)")


def _body(kind: str) -> dict[str, str]:
    return {"prompt": "hi"} if kind == "claude" else {"script": SCRIPT}


if __name__ == "__main__":
    main()
