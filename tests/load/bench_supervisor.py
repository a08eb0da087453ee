"""What the supervisor costs, beside the plain thing in the same run.

    .venv/bin/python -m tests.load.bench_supervisor

Absolute figures belong to the machine; the ratios are what to compare. Each `measure_*` returns
plain numbers, so that `make bench` can collect them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.adapters.workspace_local import LocalTransport
from common.domain.workspace import Job, KillMode, Place
from common.ports.workspace import Output
from common.services.supervision import SupervisedWorkspace

LINES_OF_100_MB = 12_500_000  # `seq 1 N`, 101 MB
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Bench:
    workspace: SupervisedWorkspace
    place: Place

    def start(self, *argv: str) -> tuple[str, Output]:
        run_id = f"b{uuid.uuid4().hex}"
        output = self.workspace.start(self.place, Job(run_id, argv)).output
        assert output is not None
        return run_id, output


@contextmanager
def local_bench() -> Iterator[Bench]:
    """A workspace in a temporary directory, with the script delivered."""
    folder = Path(tempfile.mkdtemp(prefix="rdev-bench-"))
    try:
        (folder / "demo").mkdir()
        bench = Bench(
            SupervisedWorkspace(LocalTransport(folder / "runs")),
            Place("demo", str(folder / "demo")),
        )
        bench.workspace.status(bench.place, "absent")
        yield bench
    finally:
        shutil.rmtree(folder)


def drain(output: Output) -> str:
    """Read to the end; the SHA-256 of what came."""
    digest = hashlib.sha256()
    while data := output.read(1 << 20):
        digest.update(data)
    return digest.hexdigest()


def measure_start(bench: Bench, rounds: int = 40) -> dict[str, list[float]]:
    """Seconds from start to the first byte, to the end, and to the first byte of a bare `sh -c`."""
    times: dict[str, list[float]] = {"first byte": [], "end": [], "bare": []}
    for _ in range(rounds):
        begun = time.perf_counter()
        subprocess.run(["sh", "-c", "echo x"], capture_output=True, check=True)
        times["bare"].append(time.perf_counter() - begun)
        begun = time.perf_counter()
        _, output = bench.start("sh", "-c", "echo x")
        output.read(1)
        times["first byte"].append(time.perf_counter() - begun)
        drain(output)
        times["end"].append(time.perf_counter() - begun)
    return times


def measure_throughput(bench: Bench, lines: int = LINES_OF_100_MB) -> dict[str, float]:
    """Seconds for `seq` through the supervisor, hashed, and through a pipe into sha256sum."""
    begun = time.perf_counter()
    plain = subprocess.run(
        ["sh", "-c", f"seq 1 {lines} | sha256sum"], capture_output=True, check=True
    )
    pipe = time.perf_counter() - begun
    begun = time.perf_counter()
    run_id, output = bench.start("sh", "-c", f"seq 1 {lines}")
    digest = drain(output)
    supervised = time.perf_counter() - begun
    record = bench.workspace.status(bench.place, run_id).exit
    assert record is not None
    wanted = plain.stdout.split()[0].decode()
    assert digest == record.stdout.sha256 == wanted, "the bytes are not the generator's"
    return {"pipe": pipe, "supervised": supervised, "bytes": float(record.stdout.size)}


def measure_lines(bench: Bench, lines: int = 60, interval_s: float = 0.35) -> list[float]:
    """Seconds from a line's being written to its being read, one line per interval."""
    script = (
        "import time\n"
        f"for _ in range({lines}):\n"
        f"    time.sleep({interval_s})\n"
        "    print(time.time_ns(), flush=True)\n"
    )
    _, output = bench.start(sys.executable, "-c", script)
    delays, rest = [], b""
    while data := output.read(65536):
        now = time.time_ns()
        *complete, rest = (rest + data).split(b"\n")
        delays += [(now - int(line)) / 1e9 for line in complete]
    assert len(delays) == lines
    return delays


def measure_idle(bench: Bench, seconds: float = 5.0) -> float:
    """CPU seconds per second that an idle run with its follower costs."""
    run_id, output = bench.start("sh", "-c", "echo x; exec sleep 600")
    output.read(2)
    output.read(1, 1.0)  # the follower comes to rest
    before = children_cpu()
    output.read(1, seconds)
    used = children_cpu() - before
    bench.workspace.kill(bench.place, run_id, KillMode.FORCE, "over")
    drain(output)
    return used / seconds


def children_cpu() -> float:
    """CPU seconds of our living children and of all they have waited for."""
    total = 0.0
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            total += sum(map(int, fields[11:15])) / CLOCK_TICKS
    return total


def measure_attach(bench: Bench, lines: int = LINES_OF_100_MB, rounds: int = 10) -> list[float]:
    """Seconds from follow to the first byte, near the end of a large spool."""
    run_id, output = bench.start("sh", "-c", f"seq 1 {lines}")
    drain(output)
    size = bench.workspace.status(bench.place, run_id).stdout_size
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        again = bench.workspace.follow(bench.place, run_id, "merged", size - 10)
        again.read(1)
        times.append(time.perf_counter() - begun)
        drain(again)
    return times


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def in_ms(values: list[float]) -> str:
    return (
        f"p50 {statistics.median(values) * 1e3:.1f} ms, p95 {percentile(values, 0.95) * 1e3:.1f} ms"
    )


def main() -> None:
    with local_bench() as bench:
        starts = measure_start(bench)
        ratio = statistics.median(starts["first byte"]) / statistics.median(starts["bare"])
        print(f"bare sh -c               {in_ms(starts['bare'])}")
        print(f"start to first byte      {in_ms(starts['first byte'])}   {ratio:.1f}x bare")
        print(f"start to exit record     {in_ms(starts['end'])}")
        bulk = measure_throughput(bench)
        share = bulk["pipe"] / bulk["supervised"]
        print(
            f"100 MB of seq            {bulk['supervised']:.2f} s, pipe into sha256sum "
            f"{bulk['pipe']:.2f} s   {share:.2f} of its rate"
        )
        delays = measure_lines(bench)
        print(
            f"a line until it is read  {in_ms(delays)}, p99 {percentile(delays, 0.99) * 1e3:.1f} ms"
        )
        print(f"idle follower            {measure_idle(bench) * 100:.1f} % of a core")
        print(f"attach at 100 MB         {in_ms(measure_attach(bench))}")


if __name__ == "__main__":
    main()
