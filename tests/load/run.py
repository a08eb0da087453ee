"""`make bench`: every `bench_*.py` here, one process each, so that none warms another's caches.

A benchmark measures what it is compared with in the same run, and prints the ratio with the
absolutes beside it: ratios carry over to another machine, absolutes do not. Names on the command
line choose (`make bench BENCH=stream`).
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
LONGEST_S: Final = 900  # a benchmark that hangs must not hang the others


def names(wanted: Sequence[str]) -> list[str]:
    """Benchmarks by file name; `wanted` names some with or without `bench_`. Raises SystemExit."""
    there = sorted(path.stem for path in HERE.glob("bench_*.py"))
    chosen = [f"bench_{name.removeprefix('bench_')}" for name in wanted] or there
    unknown = set(chosen) - set(there)
    if unknown:
        raise SystemExit(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(there)}")
    return chosen


def main(argv: Sequence[str] | None = None) -> int:
    """Run them; answers 1 when one failed."""
    chosen = names(sys.argv[1:] if argv is None else argv)
    system = f"{platform.system()} {platform.release()}, {os.cpu_count()} cores"
    print(
        f"{system}, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}", flush=True
    )
    failed = [name for name in chosen if not _run(name)]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _run(name: str) -> bool:
    print(f"\n== {name.removeprefix('bench_').replace('_', ' ')}", flush=True)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    began = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-m", f"tests.load.{name}"],
            cwd=ROOT,
            env=environment,
            timeout=LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        print(f"not done after {LONGEST_S} s", flush=True)
        return False
    print(f"   {time.monotonic() - began:.0f} s", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    raise SystemExit(main())
