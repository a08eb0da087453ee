"""The runner dies between a decision and its delivery: claude is told all the same, and once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.claude import path_with_claude
from tests.harness.messages_api import stand_in, text, touches
from tests.harness.running import Rdev, marked, until

pytestmark = pytest.mark.skipif(
    not path_with_claude("").strip(":"), reason="no claude here: uv sync --extra claude"
)
RUNNER = "on-command-queued"


@pytest.fixture
def claude(tmp_path: Path) -> Iterator[Rdev]:
    """An rdev whose claude wants to run the `touch` of its prompt."""
    with stand_in(text("unset")) as model:
        model.turns = touches
        running = Rdev(tmp_path / "rdev", **model.environment(str(tmp_path / "config"))).start()
        yield running
        running.stop()


def test_a_decision_outlives_the_runner(claude: Rdev) -> None:
    """SIGSTOP, decide, SIGKILL: the decision was stored and never sent; the adopter sends it."""
    options = {"approvals": True, "permission_mode": "default"}
    command = claude.submit(kind="claude", prompt="touch canary", options=options)
    events = claude.following(command["id"])
    asked = next(e["data"] for e in events if e["event"] == "approval")
    stopped = claude.kill_function(RUNNER, signal.SIGSTOP)
    with claude.client() as client:
        path = f"/v1/commands/{command['id']}/approvals/{asked['tool_use_id']}"
        assert client.post(path, json={"decision": "allow"}).status_code == 200
        assert client.post(path, json={"decision": "deny"}).status_code == 409
    canary = claude.home / "workspaces" / "demo" / "canary"
    assert not canary.exists()
    for pid in stopped:
        os.kill(pid, signal.SIGKILL)
    end = claude.ended(command["id"])
    assert (end["state"], end["outcome"]["reason"]) == ("succeeded", "exit_zero")
    assert canary.exists()
    assert end["outcome"]["agent"]["num_turns"] == 2
    inputs = list((claude.home / "runs" / "demo" / command["id"].removeprefix("cmd_")).glob("in.*"))
    pieces = [path for path in inputs if path.name.removeprefix("in.").isdigit()]
    assert len(pieces) == 2, "the prompt and one answer"
    states = [e["data"]["state"] for e in claude.follow(command["id"]) if e["event"] == "approval"]
    assert states == ["pending", "allowed"]
    until("nothing is left", lambda: not marked(command["id"]))
