"""How long from a submit to its first output byte, and what of that is rdev's own.

Prints, for one warm rdev on this machine: the total, the supervisor's own start → first byte measured
in the same run, the difference, and a POST + one insert through bare starlette as the yardstick.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.harness.running import Rdev
from tests.load import bare
from tests.load.bench_supervisor import local_bench, measure_start

ROUNDS = 60


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def timed(work: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    """Milliseconds of each call."""
    work()
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        took.append((time.perf_counter() - began) * 1000)
    return took


def first_bytes(rdev: Rdev) -> list[float]:
    """Submit → first output byte in milliseconds, the project's stream being open already."""
    took = []
    with rdev.client() as client, rdev.opened("/v1/streams/projects/demo?output=1") as events:
        iterator = iter(events)
        body = {"project": "demo", "kind": "shell", "script": "echo hi"}
        for _ in range(ROUNDS + 3):
            began = time.perf_counter()
            client.post("/v1/commands", json=body).raise_for_status()
            next(e for e in iterator if e["event"] == "output")
            took.append((time.perf_counter() - began) * 1000)
            next(e for e in iterator if e["event"] == "end")
    return took[3:]


def line_lags(rdev: Rdev, lines: int = 20) -> list[float]:
    """Milliseconds from a line's printing to its arrival, for a loop that prints five a second."""
    command = rdev.submit(script=f"i=0; while [ $i -lt {lines} ]; do date +%s.%N; i=$((i+1)); sleep 0.2; done")
    lags = []
    with rdev.opened(command["links"]["stream"]) as events:
        for event in events:
            if event["event"] == "output":
                now = time.time()
                lags += [(now - float(text)) * 1000 for text in event["data"]["text"].split()]
            if event["event"] == "end":
                return lags
    return lags


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        rdev = Rdev(Path(folder) / "home").start()
        try:
            whole = first_bytes(rdev)
            lags = line_lags(rdev)
        finally:
            rdev.stop()
    with local_bench() as bench:
        own = [value * 1000 for value in measure_start(bench, ROUNDS)["first byte"]]
    with bare.insert_server() as url, httpx.Client(base_url=url, trust_env=False) as client:
        yardstick = timed(lambda: client.post("/", json={"script": "echo hi"}).raise_for_status())
    middle = statistics.median(own)
    net = [value - middle for value in whole]
    yard = statistics.median(yardstick)
    print(f"submit → first byte: p50 {quantile(whole, 0.5):.1f} ms, p95 {quantile(whole, 0.95):.1f} ms (goal 60)")
    print(f"supervisor's own start → first byte: p50 {middle:.1f} ms (at most 40)")
    print(f"rdev's share: p50 {quantile(net, 0.5):.1f} ms (at most 30), p95 {quantile(net, 0.95):.1f} ms (at most 80)")
    print(f"ratio to a POST + one insert through bare starlette ({yard:.2f} ms): {quantile(net, 0.5) / yard:.1f} (at most 12)")
    print(f"a printed line is seen after: p50 {quantile(lags, 0.5):.0f} ms, p99 {quantile(lags, 0.99):.0f} ms (at most 200)")


if __name__ == "__main__":
    main()
