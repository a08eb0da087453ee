"""Webhooks while events are lost, doubled and reordered, and while who sends them is killed.

`make test` runs short forms; `make soak` sets RDEV_STORM=2000x50 (commands x projects) and
RDEV_DROPPED=200x20, which also compares the time with that of a run with events.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.harness.receiver import Came, receiver
from tests.harness.running import Rdev, until

COMMANDS, PROJECTS = (int(n) for n in os.environ.get("RDEV_STORM", "24x4").split("x"))
DROPPED, DROPPED_PROJECTS = (int(n) for n in os.environ.get("RDEV_DROPPED", "8x2").split("x"))
TICK_S = 1.0
PATIENCE_S = 60.0 + COMMANDS


def started(home: Path, projects: int, **environment: str) -> Rdev:
    rdev = Rdev(home, RDEV_WEBHOOK_ALLOW="127.0.0.0/8", **environment)
    for number in range(projects):
        (rdev.home / "workspaces" / f"p{number}").mkdir(parents=True)
    return rdev.start()


def make(rdev: Rdev, url: str, **body: Any) -> dict[str, Any]:
    with rdev.client() as client:
        answer = client.post("/v1/webhooks", json={"url": url} | body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def submit_all(rdev: Rdev, count: int, projects: int) -> list[str]:
    with ThreadPoolExecutor(4) as pool:
        return list(
            pool.map(
                lambda n: str(rdev.submit(project=f"p{n % projects}", script="true")["id"]),
                range(count),
            )
        )


@pytest.mark.timeout(PATIENCE_S + 120)
def test_every_end_arrives_whatever_the_broker_does(tmp_path: Path) -> None:
    """Each command ends once, and its end arrives at least once, each time under the same id."""
    faults = "seed=8,drop=0.3,double=0.3,reorder=0.5,delay=0.1"
    rdev = started(tmp_path / "home", PROJECTS, RDEV_BROKER_FAULTS=faults)
    refuse = Counter[str]()

    def answer(came: Came) -> tuple[int, dict[str, str], bytes]:
        refuse[came.id] += 1
        # Every seventh is refused once, and comes again after 5 s.
        first = refuse[came.id] == 1 and int(came.id[-2:], 16) % 7 == 0
        return (500 if first else 200), {}, b""

    try:
        with receiver(answer) as hook:
            ends = [
                f"command.{s}" for s in ("succeeded", "failed", "cancelled", "timed_out", "lost")
            ]
            make(rdev, hook.url, event_types=ends)
            ids = submit_all(rdev, COMMANDS, PROJECTS)
            for command_id in ids:
                assert rdev.ended(command_id, PATIENCE_S)["state"] == "succeeded"
            wanted = set(ids)

            def all_came() -> bool:
                done = {
                    c.json["data"]["id"] for c in hook.came if refuse[c.id] > 1 or not _seventh(c)
                }
                return done >= wanted

            until("every end arrived", all_came, PATIENCE_S)
            names = {(c.json["data"]["id"], c.id) for c in hook.came}
            assert len(names) == len(ids)
            assert {c.json["type"] for c in hook.came} == {"command.succeeded"}
            assert len({(c.id, c.body) for c in hook.came}) == len(ids)
    finally:
        rdev.stop()


def _seventh(came: Came) -> bool:
    return int(came.id[-2:], 16) % 7 == 0


@pytest.mark.timeout(400)
def test_without_any_event_all_ends_and_arrives(tmp_path: Path) -> None:
    """Dropped all of them: the tick rings, fans out and rings the sender."""
    if "RDEV_DROPPED" in os.environ:
        with_events = dropped(tmp_path / "with", "")
        without = dropped(tmp_path / "without", "drop=1")
        print(f"{DROPPED} in {DROPPED_PROJECTS}: {with_events:.1f} s, dropped {without:.1f} s")
        assert without <= 2 * with_events + 2 * TICK_S
    else:
        dropped(tmp_path / "without", "drop=1")


def dropped(home: Path, faults: str) -> float:
    """Seconds until every command has ended and every end has arrived."""
    rdev = started(home, DROPPED_PROJECTS, RDEV_BROKER_FAULTS=faults)
    try:
        with receiver() as hook:
            make(rdev, hook.url, event_types=["command.succeeded"])
            began = time.monotonic()
            ids = submit_all(rdev, DROPPED, DROPPED_PROJECTS)
            for command_id in ids:
                rdev.ended(command_id, 300)
            took = time.monotonic() - began
            hook.wait(lambda came: {c.json["data"]["id"] for c in came} == set(ids))
            return took
    finally:
        rdev.stop()


def test_row_47_killed_between_sending_and_recording(
    tmp_path: Path, database_url: str, run_sql: Callable[..., object]
) -> None:
    """The receiver sees it twice under one id; the log shows what was recorded."""
    rdev = started(tmp_path / "home", 0, RDEV_DATABASE_URL=database_url)
    killed: list[str] = []

    def answer(came: Came) -> tuple[int, dict[str, str], bytes]:
        if not killed:
            killed.append(came.id)
            rdev.kill_function("on-webhook-due")
        return 200, {}, b""

    try:
        with receiver(answer) as hook, rdev.client() as client:
            webhook = make(rdev, hook.url)
            path = f"/v1/webhooks/{webhook['id']}"
            assert client.post(f"{path}/ping").status_code == 202
            until("the sender is dead", lambda: killed and len(hook.came) == 1)
            # The lease's 45 s are over.
            run_sql("UPDATE deliveries SET next_at = now(), lease_until = now()", database_url)
            until("it is sent again", lambda: len(hook.came) == 2)
            assert {c.id for c in hook.came} == set(killed)
            until(
                "it is recorded",
                lambda: client.get(f"{path}/deliveries").json()["items"][0]["state"] == "delivered",
            )
    finally:
        rdev.stop()
