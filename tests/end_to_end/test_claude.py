"""The real claude with a stand-in model: its lines pass through, its outcome is weighed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from infra.local.claude import path_with_claude
from tests.harness.messages_api import MessagesApi, stand_in, text, tool
from tests.harness.running import Rdev

pytestmark = pytest.mark.skipif(
    not path_with_claude("").strip(":"), reason="no claude here: uv sync --extra claude"
)


@pytest.fixture(scope="module")
def model() -> Iterator[MessagesApi]:
    """The stand-in model; tests say what it answers."""
    with stand_in(text("unset")) as api:
        yield api


@pytest.fixture(scope="module")
def claude(model: MessagesApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rdev]:
    """An rdev whose claude talks to the stand-in."""
    home: Path = tmp_path_factory.mktemp("claude")
    running = Rdev(home / "rdev", **model.environment(str(home / "config"))).start()
    yield running
    running.stop()


def run(claude: Rdev, model: MessagesApi, turns: list[Any], **body: Any) -> dict[str, Any]:
    """A claude command, ended."""
    model.turns, model.requests[:] = turns, []
    return claude.ended(claude.submit(kind="claude", **body)["id"], patience_s=120)


def test_a_prompt_is_answered(claude: Rdev, model: MessagesApi) -> None:
    """The prompt goes in by stdin, each line is an event with its JSON, the result is told."""
    end = run(claude, model, [text("Hello from nobody")], prompt="--version")
    assert (end["state"], end["outcome"]["reason"]) == ("succeeded", "exit_zero")
    agent = end["outcome"]["agent"]
    assert (agent["result"], agent["num_turns"]) == ("Hello from nobody", 1)
    assert UUID(agent["session_id"]) == UUID(hex=end["id"].removeprefix("cmd_"))
    assert "--version" in json.dumps(model.requests[0]["messages"])
    events = claude.follow(end["id"])
    lines = [e["data"]["raw"] for e in events if e["event"] == "agent"]
    assert [line["type"] for line in lines if line["type"] in ("assistant", "result")] == [
        "assistant",
        "result",
    ]
    raw = [json.loads(line) for line in claude.output_of(end["id"], "stdout").splitlines()]
    assert raw == lines


def test_a_tool_call_that_is_denied_is_not_hidden(claude: Rdev, model: MessagesApi) -> None:
    """claude exits 0 although it was not allowed to run its tool; the outcome says so."""
    turns = [tool("Bash", command="touch canary", description="x"), text("I could not")]
    end = run(claude, model, turns, prompt="touch it", options={"permission_mode": "default"})
    assert (end["state"], end["outcome"]["reason"]) == ("succeeded", "completed_with_denials")
    assert end["outcome"]["agent"]["permission_denials"][0]["tool_name"] == "Bash"
    assert not (claude.home / "workspaces" / "demo" / "canary").exists()


def test_a_session_is_resumed_by_its_id(claude: Rdev, model: MessagesApi) -> None:
    """A second command in the session sees the first one's words; an unknown session fails."""
    first = run(claude, model, [text("one")], prompt="remember the word heron")
    session = {"mode": "resume", "id": first["outcome"]["agent"]["session_id"]}
    second = run(claude, model, [text("two")], prompt="which word", session=session)
    assert second["state"] == "succeeded"
    assert "heron" in json.dumps(model.requests[0]["messages"])
    unknown = {"mode": "resume", "id": "00000000-0000-4000-8000-000000000000"}
    lost = run(claude, model, [text("three")], prompt="hi", session=unknown)
    assert lost["state"] == "failed"
