"""A storm: events lost, doubled and reordered while a function is killed every second.

`make test` runs a short one; `make soak` sets RDEV_STORM=2000x50 (commands x projects).
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.harness.running import Rdev, marked, until

COMMANDS, PROJECTS = (int(n) for n in os.environ.get("RDEV_STORM", "80x8").split("x"))
FAULTS = "seed=4,drop=0.1,double=0.1,reorder=0.1"
SCRIPT = "echo {name} >> ran; sleep 0.1"  # long enough that some are killed in the middle
KILL_EVERY_S = 1.0
SUBMITTERS = 4
PATIENCE_S = 60.0 + COMMANDS  # a bound only
OPEN = ("scheduled", "queued", "running", "cancelling")


@contextmanager
def killing(rdev: Rdev, seed: int = 4) -> Iterator[Counter[str]]:
    """SIGKILL a random function process every second until the block ends; counts them."""
    chance = random.Random(seed)
    over = threading.Event()
    killed: Counter[str] = Counter()

    def work() -> None:
        while not over.wait(KILL_EVERY_S):
            ours = {one.pid: one for one in rdev.descendants()}
            listed = [(f, pid) for f, pid in rdev.instances() if pid in ours]
            if listed:
                name, pid = chance.choice(listed)
                try:
                    ours[pid].kill()  # refuses a pid that is another process by now
                    killed[name] += 1
                except psutil.NoSuchProcess:
                    continue

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def patiently(rdev: Rdev, method: str, path: str, expected: int, **more: Any) -> Any:
    """An answer, asked for again while the function behind it is being killed."""

    def ask() -> httpx.Response | None:
        try:
            with rdev.client() as client:
                answer = client.request(method, path, **more)
        except httpx.HTTPError:
            return None
        assert answer.status_code in {expected, 409, 429} or answer.status_code >= 500, answer.text
        return answer if answer.status_code == expected else None

    return until(f"{method} {path} answers {expected}", ask).json()


def submit(rdev: Rdev, number: int) -> str:
    """Create a command; its idempotency key makes asking again harmless."""
    name = f"c{number}"
    body = {
        "project": f"p{number % PROJECTS}",
        "kind": "shell",
        "script": SCRIPT.format(name=name),
        "labels": {"name": name},
    }
    headers = {"idempotency-key": f'"{name}"'}
    answer = patiently(rdev, "POST", "/v1/commands", 202, json=body, headers=headers)
    command_id: str = answer["id"]
    return command_id


def commands(rdev: Rdev) -> list[dict[str, Any]]:
    """Every command there is."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = patiently(rdev, "GET", "/v1/commands", 200, params={"limit": "200", **cursor})
        found += page["items"]
        if not page.get("next_cursor"):
            return found
        cursor = {"cursor": page["next_cursor"]}


def all_ended(rdev: Rdev) -> bool:
    """Wait a while for the newest command that has not ended; True when there is none."""
    asked = {"state": list(OPEN), "limit": "1"}
    for one in patiently(rdev, "GET", "/v1/commands", 200, params=asked)["items"]:
        patiently(rdev, "GET", f"/v1/commands/{one['id']}", 200, headers={"prefer": "wait=10"})
        return False
    return True


@pytest.mark.timeout(PATIENCE_S + 120)
def test_a_storm_costs_no_command(tmp_path: Path) -> None:
    """Each command runs exactly once and succeeds, none is lost, and nothing is left running."""
    rdev = Rdev(tmp_path / "home", RDEV_BROKER_FAULTS=FAULTS)
    for number in range(PROJECTS):
        (rdev.home / "workspaces" / f"p{number}").mkdir(parents=True)
    rdev.start()
    try:
        began = time.monotonic()
        with killing(rdev) as killed:
            with ThreadPoolExecutor(SUBMITTERS) as pool:
                ids = list(pool.map(lambda number: submit(rdev, number), range(COMMANDS)))
            until("all have ended", lambda: all_ended(rdev), PATIENCE_S)
        print(f"{COMMANDS} in {PROJECTS}: {time.monotonic() - began:.1f} s, killed {dict(killed)}")
        found = commands(rdev)
        assert {one["id"] for one in found} == set(ids) and len(found) == len(ids) == COMMANDS
        ends = Counter((one["state"], one["outcome"]["reason"]) for one in found)
        assert ends == {("succeeded", "exit_zero"): COMMANDS}
        for number in range(PROJECTS):
            ran = (rdev.home / "workspaces" / f"p{number}" / "ran").read_text().split()
            assert sorted(ran) == sorted(f"c{n}" for n in range(number, COMMANDS, PROJECTS))
        until("nothing is left", lambda: not marked(*ids))
        assert killed
    finally:
        rdev.stop()
