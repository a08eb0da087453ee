"""Every real function, again and again from zero: a cold start is only slower.

`make test` starts each a few times; `make soak` sets RDEV_COLD_STARTS=200.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from infra.generation import declared
from tests.harness.running import Rdev, until

STARTS = int(os.environ.get("RDEV_COLD_STARTS", "27"))
AT_ONCE = 2  # requests that meet one cold start
WORKERS = 5

Ask = Callable[[httpx.Client], httpx.Response]


def get(path: str) -> Ask:
    return lambda client: client.get(path)


def event(kind: str, **data: str) -> Ask:
    """A delivery in binary mode, as the broker makes it."""
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/test", "ce-type": kind}
    return lambda client: client.post("/", headers=headers, json=data)


def public_requests(command_id: str) -> dict[str, Ask]:
    return {
        "audit": get("/v1/audit"),
        "claude-config": get("/v1/claude-config/demo/commands"),
        "commands": get(f"/v1/commands/{command_id}"),
        "events": get("/v1/events/dead-letters"),
        "health": get("/ready"),
        "keys": get("/v1/keys"),
        "projects": get("/v1/projects/demo"),
        "queue": get("/v1/queue"),
        "reference": get("/openapi.json"),
        "stream": get(f"/v1/streams/commands/{command_id}"),
        "triggers": get("/v1/triggers"),
        "usage": get("/v1/usage"),
        "webhooks": get("/v1/webhooks"),
    }


# What the others are asked: they look at the truth, whatever the event says.
EVENT = event("ai.orchard9.rdev.command.queued.v1", project="demo")


class Cold:
    """A whole rdev whose functions are asked only when none of their processes is left."""

    def __init__(self, rdev: Rdev, command_id: str) -> None:
        self.rdev = rdev
        self._public = public_requests(command_id)
        self.names = sorted(one["name"] for one in rdev.status())
        assert self._public.keys() == {f.service for f in declared.functions() if f.prefixes}
        self._internal = rdev.internal_url
        self._one_at_a_time = {name: threading.Lock() for name in self.names}

    def ask(self, name: str) -> list[int]:
        """Statuses of what was asked of a function from zero."""
        with self._one_at_a_time[name], ThreadPoolExecutor(AT_ONCE) as pool:
            until(f"{name} is at zero", lambda: not self.rdev.processes_of(name))
            return list(pool.map(lambda _: self._once(name), range(AT_ONCE)))

    def _once(self, name: str) -> int:
        if name in self._public:
            with self.rdev.client() as client:
                return self._public[name](client).status_code
        address = f"{self._internal}/services/{name}"
        with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
            return EVENT(client).status_code

    def status(self, name: str) -> int:
        """What a warm function answers."""
        return 200 if name in self._public else 202


@pytest.mark.timeout(120 + 3 * STARTS)
def test_no_request_is_lost_in_cold_starts(tmp_path: Path) -> None:
    """All functions from zero in random order: every request gets the answer of a warm one."""
    rdev = Rdev(tmp_path / "home", RDEV_IDLE_S="0", RDEV_TICK_S="3600").start()
    try:
        command = rdev.submit(script="echo one")
        rdev.ended(command["id"])
        cold = Cold(rdev, command["id"])
        order = [cold.names[number % len(cold.names)] for number in range(STARTS)]
        random.Random(4).shuffle(order)
        before = rdev.cold_starts()
        with ThreadPoolExecutor(WORKERS) as pool:
            statuses = list(pool.map(cold.ask, order))
        answers = Counter(
            (name, status) for name, got in zip(order, statuses, strict=True) for status in got
        )
        assert answers == Counter(
            {(name, cold.status(name)): AT_ONCE * order.count(name) for name in cold.names}
        )
        started = Counter(rdev.cold_starts())
        started.subtract(before)
        print(f"{sum(started.values())} cold starts, {sum(answers.values())} requests")
        assert all(started[name] >= order.count(name) for name in cold.names)
    finally:
        rdev.stop()
