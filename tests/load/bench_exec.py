"""Exec into a pod of the fake API against kubectl on the same server.

kubectl's rate on the same server and machine is the measure, because absolute rates are the
machine's; the two take turns, so that what else runs here slows both. Both hash what they get.
Run: `python -m tests.load.bench_exec [MB]`.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from common.domain.workspace import Job, Place
from tests.fake_kubernetes.running import FakeKubernetes
from tests.integration.kubernetes_bench import Bench

ROUNDS = 7
# Not compressible and the same every time, so that a wrong byte anywhere shows.
MAKE = "openssl enc -aes-128-ctr -K {zeros} -iv {zeros} -in /dev/zero 2>/dev/null | head -c {size}"


def main() -> None:
    """Print each figure with what it was measured by."""
    size = int(sys.argv[1] if len(sys.argv) > 1 else 100) * 1_000_000
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    folder = Path(tempfile.mkdtemp(prefix="rdev-bench-"))
    try:
        with FakeKubernetes(folder) as fake:
            measure(fake, folder, size)
    finally:
        shutil.rmtree(folder)


def measure(fake: FakeKubernetes, folder: Path, size: int) -> None:
    fake.pod("demo-0", project="demo")
    bench = Bench(fake, folder)
    data = folder / "data"
    with data.open("wb") as file:
        subprocess.run(
            ["sh", "-c", MAKE.format(zeros="0" * 32, size=size)], stdout=file, check=True
        )
    wanted = digest_of(data.open("rb"))
    place = bench.place()
    peer = shutil.which("kubectl") is not None
    raw, theirs, run = [], [], []
    for number in range(ROUNDS):
        raw.append(timed(lambda: raw_exec(bench, place, data, wanted), size))
        if peer:
            theirs.append(timed(lambda: kubectl(fake, data, wanted), size))
        run.append(timed(partial(whole_run, bench, place, data, wanted, number), size))
    report(f"exec of {size // 1_000_000} MB, byte-identical", raw)
    report("the same as a supervised run (spooled, then followed)", run)
    if peer:
        report("kubectl exec, same server", theirs)
        ratios = [mine / other for mine, other in zip(raw, theirs, strict=True)]
        print(f"  ours / kubectl, turn by turn: {statistics.median(ratios):.2f}")
    else:
        print("  SKIPPED: no kubectl here to compare with")
    starts = [timed_start(bench, place, number) for number in range(40)]
    quantiles("start of a command in a pod", starts)
    bench.close()


def raw_exec(bench: Bench, place: Place, data: Path, wanted: str) -> None:
    channel = bench.transport.open(place, ("cat", str(data)))
    seen = hashlib.sha256()
    while more := channel.read(1 << 20, 60):
        seen.update(more)
    assert channel.result(60) == 0
    assert seen.hexdigest() == wanted
    channel.close()


def whole_run(bench: Bench, place: Place, data: Path, wanted: str, number: int) -> None:
    output = bench.workspace.start(place, Job(f"big{number}", ("cat", str(data)))).output
    assert output is not None
    seen = hashlib.sha256()
    while more := output.read(1 << 20, 60):
        seen.update(more)
    assert output.status is not None
    assert output.status.exit is not None
    assert seen.hexdigest() == output.status.exit.stdout.sha256 == wanted


def kubectl(fake: FakeKubernetes, data: Path, wanted: str) -> None:
    command = ["kubectl", "--kubeconfig", str(fake.kubeconfig), "exec", "demo-0", "--", "cat"]
    with subprocess.Popen([*command, str(data)], stdout=subprocess.PIPE) as process:
        assert digest_of(process.stdout) == wanted


def timed_start(bench: Bench, place: Place, number: int) -> float:
    began = time.monotonic()
    output = bench.workspace.start(place, Job(f"small{number}", ("echo", "hi"))).output
    assert output is not None
    assert output.read(16, 60) == b"hi\n"
    took = time.monotonic() - began
    output.close()
    return took


def digest_of(stream: Any) -> str:
    seen = hashlib.sha256()
    while more := stream.read(1 << 20):
        seen.update(more)
    return seen.hexdigest()


def timed(work: Any, size: int) -> float:
    """MB/s."""
    began = time.monotonic()
    work()
    return size / 1e6 / (time.monotonic() - began)


def report(what: str, rates: list[float]) -> None:
    middle, low, high = statistics.median(rates), min(rates), max(rates)
    print(f"  {what}: {middle:.0f} MB/s (of {ROUNDS}: {low:.0f}-{high:.0f})")


def quantiles(what: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    p50, p99 = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    print(f"  {what}: p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms")


if __name__ == "__main__":
    main()
