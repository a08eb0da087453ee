"""`rdev up` as a process: what it says, what it leaves behind, and how it ends."""

from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from infra.local import main as up
from tests.harness.running import PATIENCE_S, Rdev, until


@pytest.fixture
def rdev(tmp_path: Path) -> Iterator[Rdev]:
    found = Rdev(tmp_path / "home").start()
    try:
        yield found
    finally:
        if found.process is not None and found.process.poll() is None:
            found.kill()


def test_a_first_start_makes_a_home(rdev: Rdev) -> None:
    """Keys are private, demo is a git repository with a commit, the settings explain themselves."""
    home = rdev.home
    for name in ("admin.key", "secret.key"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600
    log = subprocess.run(
        ["git", "log", "--oneline"],
        cwd=home / "workspaces" / "demo",
        capture_output=True,
        check=True,
    )
    assert log.stdout
    assert "allowed_commands" in (home / "projects.yaml").read_text()
    names = [one["name"] for one in rdev_projects(rdev)]
    assert names == ["demo"]


def rdev_projects(rdev: Rdev) -> list[dict[str, str]]:
    with rdev.client() as client:
        items: list[dict[str, str]] = client.get("/v1/projects").json()["items"]
    return items


def test_a_new_directory_is_a_project_without_waiting_for_a_tick(tmp_path: Path) -> None:
    """The watch rings the tick, which a long interval would not."""
    rdev = Rdev(tmp_path / "home", RDEV_TICK_S="3600").start()
    try:
        (rdev.home / "workspaces" / "fresh").mkdir()
        until("the new project appears", lambda: "fresh" in str(rdev_projects(rdev)), patience_s=10)
    finally:
        rdev.kill()


def test_a_second_one_on_the_same_home_says_so_and_leaves(
    rdev: Rdev, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line on stderr, exit status 1, and the first goes on."""
    assert up.main(["--port", "0", "--home", str(rdev.home)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(rdev.home) in said
    assert httpx.get(f"{rdev.url}/ready", trust_env=False).status_code == 200


def test_a_port_in_use_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line names the port and the way out."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert up.main(["--port", str(port), "--home", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(port) in said and "RDEV_PORT" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_leaves_no_process_and_no_address(rdev: Rdev, number: signal.Signals) -> None:
    """After the exit there is neither a child nor a file that says something runs."""
    family = rdev.descendants()
    assert rdev.stop(number) == 0
    assert psutil.wait_procs(family, timeout=0.5)[1] == []
    assert not (rdev.home / "status.json").exists() and not (rdev.home / "url").exists()


def test_a_sigkill_leaves_no_process_and_the_next_start_works(rdev: Rdev) -> None:
    """Functions, zygote and database end with it; the same key opens the next one."""
    key, family = rdev.key, rdev.descendants()
    rdev.kill()
    assert psutil.wait_procs(family, timeout=PATIENCE_S)[1] == []
    rdev.start()
    assert rdev.key == key and rdev_projects(rdev)


def test_a_killed_database_is_started_again(rdev: Rdev) -> None:
    """Requests succeed again after the server was killed."""
    postmaster = next(one for one in rdev.descendants() if "postgres" in one.name())
    postmaster.kill()
    until("the database answers again", lambda: _answers(rdev))


def _answers(rdev: Rdev) -> bool:
    with rdev.client() as client:
        return client.get("/v1/projects").status_code == 200


def test_json_lines_tell_what_happens(tmp_path: Path) -> None:
    """With --json every line is an object, and one of them says ready with the address."""
    rdev = Rdev(tmp_path / "home")
    rdev.start("--json")
    try:
        until("it said so", lambda: any('"ready"' in line for line in rdev.output))
        lines = [json.loads(line) for line in rdev.output]
        assert any(line.get("event") == "ready" for line in lines)
        assert any(line.get("event") == "function_started" for line in lines)
    finally:
        rdev.kill()
