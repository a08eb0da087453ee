"""From a change in the cluster until whoever asks rdev for the project is told of it.

A whole rdev on a fake API server. The clock starts before the request that changes the cluster and
stops with the first answer of `GET /v1/projects/NAME` that shows it, so it holds the API server's
own time, the watch, the registry and the request. The goal is 1 s (the 99th of a hundred).
Run: `python -m tests.load.bench_watch [PODS]`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.fake_kubernetes.rdev import rdev_on
from tests.fake_kubernetes.running import FakeKubernetes

GOAL_S = 1.0
PATIENCE_S = 30.0


def main() -> None:
    """Print each figure."""
    pods = int(sys.argv[1] if len(sys.argv) > 1 else 100)
    with tempfile.TemporaryDirectory() as folder, FakeKubernetes(Path(folder)) as fake:
        rdev = rdev_on(fake, Path(folder) / "home").start("--kubernetes")
        try:
            with rdev.client() as client:
                measure(fake, client, pods)
        finally:
            rdev.stop()


def measure(fake: FakeKubernetes, client: httpx.Client, pods: int) -> None:
    """Pods that come, become ready, are described by the ConfigMap, and go, one after another."""
    changes = Changes(fake, client)
    report(f"a pod is created, of {pods}", [changes.comes(n) for n in range(pods)])
    report("a pod becomes ready", [changes.becomes_ready(n) for n in range(pods)])
    report("an entry of the ConfigMap is written", [changes.is_described(n) for n in range(pods)])
    fake.config({})  # an entry alone is a project too, which its pod's end would not end
    report("a pod is deleted", [changes.goes(n) for n in range(pods)])


class Changes:
    """Each change of pod `number`, and how long it took to be seen."""

    def __init__(self, fake: FakeKubernetes, client: httpx.Client) -> None:
        self._fake = fake
        self._client = client
        self._show(0)  # else the first would wait for a function that starts from zero

    def _show(self, number: int) -> httpx.Response:
        return self._client.get(f"/v1/projects/p{number}")

    def comes(self, number: int) -> float:
        notes = {"fake/pending": "1"}  # without a process behind it: nothing will run there
        return until(
            lambda: self._fake.pod(f"p{number}-0", project=f"p{number}", annotations=notes),
            lambda: self._show(number).is_success,
        )

    def becomes_ready(self, number: int) -> float:
        return until(
            lambda: self._fake.set_status(f"p{number}-0", "Running", ready=True),
            lambda: self._show(number).json()["phase"] == "ready",
        )

    def is_described(self, number: int) -> float:
        return until(
            lambda: self._fake.config({f"p{number}.yaml": f"description: the {number}."}),
            lambda: self._show(number).json()["description"] == f"the {number}.",
        )

    def goes(self, number: int) -> float:
        return until(
            lambda: self._fake.delete_pod(f"p{number}-0"),
            lambda: self._show(number).status_code == httpx.codes.NOT_FOUND,
        )


def until(change: Callable[[], object], seen: Callable[[], bool]) -> float:
    """Seconds from before the change until it is seen."""
    began = time.monotonic()
    change()
    while not seen():
        if time.monotonic() - began > PATIENCE_S:
            raise SystemExit("a change was never seen")
    return time.monotonic() - began


def report(what: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    p50, p99 = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    print(
        f"  {what}: seen after p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms,"
        f" slowest {ordered[-1] * 1000:.0f} ms, {p99 / GOAL_S:.2f} of the goal"
    )


if __name__ == "__main__":
    main()
