"""What a laptop does to rdev: a taken port, a second start, projects that change or go."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import yaml

from tests.harness.running import ROOT, Rdev, until


def start(home: Path, port: int) -> subprocess.CompletedProcess[str]:
    """`rdev up` that is expected to end by itself."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RDEV_")}
    return subprocess.run(
        [sys.executable, "-m", "rdev", "up"],
        cwd=ROOT,
        env=environment | {"RDEV_HOME": str(home), "RDEV_PORT": str(port)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_taken_port_is_said_in_one_line(tmp_path: Path) -> None:
    """One clear line on stderr, and an exit code that is not 0."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = start(tmp_path / "home", port)
    assert ended.returncode != 0
    assert len(ended.stderr.splitlines()) == 1
    assert str(port) in ended.stderr


def test_a_second_rdev_on_one_home_is_refused_in_one_line(rdev: Rdev) -> None:
    """The first goes on; the second says which process has the home."""
    assert rdev.process is not None
    ended = start(rdev.home, 0)
    assert ended.returncode != 0
    assert len(ended.stderr.splitlines()) == 1
    assert str(rdev.process.pid) in ended.stderr
    assert rdev.get(rdev.submit(script="true")["id"])


def test_a_bad_entry_is_reported_on_its_project_and_others_live(rdev: Rdev) -> None:
    """A wrong setting and a file that is no YAML are issues of projects, and demo still runs."""
    settings = rdev.home / "projects.yaml"
    before = settings.read_text()

    def issues() -> list[str]:
        with rdev.client() as client:
            found: list[str] = client.get("/v1/projects/demo").json()["issues"]
            return found

    try:
        settings.write_text(yaml.safe_dump({"demo": {"max_concurrent_commands": "many"}}))
        assert "max_concurrent_commands" in until("it is reported", issues)[0]
        settings.write_text("demo: [unclosed")
        until("the broken file is reported", lambda: "cannot be read" in str(issues()))
        assert rdev.ended(rdev.submit(script="true")["id"])["state"] == "succeeded"
    finally:
        settings.write_text(before)
    until("all is well again", lambda: not issues())


def test_a_project_removed_while_a_command_runs_there(rdev: Rdev, tmp_path: Path) -> None:
    """The project is gone for new commands; the running one goes on to its true end."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    settings = rdev.home / "projects.yaml"
    before = settings.read_text()
    gate = tmp_path / "gate"

    def phase() -> int:
        with rdev.client() as client:
            return client.get("/v1/projects/passing").status_code

    try:
        settings.write_text(yaml.safe_dump({"passing": {"workspace": str(elsewhere)}}))
        until("the project appears", lambda: phase() == 200)
        command = rdev.submit(
            project="passing", script=f"while [ ! -e {gate} ]; do sleep 0.02; done; echo done"
        )
        until("it runs", lambda: rdev.get(command["id"])["state"] == "running")
        settings.write_text(before)
        until("the project goes", lambda: phase() == 404)
        with rdev.client() as client:
            body = {"project": "passing", "kind": "shell", "script": "true"}
            assert client.post("/v1/commands", json=body).status_code == 404
        gate.touch()
        assert rdev.ended(command["id"])["state"] == "succeeded"
        assert rdev.output_of(command["id"]) == b"done\n"
    finally:
        settings.write_text(before)
