"""Every way in which the real claude can end, and what rdev says of it; the model is a stand-in.

The rows run at once, because a claude takes a second of a core: `ended` submits them all and each
test looks at one. What has to be disturbed while it runs has a test of its own.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from infra.local.claude import path_with_claude
from tests.harness.messages_api import (
    HANGS,
    MessagesApi,
    Turn,
    by_word,
    refusal,
    stand_in,
    text,
    tool,
)
from tests.harness.running import Rdev, marked, until

pytestmark = pytest.mark.skipif(
    not path_with_claude("").strip(":"), reason="no claude here: uv sync --extra claude"
)

SECRET = ("c4n4ry-mcp", "sk-stand-in")
SEES = "echo seen; env | grep -v API_KEY"
BASH = {"allowed_tools": ["Bash"]}
BROKEN = {"mcp_servers": {"hub": {"command": "/nonexistent", "env": {"TOKEN": "c4n4ry-mcp"}}}}
LONG, LONGER = "A" * 100_000, "B" * 1_500_000
OBJECT = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def bash(command: str) -> Turn:
    return tool("Bash", command=command, description="x")


@dataclass(frozen=True)
class Row:
    """A script for the model, what is asked for, and how it must end."""

    turns: list[Turn]
    state: str
    reason: str
    exit_code: int | None
    body: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


ROWS: dict[str, Row] = {
    "ok": Row([bash(SEES), text("fine")], "succeeded", "exit_zero", 0, options=BASH),
    "denied": Row(
        [bash("touch canary"), text("no")],
        "succeeded",
        "completed_with_denials",
        0,
        options={"permission_mode": "dontAsk"},
    ),
    "schema": Row(
        [tool("StructuredOutput", n=7), text("7")],
        "succeeded",
        "exit_zero",
        0,
        options={"json_schema": OBJECT},
    ),
    "mcp-optional": Row([text("without")], "succeeded", "exit_zero", 0, options=BROKEN),
    "mcp-required": Row(
        [HANGS], "failed", "mcp_failed", None, options=BROKEN | {"require_mcp": True}
    ),
    "api-error": Row(
        [refusal(400, "invalid_request_error", "no such thing")], "failed", "api_error", 1
    ),
    "no-login": Row([text("x")], "failed", "api_error", 1, body={"env": {"ANTHROPIC_API_KEY": ""}}),
    "max-turns": Row(
        [bash("true"), bash("true")], "failed", "max_turns", 1, options=BASH | {"max_turns": 1}
    ),
    "max-budget": Row(
        [bash("true"), bash("true")],
        "failed",
        "max_budget",
        1,
        options=BASH | {"max_budget_usd": 0.0000001},
    ),
    "session-unknown": Row(
        [text("x")],
        "failed",
        "session_unknown",
        1,
        body={"session": {"mode": "resume", "id": "00000000-0000-4000-8000-000000000000"}},
    ),
    "refused-at-start": Row(
        [text("x")], "failed", "exit_nonzero", 1, options={"json_schema": {"unheard_of": 1}}
    ),
    "shot": Row([bash("kill -KILL $PPID"), text("x")], "failed", "signalled", 137, options=BASH),
    "terminated": Row(
        [bash("kill -TERM $PPID; tail -f /dev/null"), text("x")],
        "failed",
        "signalled",
        143,
        options=BASH,
    ),
    "stalled": Row([HANGS], "timed_out", "idle", None, body={"timeouts": {"idle_s": 4}}),
    "long-line": Row([text(LONG)], "succeeded", "exit_zero", 0),
    "longer-line": Row([text(LONGER)], "succeeded", "exit_zero", 0),
    "lingers": Row([text("done")], "succeeded", "exit_zero", None, body={"project": "hanging"}),
}


@pytest.fixture(scope="module")
def scripts() -> dict[str, list[Turn]]:
    """What the model says in the conversation that holds a word."""
    return {f"row {name}.": row.turns for name, row in ROWS.items()}


@pytest.fixture(scope="module")
def model(scripts: dict[str, list[Turn]]) -> Iterator[MessagesApi]:
    with stand_in() as api:
        api.turns = by_word(scripts)
        yield api


@pytest.fixture(scope="module")
def claude(model: MessagesApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rdev]:
    """An rdev whose claude talks to the stand-in; its second project hangs at every end."""
    home: Path = tmp_path_factory.mktemp("claude") / "rdev"
    settings = home / "workspaces" / "hanging" / ".claude" / "settings.json"
    settings.parent.mkdir(parents=True)
    hook = {"hooks": [{"type": "command", "command": "sleep 600", "timeout": 600}]}
    settings.write_text(json.dumps({"hooks": {"SessionEnd": [hook]}}))
    (home / "projects.yaml").write_text(yaml.safe_dump({"demo": {"max_concurrent_commands": 20}}))
    own = model.environment(str(home / "config"))
    # What a claude that started `rdev up` would leave behind.
    inherited = {"CLAUDECODE": "1", "CLAUDE_CODE_ENTRYPOINT": "cli", "CLAUDE_CODE_SSE_PORT": "1"}
    running = Rdev(home, **own, **inherited).start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def ended(claude: Rdev) -> dict[str, dict[str, Any]]:
    """Every row, ended."""
    ids = {
        name: claude.submit(kind="claude", prompt=f"row {name}.", options=row.options, **row.body)[
            "id"
        ]
        for name, row in ROWS.items()
    }
    return {name: claude.ended(command_id, patience_s=120) for name, command_id in ids.items()}


@pytest.mark.parametrize("name", ROWS)
def test_every_end_has_its_reason(ended: dict[str, dict[str, Any]], name: str) -> None:
    """The truth table, row by row; what a killed claude exits with is its own business."""
    row, end = ROWS[name], ended[name]
    outcome = end["outcome"]
    assert (end["state"], outcome["reason"]) == (row.state, row.reason), outcome
    assert row.exit_code in (None, outcome["exit_code"])
    assert not marked(end["id"])


def test_an_ending_tells_what_it_took(ended: dict[str, dict[str, Any]]) -> None:
    """Turns, tokens and cost are the result's, not sums over messages, which repeat themselves."""
    agent = ended["ok"]["outcome"]["agent"]
    assert (agent["num_turns"], agent["result"]) == (2, "fine")
    assert (agent["usage"]["input_tokens"], agent["usage"]["output_tokens"]) == (22, 14)
    assert agent["cost_usd"] > 0
    assert ended["schema"]["outcome"]["agent"]["structured_output"] == {"n": 7}
    assert ended["denied"]["outcome"]["agent"]["permission_denials"][0]["tool_name"] == "Bash"
    assert ended["max-turns"]["outcome"]["agent"]["cost_usd"] > 0
    assert ended["mcp-required"]["outcome"]["detail"] == "not connected: hub (failed)"
    lingered = ended["lingers"]["outcome"]
    assert (lingered["agent"]["result"], "did not exit" in lingered["detail"]) == ("done", True)


def test_secrets_are_nowhere(claude: Rdev, ended: dict[str, dict[str, Any]]) -> None:
    """Not in the command, its events, its run directory, logs, the database, or claude's files."""
    end = ended["mcp-optional"]
    told = json.dumps(end) + json.dumps(claude.follow(end["id"])) + "".join(claude.output)
    assert not any(canary in told for canary in SECRET)
    for path in claude.home.rglob("*"):  # the database's own files are among these
        if path.is_file():
            with suppress(OSError):  # PostgreSQL renames and removes its own
                data = path.read_bytes()
                assert not any(canary.encode() in data for canary in SECRET), path


def test_events_say_what_claude_says(claude: Rdev, ended: dict[str, dict[str, Any]]) -> None:
    """Each line is kept as it was and has a view."""
    events = claude.follow(ended["ok"]["id"])
    items = [i for e in events if e["event"] == "agent" for i in e["data"]["view"]]
    kinds = [item["kind"] for item in items]
    assert kinds == ["init", "tool_call", "tool_result", "text", "result"]
    assert items[2]["text"].startswith("seen\n")
    raw = [e["data"]["raw"] for e in events if e["event"] == "agent"]
    printed = claude.output_of(ended["ok"]["id"], "stdout").splitlines()
    assert [json.loads(line) for line in printed] == raw


@pytest.mark.parametrize(("name", "said"), [("long-line", LONG), ("longer-line", LONGER)])
def test_long_lines_are_kept_whole(
    claude: Rdev, ended: dict[str, dict[str, Any]], name: str, said: str
) -> None:
    """In pieces of output, each event small, with a word on what the line was."""
    end = ended[name]
    events = claude.follow(end["id"])
    assert all(len(json.dumps(e["data"])) <= 64 * 1024 for e in events if e["event"] != "end")
    long = [e["data"] for e in events if e["event"] == "agent" and e["data"].get("truncated")]
    assert [line["type"] for line in long] == ["assistant", "result"]
    printed = claude.output_of(end["id"], "stdout")
    for line in long:
        whole = printed[line["offset"] : line["offset"] + line["size"]]
        assert json.loads(whole)["uuid"] == line["uuid"]
        assert said.encode() in whole
    agent = end["outcome"]["agent"]
    assert (agent["result"], agent["num_turns"]) == (said if said is LONG else None, 1)


def test_claude_knows_nothing_of_a_claude_around_it(
    claude: Rdev, ended: dict[str, dict[str, Any]]
) -> None:
    """Its environment has who it is, and nothing of ours or of what was inherited."""
    printed = claude.output_of(ended["ok"]["id"], "stdout").decode()
    assert "CLAUDE_CODE_ENTRYPOINT=sdk-cli" in printed  # its own, not the inherited one
    assert "ANTHROPIC_BASE_URL" in printed
    assert "CLAUDE_CODE_SSE_PORT" not in printed
    assert "RDEV_DATABASE_URL" not in printed
    assert "RDEV_SECRET_KEYS" not in printed


# -- what is disturbed while it runs --------------------------------------------------------------


@dataclass
class Run:
    """A claude command with a script of its own, in a folder with files to signal by."""

    rdev: Rdev
    id: str
    folder: Path

    def reached(self, file: str) -> None:
        until(f"{file} is there", (self.folder / file).exists)

    def interrupt(self) -> None:
        os.kill(until("claude runs", self._claude), signal.SIGINT)

    def _claude(self) -> int | None:
        for pid in marked(self.id):
            with suppress(psutil.Error):
                if psutil.Process(pid).cmdline()[:2] == ["claude", "-p"]:
                    return pid
        return None

    def left(self) -> list[str]:
        """What still runs with the command's mark."""
        found = []
        for pid in marked(self.id):
            with suppress(psutil.Error):
                found.append(" ".join(psutil.Process(pid).cmdline()))
        return found


@pytest.fixture
def begin(
    claude: Rdev, scripts: dict[str, list[Turn]], request: pytest.FixtureRequest
) -> Callable[..., Run]:
    """Start a command with these turns."""
    name = request.node.name
    folder = claude.home / "workspaces" / "demo"

    def started(*turns: Turn, **options: Any) -> Run:
        scripts[f"row {name}."] = list(turns)
        made = claude.submit(kind="claude", prompt=f"row {name}.", options=BASH | options)
        return Run(claude, made["id"], folder)

    return started


def test_exit_code_0_after_an_interrupt_is_no_success(
    claude: Rdev, begin: Callable[..., Run]
) -> None:
    """INT while the model thinks makes claude exit 0, with an error for a result or with none."""
    run = begin(HANGS, partial_messages=True)
    until("the model thinks", lambda: b"message_start" in claude.output_of(run.id, "stdout"))
    run.interrupt()
    outcome = claude.ended(run.id)["outcome"]
    said = [json.loads(line)["type"] for line in claude.output_of(run.id, "stdout").splitlines()]
    expected = "agent_error" if "result" in said else "no_result"
    assert (outcome["reason"], outcome["exit_code"]) == (expected, 0)


def test_a_tool_that_is_interrupted_is_an_error_of_the_agent(
    claude: Rdev, begin: Callable[..., Run]
) -> None:
    """INT while a tool runs ends the tool, and claude says so."""
    run = begin(bash("touch interrupted; tail -f /dev/null"), text("x"))
    run.reached("interrupted")
    run.interrupt()
    outcome = claude.ended(run.id)["outcome"]
    assert outcome["reason"] == "agent_error", outcome
    assert outcome["agent"]["session_id"]
    assert run.left() == []


@pytest.mark.parametrize("mode", ["graceful", "force"])
def test_a_cancel_leaves_no_tool_behind(claude: Rdev, begin: Callable[..., Run], mode: str) -> None:
    """claude's tools have sessions of their own and survive it; the mark in /proc finds them."""
    run = begin(bash(f"touch {mode}; tail -f /dev/null"), text("x"))
    run.reached(mode)
    assert any("tail" in line for line in run.left())
    with claude.client() as client:
        client.post(f"/v1/commands/{run.id}/cancel", json={"mode": mode})
    end = claude.ended(run.id)
    assert (end["state"], end["outcome"]["reason"]) == ("cancelled", "user")
    assert run.left() == []
    assert mode == "graceful" or end["outcome"]["orphans_killed"] >= 1


def kill_followers(command_id: str) -> None:
    """SIGKILL of what reads a command's output in its workspace, once it is there."""
    mark = f"RDEV_FOLLOWER={command_id.removeprefix('cmd_')}.".encode()

    def found() -> list[int]:
        pids = []
        for entry in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if mark in entry.read_bytes():
                    pids.append(int(entry.parent.name))
        return pids

    for pid in until("it is followed", found):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_followers_and_the_runner_are_killed_in_the_middle(
    claude: Rdev, model: MessagesApi, begin: Callable[..., Run]
) -> None:
    """One session, run once, its transcript whole and its cost what the model was asked for."""
    wait = "touch half; until [ -e whole ]; do sleep 0.1; done; echo seen"
    run = begin(bash(wait), text(LONG))
    run.reached("half")
    kill_followers(run.id)
    claude.kill_function("on-command-queued")
    (run.folder / "whole").touch()
    end = claude.ended(run.id)
    assert (end["state"], end["outcome"]["reason"]) == ("succeeded", "exit_zero")
    agent = end["outcome"]["agent"]
    assert (agent["num_turns"], agent["result"]) == (2, LONG)
    assert (agent["usage"]["input_tokens"], agent["usage"]["output_tokens"]) == (22, 14)
    asked = [r for r in model.requests if "runner_are_killed" in json.dumps(r["messages"])]
    assert len(asked) == 2
    lines = [json.loads(line) for line in claude.output_of(run.id, "stdout").splitlines()]
    assert [line.get("subtype") for line in lines].count("init") == 1
    assert agent["cost_usd"] == round(lines[-1]["total_cost_usd"], 10) > 0
    assert {line["session_id"] for line in lines} == {agent["session_id"]} == {end["session_id"]}
    [transcript] = (claude.home / "config" / "projects").rglob(f"{end['session_id']}.jsonl")
    answers = [line for line in transcript.read_text().splitlines() if LONG in line]
    assert answers
