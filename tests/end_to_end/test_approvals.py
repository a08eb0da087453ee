"""The real claude asks for a permission, and somebody allows it, denies it, or nobody answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.local.claude import path_with_claude
from tests.harness.messages_api import MessagesApi, stand_in, text, touches
from tests.harness.running import Rdev

pytestmark = pytest.mark.skipif(
    not path_with_claude("").strip(":"), reason="no claude here: uv sync --extra claude"
)
WAIT_S = 12  # longer than anybody here takes to decide, short enough to wait for


@pytest.fixture(scope="module")
def model() -> Iterator[MessagesApi]:
    """A stand-in model that wants to run the `touch` of each prompt."""
    with stand_in(text("unset")) as api:
        api.turns = touches
        yield api


@pytest.fixture(scope="module")
def claude(model: MessagesApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rdev]:
    """An rdev whose claude talks to the stand-in."""
    home: Path = tmp_path_factory.mktemp("approvals")
    environment = model.environment(str(home / "config"))
    environment["RDEV_APPROVAL_TIMEOUT_S"] = str(WAIT_S)
    running = Rdev(home / "rdev", **environment).start()
    yield running
    running.stop()


@pytest.fixture(scope="module", autouse=True)
def ignored(claude: Rdev) -> dict[str, Any]:
    """A command that asks at the beginning of this module; its time goes by meanwhile."""
    return ask(claude, "ignored")


def ask(claude: Rdev, name: str) -> dict[str, Any]:
    """A claude that wants to make a file of this name."""
    options = {"approvals": True, "permission_mode": "default"}
    return claude.submit(kind="claude", prompt=f"touch {name}", options=options)


def pending(claude: Rdev, command: dict[str, Any]) -> dict[str, Any]:
    """The request of a command, once it is there."""
    for event in claude.following(command["id"]):
        if event["event"] == "approval":
            data: dict[str, Any] = event["data"]
            return data
    raise AssertionError("claude asked for nothing")


def decide(claude: Rdev, command: dict[str, Any], tool_use_id: str, **body: Any) -> httpx.Response:
    with claude.client() as client:
        return client.post(f"/v1/commands/{command['id']}/approvals/{tool_use_id}", json=body)


def made(claude: Rdev, name: str) -> bool:
    return (claude.home / "workspaces" / "demo" / name).exists()


def states(claude: Rdev, command: dict[str, Any]) -> list[str]:
    return [e["data"]["state"] for e in claude.follow(command["id"]) if e["event"] == "approval"]


def test_what_is_allowed_is_done(claude: Rdev) -> None:
    """The request says what claude wants; once allowed it goes on, and ends by itself."""
    command = ask(claude, "allowed")
    asked = pending(claude, command)
    assert (asked["tool_name"], asked["input"]["command"]) == ("Bash", "touch allowed")
    assert asked["state"] == "pending"
    assert not made(claude, "allowed")
    assert decide(claude, command, "toolu_forged", decision="allow").status_code == 404
    with ThreadPoolExecutor(2) as two:  # at the same moment: one is the first
        answers = two.map(
            lambda _: decide(claude, command, asked["tool_use_id"], decision="allow"), range(2)
        )
    answer, again = sorted(answers, key=lambda a: a.status_code)
    assert (answer.status_code, answer.json()["state"]) == (200, "allowed")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    end = claude.ended(command["id"])
    assert (end["state"], end["outcome"]["reason"]) == ("succeeded", "exit_zero")
    assert made(claude, "allowed")
    assert states(claude, command) == ["pending", "allowed"]
    with claude.client() as client:
        [kept] = client.get(f"/v1/commands/{command['id']}/approvals").json()["items"]
        trail = client.get("/v1/audit?action=approval.allowed").json()["items"]
    assert (kept["state"], kept["input"]) == ("allowed", None)
    assert [(e["target"], e["detail"]["tool_name"]) for e in trail] == [(command["id"], "Bash")]
    assert "touch" not in json.dumps(trail)


def test_what_is_denied_is_not_done(claude: Rdev, model: MessagesApi) -> None:
    """The model reads why, and the outcome hides nothing."""
    command = ask(claude, "denied")
    asked = pending(claude, command)
    why = "Rather ask the owner."
    assert decide(claude, command, asked["tool_use_id"], decision="deny", message=why).is_success
    end = claude.ended(command["id"])
    assert (end["state"], end["outcome"]["reason"]) == ("succeeded", "completed_with_denials")
    assert not made(claude, "denied")
    assert any(why in json.dumps(request) for request in model.requests)


def test_what_nobody_answers_is_denied(claude: Rdev, ignored: dict[str, Any]) -> None:
    """claude is told so, goes on without the tool, and ends."""
    end = claude.ended(ignored["id"])
    assert (end["state"], end["outcome"]["reason"]) == ("succeeded", "completed_with_denials")
    assert not made(claude, "ignored")
    assert states(claude, ignored) == ["pending", "expired"]
