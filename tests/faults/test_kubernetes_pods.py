"""Pods and the API server fail under commands: nothing runs twice, nothing is lost silently."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from infra.local.claude import path_with_claude
from tests.fake_kubernetes.rdev import make_pod, rdev_on
from tests.fake_kubernetes.running import FakeKubernetes
from tests.harness.messages_api import MessagesApi, stand_in, text, tool
from tests.harness.running import Rdev, marked, text_of, until

LINES = 40
SCRIPT = "echo run >> {proof}; i=0; while [ $i -lt {n} ]; do i=$((i+1)); echo $i; sleep 0.1; done"
NUMBERED = "".join(f"{i}\n" for i in range(1, LINES + 1))


class Stage:
    """An rdev on the fake, and one pod for each test."""

    def __init__(self, fake: FakeKubernetes, rdev: Rdev, model: MessagesApi) -> None:
        self.fake = fake
        self.rdev = rdev
        self.model = model
        self.project = self.pod = ""

    def enter(self, project: str) -> None:
        """A project of this test's own."""
        self.project, self.pod = project, f"{project}-0"
        self.make_pod()
        until("the project is ready", lambda: self.shown().get("phase") == "ready")

    def make_pod(self) -> None:
        claude = self.model.environment(str(self.rdev.home / "claude"))
        path = path_with_claude(os.environ["PATH"])
        make_pod(self.fake, self.rdev.home, self.pod, self.project, PATH=path, **claude)

    def shown(self) -> dict[str, Any]:
        with self.rdev.client() as client:
            found: dict[str, Any] = client.get(f"/v1/projects/{self.project}").json()
        return found

    @property
    def proof(self) -> Path:
        return self.rdev.home / f"{self.project}.runs"

    def run(self) -> dict[str, Any]:
        """A command that prints numbered lines and has printed its third."""
        script = SCRIPT.format(proof=self.proof, n=LINES)
        command = self.rdev.submit(project=self.project, script=script)
        with self.rdev.opened(f"/v1/streams/commands/{command['id']}") as events:
            text = ""
            for event in events:
                text += text_of([event])
                if "3\n" in text:
                    break
        return command


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with FakeKubernetes(tmp_path_factory.mktemp("fake")) as fake, stand_in(text("")) as model:
        rdev = rdev_on(fake, tmp_path_factory.mktemp("home"), RDEV_BREAKER_OPEN_S="1")
        rdev.start("--kubernetes")
        yield Stage(fake, rdev, model)
        fake.fail()
        rdev.stop()


@pytest.fixture
def stage(running: Stage, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A pod of the test's own; the faults end with the test."""
    running.enter(re.sub(r"[^a-z]+", "-", request.node.name.removeprefix("test_")).strip("-"))
    yield running
    running.fake.fail()


@pytest.mark.parametrize("fate", ["deleted", "recreated"])
def test_gone(stage: Stage, fate: str) -> None:
    """A pod deleted under a command ends it as lost, with the output there was, and ran it once."""
    command = stage.run()
    stage.fake.delete_pod(stage.pod)
    if fate == "recreated":
        stage.make_pod()
    end = stage.rdev.ended(command["id"])
    assert (end["state"], end["outcome"]["reason"]) == ("lost", "pod_deleted")
    kept = stage.rdev.output_of(command["id"]).decode()
    assert kept.startswith("1\n2\n3\n")
    assert NUMBERED.startswith(kept)
    assert end["outcome"]["output"]["bytes"] == len(kept)
    assert stage.proof.read_text() == "run\n"
    assert not marked(command["id"])
    if fate == "recreated":
        again = stage.rdev.submit(project=stage.project, script="echo here")
        assert stage.rdev.ended(again["id"])["state"] == "succeeded"


def test_restarted(stage: Stage) -> None:
    """A container that was started anew ends what ran in its earlier life."""
    command = stage.run()
    stage.fake.restart_pod(stage.pod)
    end = stage.rdev.ended(command["id"])
    assert (end["state"], end["outcome"]["reason"]) == ("lost", "pod_restarted")
    assert stage.proof.read_text() == "run\n"


@pytest.mark.parametrize(
    "faults",
    [{"exec_drop_every": 4, "frame_bytes": 64}, {"exec_early_success": True}, {"down": True}],
    ids=["dropped", "early", "down"],
)
def test_through(stage: Stage, faults: dict[str, Any]) -> None:
    """Cut wires, a Success that lies, an API server that is away: no line lost, no second run."""
    command = stage.run()
    stage.fake.fail(**faults)
    in_pod = stage.rdev.home / "runs" / stage.project
    last = f"\n{LINES}\n"
    until(
        "the command itself is done",
        lambda: any(
            last in path.read_text(errors="replace")
            for path in in_pod.rglob("out")
            if path.is_file()
        ),
    )
    stage.fake.fail()
    end = stage.rdev.ended(command["id"])
    assert (end["state"], end["outcome"]["reason"]) == ("succeeded", "exit_zero")
    assert stage.rdev.output_of(command["id"]).decode() == NUMBERED
    assert stage.proof.read_text() == "run\n"


def test_killed_runner(stage: Stage) -> None:
    """SIGKILL of the runner: the next one attaches to the same run in the same pod."""
    command = stage.run()
    stage.rdev.kill_function("on-command-queued")
    end = stage.rdev.ended(command["id"])
    assert end["state"] == "succeeded"
    assert stage.rdev.output_of(command["id"]).decode() == NUMBERED
    assert stage.proof.read_text() == "run\n"


def test_broken_neighbour(stage: Stage) -> None:
    """A pod that refuses exec is said on its project and blocks no other; then it works again."""
    stage.fake.fail(exec_status=500, exec_pods=[stage.pod])
    waiting = stage.rdev.submit(project=stage.project, script="echo at last")
    until("it is said", lambda: "not asked for a while" in str(stage.shown()["issues"]))
    fine = stage.rdev.submit(script="echo fine")
    assert stage.rdev.ended(fine["id"])["state"] == "succeeded"
    with stage.rdev.client() as client:
        ready = client.get("/ready")
        metrics = client.get("/metrics").text
    assert ready.status_code == 200
    assert ready.json()["checks"][f"workspace/{stage.project}"]["status"] == "unhealthy"
    assert f'rdev_breaker_state{{dep="workspace/{stage.project}"}}' in metrics
    stage.fake.fail()
    assert stage.rdev.ended(waiting["id"])["state"] == "succeeded"
    until("it is forgotten", lambda: stage.shown()["issues"] == [])


def test_pending(stage: Stage) -> None:
    """Commands for a pod that is not ready wait for it, and start when it is."""
    stage.fake.set_status(stage.pod, "Running", ready=False)
    until("it is pending", lambda: stage.shown()["phase"] == "pending")
    command = stage.rdev.submit(project=stage.project, script="echo ready")
    assert stage.rdev.get(command["id"])["state"] == "queued"
    stage.fake.set_status(stage.pod, "Running", ready=True)
    assert stage.rdev.ended(command["id"])["state"] == "succeeded"


def test_git(stage: Stage) -> None:
    """git runs in the pod as it does in a directory."""
    stage.rdev.ended(stage.rdev.submit(project=stage.project, script="git init -q")["id"])
    git = stage.rdev.submit(project=stage.project, kind="git", args=["status"])
    assert stage.rdev.ended(git["id"])["state"] == "succeeded"
    assert "No commits yet" in stage.rdev.output_of(git["id"]).decode()


@pytest.mark.skipif(
    not path_with_claude("").strip(":"), reason="no claude here: uv sync --extra claude"
)
def test_claude(stage: Stage) -> None:
    """The real claude in a pod, with the pod's own credential: its tool runs in the workspace."""
    bash = tool("Bash", command="echo in $PWD", description="where")
    stage.model.turns, stage.model.requests[:] = [bash, text("done")], []
    options = {"allowed_tools": ["Bash"]}
    command = stage.rdev.submit(
        project=stage.project, kind="claude", prompt="where are you", options=options
    )
    end = stage.rdev.ended(command["id"], patience_s=120)
    assert (end["state"], end["outcome"]["reason"]) == ("succeeded", "exit_zero")
    assert end["outcome"]["agent"]["result"] == "done"
    workspace = stage.rdev.home / "workspaces" / stage.project
    assert f"in {workspace}" in json.dumps(stage.model.requests[1]["messages"])
    lines = [e["data"]["raw"] for e in stage.rdev.follow(command["id"]) if e["event"] == "agent"]
    assert lines[-1]["type"] == "result"


@pytest.mark.skipif(
    not path_with_claude("").strip(":"), reason="no claude here: uv sync --extra claude"
)
def test_a_credential_of_its_own(stage: Stage) -> None:
    """A project's credential pays for its claude, and is nowhere but in claude's environment."""
    canary = "sk-c4n4ry-of-the-project"
    folder = stage.rdev.home / "claude-credentials"
    folder.mkdir()
    own = {"ANTHROPIC_API_KEY": canary, "ANTHROPIC_BASE_URL": stage.model.url}
    (folder / stage.project).write_text("".join(f"{n}={v}\n" for n, v in own.items()))
    wait = "touch half; until [ -e whole ]; do sleep 0.1; done"
    stage.model.turns = [tool("Bash", command=wait, description="x"), text("paid")]
    stage.model.requests.clear()
    work = stage.rdev.home / "workspaces" / stage.project
    options = {"allowed_tools": ["Bash"]}
    command = stage.rdev.submit(
        project=stage.project, kind="claude", prompt="go on", options=options
    )
    until("claude works", (work / "half").exists)
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            lines.append(entry.read_bytes())
    assert canary.encode() not in b"".join(lines)
    (work / "whole").touch()
    end = stage.rdev.ended(command["id"])
    assert (end["state"], end["outcome"]["agent"]["result"]) == ("succeeded", "paid")
    assert stage.model.keys[-1] == canary
    seen = json.dumps([end, stage.rdev.follow(command["id"])]) + "".join(stage.rdev.output)
    assert canary not in seen
    # The database's own files are among these, and so are logs, run directories and transcripts.
    for path in stage.rdev.home.rglob("*"):
        if path.is_file() and path.parent != folder:
            with suppress(OSError):  # PostgreSQL renames and removes its own
                assert canary.encode() not in path.read_bytes(), path
