"""The real claude with a stand-in model: its lines pass through, its outcome is weighed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from infra.local.claude import path_with_claude
from tests.harness.messages_api import MessagesApi, stand_in, text, tool
from tests.harness.running import Rdev, until

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
    # More than this command costs, less than its session: a budget is the command's own.
    budget = {"max_budget_usd": cost(first) * 1.5}
    second = run(claude, model, [text("two")], prompt="which word", session=session, options=budget)
    assert second["state"] == "succeeded"
    assert "heron" in json.dumps(model.requests[0]["messages"])
    # claude tells the session's total; the command is billed its own part, and its own tokens.
    assert second["outcome"]["agent"]["session_total"]["cost_usd"] == pytest.approx(
        cost(first) + cost(second)
    )
    assert cost(second) == pytest.approx(cost(first))
    unknown = {"mode": "resume", "id": "00000000-0000-4000-8000-000000000000"}
    lost = run(claude, model, [text("three")], prompt="hi", session=unknown)
    assert lost["state"] == "failed"


def cost(command: dict[str, Any]) -> float:
    return float(command["outcome"]["agent"]["cost_usd"])


def used(claude: Rdev) -> dict[str, dict[str, Any]]:
    """What was used so far, by model."""
    with claude.client() as client:
        items = client.get("/v1/usage?by=model").json()["items"]
    return {item["model"]: item for item in items}


def test_a_fork_is_a_session_of_its_own(claude: Rdev, model: MessagesApi) -> None:
    """It knows what its source knew, has its own id and costs its own part; usage adds up."""
    before = used(claude)
    first = run(claude, model, [text("one")], prompt="remember the word egret")
    source = first["session_id"]
    fork = {"mode": "fork", "id": source}
    copy = run(claude, model, [text("two")], prompt="which word", session=fork)
    assert "egret" in json.dumps(model.requests[0]["messages"])
    own = copy["session_id"]
    assert own == copy["outcome"]["agent"]["session_id"] != source
    again = run(claude, model, [text("3")], prompt="x", session={"mode": "resume", "id": own})
    with claude.client() as client:
        page = client.get("/v1/projects/demo/sessions", params={"limit": 2}).json()
        one = client.get(f"/v1/projects/demo/sessions/{own}").json()
    assert [s["id"] for s in page["items"]] == [own, source]
    assert page["items"][0] == one
    assert (one["forked_from"], one["commands"], one["turns"]) == (source, 2, 2)
    assert (one["state"], one["first_command"], one["last_command"]) == (
        "free", copy["id"], again["id"],
    )  # fmt: skip
    assert one["cost_usd"] == pytest.approx(cost(copy) + cost(again))
    [told] = [e["data"] for e in claude.follow(again["id"]) if e["event"] == "usage"]
    assert told["cost_usd"] == pytest.approx(cost(again)) == pytest.approx(cost(first))
    assert (told["input_tokens"], told["output_tokens"]) == (11, 7)
    assert list(told["models"]) == [one["model"]]
    # By claude's own name of its model, every token counted once.
    now, then = (usage.get(one["model"], {}) for usage in (used(claude), before))
    rise = {
        name: now[name] - then.get(name, 0) for name in now if isinstance(now[name], int | float)
    }
    assert (rise["commands"], rise["input_tokens"], rise["output_tokens"]) == (3, 33, 21)
    assert rise["cost_usd"] == pytest.approx(cost(first) + cost(copy) + cost(again))


def test_two_resumes_of_one_session_never_run_at_once(claude: Rdev, model: MessagesApi) -> None:
    """While one holds it another waits, is refused, or forks, as it asked for."""
    first = run(claude, model, [text("one")], prompt="x")
    session = {"mode": "resume", "id": first["session_id"]}
    answered = threading.Event()
    model.turns, model.requests[:], model.hold = [text("ok")], [], answered
    try:
        holder = claude.submit(kind="claude", prompt="x", session=session)
        until("claude asks the model", lambda: model.requests)
        waiting = claude.submit(kind="claude", prompt="x", session=session)
        with claude.client() as client:
            body = {"prompt": "x", "session": session | {"if_busy": "reject"}}
            refused = client.post("/v1/projects/demo/claude", json=body)
            busy = client.get(f"/v1/projects/demo/sessions/{first['session_id']}").json()
        assert (refused.status_code, refused.json()["code"]) == (409, "session_busy")
        assert (busy["state"], busy["busy_with"], busy["waiting"]) == ("busy", holder["id"], 1)
        fork = claude.submit(kind="claude", prompt="x", session=session | {"if_busy": "fork"})
        until("the fork asks the model too", lambda: len(model.requests) == 2)
        assert claude.get(waiting["id"])["state"] == "queued"
    finally:
        answered.set()
        model.hold = None
    held, waited, forked = (claude.ended(c["id"]) for c in (holder, waiting, fork))
    assert {c["state"] for c in (held, waited, forked)} == {"succeeded"}
    assert waited["started_at"] >= held["finished_at"]
    assert held["session_id"] == waited["session_id"] != forked["session_id"]
