"""How long from a submit to its first output byte, and what of that is rdev's own.

Prints, for one warm rdev on this machine: the total, the supervisor's own start → first byte
in the same run, the difference, and a POST + one insert through bare starlette as the yardstick.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.harness.running import Rdev
from tests.load import bare
from tests.load.bench_supervisor import local_bench, measure_start

ROUNDS = 60
BLOCK = 10
STREAM = "/v1/streams/projects/demo?output=1"
BODY = {"project": "demo", "kind": "shell", "script": "echo hi"}


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


def first_bytes(rdev: Rdev, client: httpx.Client, events: Iterator[dict[str, Any]]) -> list[float]:
    """Submit → first output byte in milliseconds, on a stream that is open already."""
    took = []
    for _ in range(BLOCK):
        began = time.perf_counter()
        client.post("/v1/commands", json=BODY).raise_for_status()
        next(e for e in events if e["event"] == "output")
        took.append((time.perf_counter() - began) * 1000)
        next(e for e in events if e["event"] == "end")
    return took


def line_lags(rdev: Rdev, lines: int = 20) -> list[float]:
    """Milliseconds from a line's printing to its arrival, for a loop that prints five a second."""
    loop = f"i=0; while [ $i -lt {lines} ]; do date +%s.%N; i=$((i+1)); sleep 0.2; done"
    command = rdev.submit(script=loop)
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
    """Measure in alternating blocks, so that a noisy moment of the machine meets all of them."""
    whole: list[float] = []
    own: list[float] = []
    yardstick: list[float] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        bare.insert_server() as url,
        httpx.Client(base_url=url, trust_env=False) as plain,
        local_bench() as bench,
    ):
        rdev = Rdev(Path(folder) / "home").start()
        try:
            with rdev.client() as client, rdev.opened(STREAM) as stream:
                events = iter(stream)
                first_bytes(rdev, client, events)
                for _ in range(ROUNDS // BLOCK):
                    whole += first_bytes(rdev, client, events)
                    own += [v * 1000 for v in measure_start(bench, BLOCK)["first byte"]]
                    yardstick += timed(lambda: plain.post("/", json=BODY).raise_for_status(), BLOCK)
            lags = line_lags(rdev)
        finally:
            rdev.stop()
    report(whole, own, yardstick, lags)


def report(whole: list[float], own: list[float], yardstick: list[float], lags: list[float]) -> None:
    """Print the figures and what they may be at most."""
    middle, yard = statistics.median(own), statistics.median(yardstick)
    net = [value - middle for value in whole]
    share = quantile(net, 0.5)
    print(f"submit → first byte: p50 {quantile(whole, 0.5):.1f} ms (goal 60)")
    print(f"supervisor's own start → first byte: p50 {middle:.1f} ms (at most 40)")
    print(f"rdev's share: p50 {share:.1f} ms (at most 30), p95 {quantile(net, 0.95):.1f} (80)")
    print(f"a POST + one insert through bare starlette: p50 {yard:.2f} ms")
    print(f"ratio of rdev's share to it: {share / yard:.1f} (at most 12)")
    print(f"a printed line is seen after: p99 {quantile(lags, 0.99):.0f} ms (at most 200)")


if __name__ == "__main__":
    main()
