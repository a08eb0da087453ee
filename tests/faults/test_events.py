"""Functions are killed while events arrive; senders repeat, and each event happens once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from tests.harness.running import Rdev, until

EVENTS = 12


def test_killed_while_they_arrive_events_happen_once(rdev: Rdev) -> None:
    """SIGKILL between any two steps of the function that takes them; the sender sends again."""
    trigger = {
        "name": "t",
        "filter": {"exact": {"type": "t"}},
        "command": {"project": "demo", "kind": "shell", "script": "true"},
    }
    with rdev.client() as client:
        made = client.post("/v1/triggers", json=trigger).json()
        wanted = {
            "name": "s",
            "scopes": ["events:write"],
            "rate_limit": {"limit": 10_000, "window_s": 1},
        }
        key = client.post("/v1/keys", json=wanted).json()["key"]
    sent, done = [0], threading.Event()

    def send(number: int) -> dict[str, Any]:
        event = {"specversion": "1.0", "id": str(number // 2), "source": "/s", "type": "t"}
        kind = {"content-type": "application/cloudevents+json"}

        def once() -> dict[str, Any] | None:
            try:
                with rdev.client(key) as client:
                    answer = client.post("/v1/events", json=event, headers=kind)
            except httpx.HTTPError:
                return None
            return answer.json()["events"][0] if answer.status_code == 202 else None

        found: dict[str, Any] = until(f"event {number} is answered", once)
        sent[0] += 1
        return found

    def kill() -> None:
        at = 0
        while not done.is_set():
            until("some more were sent", lambda at=at: sent[0] >= at or done.is_set())
            at = sent[0] + EVENTS // 2
            if not done.is_set():
                rdev.kill_function("events")

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(send, range(2 * EVENTS)))
    finally:
        done.set()
        killer.join()
    assert {answer["outcome"] for answer in answers} <= {"submitted", "duplicate"}
    ids = {answer["triggers"][0]["command_id"] for answer in answers}
    with rdev.client() as client:
        asked = {"label": f"rdev/trigger={made['id']}", "limit": "200"}
        commands = client.get("/v1/commands", params=asked).json()["items"]
    assert {command["id"] for command in commands} == ids
    assert len(ids) == EVENTS
