"""100 MB of output from the command to the client, by stream and by /output, and its memory.

Rates are ratios to `sh -c 'seq … | sha256sum'` in the same run; peak memory is of every process of
ours while it runs (the kernel's VmHWM, so nothing is missed between two looks).
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

from tests.harness.running import Rdev

LINES = 12_700_000  # seq prints 100.5 MB
SCRIPT = f"seq {LINES}"


def plain() -> tuple[float, str]:
    """Seconds and digest of the generator through a pipe."""
    began = time.perf_counter()
    done = subprocess.run(
        ["sh", "-c", f"{SCRIPT} | sha256sum"], capture_output=True, check=True, text=True
    )
    return time.perf_counter() - began, done.stdout.split()[0]


def streamed(rdev: Rdev) -> tuple[float, str, str]:
    """Seconds from submit to `end` on the stream, digest of what came, and the command's id."""
    digest = hashlib.sha256()
    began = time.perf_counter()
    command = rdev.submit(script=SCRIPT)
    for event in rdev.following(command["id"], patience_s=300):
        if event["event"] == "output":
            digest.update(event["data"]["text"].encode())
    return time.perf_counter() - began, digest.hexdigest(), command["id"]


def downloaded(rdev: Rdev, command_id: str) -> tuple[float, str]:
    """Seconds and digest of /output."""
    digest = hashlib.sha256()
    began = time.perf_counter()
    with (
        rdev.client() as client,
        client.stream("GET", f"/v1/commands/{command_id}/output") as answer,
    ):
        for chunk in answer.iter_raw():
            digest.update(chunk)
    return time.perf_counter() - began, digest.hexdigest()


def peaks(rdev: Rdev) -> dict[str, float]:
    """MiB of each process of ours at its highest, PostgreSQL's shared buffers left out."""
    found: dict[str, float] = {}
    for process in [psutil.Process(rdev.process.pid), *rdev.descendants()] if rdev.process else []:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            name = process.name()
        except (psutil.NoSuchProcess, OSError):
            continue
        match = re.search(r"VmHWM:\s+(\d+) kB", status)
        if match and name != "postgres":
            found[f"{name} {process.pid}"] = int(match[1]) / 1024
    return found


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        rdev = Rdev(Path(folder) / "home").start()
        try:
            rdev.ended(rdev.submit(script="true")["id"])
            pipe, wanted = plain()
            stream, got, command_id = streamed(rdev)
            output, fetched = downloaded(rdev, command_id)
            high = peaks(rdev)
        finally:
            rdev.stop()
    print(f"sh -c 'seq … | sha256sum': {pipe:.2f} s")
    share = pipe / stream
    print(f"by stream: {stream:.2f} s, {share:.3f} of that rate (at least 0.07, goal 0.12)")
    share = pipe / output
    print(f"by /output: {output:.2f} s, {share:.3f} of that rate (at least 0.1)")
    print(f"byte-identical: {got == fetched == wanted}")
    name, most = max(high.items(), key=lambda item: item[1])
    print(f"peak memory of a process of ours: {most:.0f} MiB ({name}; at most 256)")


if __name__ == "__main__":
    main()
