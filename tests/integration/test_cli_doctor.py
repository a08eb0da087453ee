"""`rdev doctor` and `rdev migrate`: what they find on a machine, and what they start."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rdev.diagnosis import Finding, Verdict, machine
from rdev.diagnosis import server as server_checks
from rdev.main import main
from rdev.settings import Settings
from tests.integration.cli_server import KEY, ScriptedServer, answer, problem, serving


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with serving() as scripted:
        scripted.on("GET", "/ready", answer({"status": "ready"}))
        scripted.on("GET", "/v1/projects", answer({"items": [], "next_cursor": None}))
        yield scripted


def settings(folder: Path, **environ: str) -> Settings:
    return Settings({"HOME": str(folder), "XDG_CONFIG_HOME": str(folder), **environ}, folder)


def at(server: ScriptedServer, folder: Path) -> Settings:
    return settings(folder, RDEV_URL=server.url, RDEV_API_KEY=KEY)


def assert_helps(finding: Finding, verdict: Verdict) -> None:
    """Whatever is not well comes with advice."""
    assert finding.verdict is verdict, finding
    assert bool(finding.advice) == (verdict is not Verdict.OK)


def program(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_finds_this_python(tmp_path: Path) -> None:
    """The interpreter that runs the tests is new enough."""
    assert_helps(machine.python(settings(tmp_path)), Verdict.OK)


def test_an_old_python_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that cannot run the functions is said."""
    monkeypatch.setattr(machine, "OLDEST_PYTHON", (9, 9))
    assert_helps(machine.python(settings(tmp_path)), Verdict.BAD)


def test_missing_git_is_bad(tmp_path: Path) -> None:
    """Without git there is no demo project and no `rdev git`."""
    assert_helps(machine.git(settings(tmp_path, PATH=str(tmp_path))), Verdict.BAD)


def test_a_git_that_does_not_run_is_bad(tmp_path: Path) -> None:
    """Being there is not enough; it has to run."""
    program(tmp_path, "git", "echo broken >&2; exit 3")
    finding = machine.git(settings(tmp_path, PATH=str(tmp_path)))
    assert_helps(finding, Verdict.BAD)
    assert "broken" in finding.detail


def test_missing_claude_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """shell and git work without claude."""
    monkeypatch.setattr(machine, "_package_folder", lambda _: None)
    assert_helps(machine.claude(settings(tmp_path, PATH=str(tmp_path))), Verdict.WARN)


def test_finds_the_bundled_claude(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel of claude-agent-sdk carries one."""
    (tmp_path / "_bundled").mkdir()
    program(tmp_path / "_bundled", "claude", "echo 2.1.330")
    monkeypatch.setattr(machine, "_package_folder", lambda _: tmp_path)
    finding = machine.claude(settings(tmp_path, PATH="/nowhere", ANTHROPIC_API_KEY="sk-c4n4ry"))
    assert_helps(finding, Verdict.OK)
    assert "2.1.330" in finding.detail
    assert "rdev[claude]" in finding.detail
    assert "ANTHROPIC_API_KEY" in finding.detail
    assert "c4n4ry" not in finding.detail


def test_a_claude_that_is_not_logged_in_is_a_warning(tmp_path: Path) -> None:
    """It says where it looked; no request is spent to find out."""
    program(tmp_path, "claude", "echo 2.1.330")
    finding = machine.claude(settings(tmp_path, PATH=f"{tmp_path}:/bin:/usr/bin"))
    assert_helps(finding, Verdict.WARN)
    for place in ("ANTHROPIC_API_KEY", str(tmp_path / ".claude" / ".credentials.json")):
        assert place in finding.detail


def test_a_claude_that_does_not_run_is_said(tmp_path: Path) -> None:
    """A binary for another machine, say."""
    program(tmp_path, "claude", "echo broken >&2; exit 3")
    finding = machine.claude(settings(tmp_path, PATH=f"{tmp_path}:/bin:/usr/bin"))
    assert_helps(finding, Verdict.BAD)
    assert "broken" in finding.detail


def test_missing_supervisor_tools_are_named(tmp_path: Path) -> None:
    """The person learns which programs to install."""
    program(tmp_path, "sh", "true")
    finding = machine.supervisor_tools(settings(tmp_path, PATH=str(tmp_path)))
    assert_helps(finding, Verdict.BAD)
    assert "setsid" in finding.detail


def test_runs_the_postgres_that_is_named(tmp_path: Path) -> None:
    """RDEV_PG_BIN is used, and shown to run."""
    program(tmp_path, "postgres", "echo postgres 18")
    finding = machine.postgres(settings(tmp_path, RDEV_PG_BIN=str(tmp_path)))
    assert_helps(finding, Verdict.OK)
    assert "postgres 18" in finding.detail


def test_missing_postgres_is_bad(tmp_path: Path) -> None:
    """A folder without the program is no PostgreSQL."""
    assert_helps(machine.postgres(settings(tmp_path, RDEV_PG_BIN=str(tmp_path))), Verdict.BAD)


def test_finds_the_postgres_of_the_wheel(tmp_path: Path) -> None:
    """The dependency brings binaries that run here."""
    assert_helps(machine.postgres(settings(tmp_path)), Verdict.OK)


def test_shows_no_password_of_the_database(tmp_path: Path) -> None:
    """Of RDEV_DATABASE_URL only the host is shown."""
    url = "postgresql://rdev:hunter2@db.example/rdev"
    finding = machine.postgres(settings(tmp_path, RDEV_DATABASE_URL=url))
    assert_helps(finding, Verdict.OK)
    assert "hunter2" not in str(finding)
    assert "db.example" in finding.detail


@pytest.mark.parametrize(
    ("unshare", "setpriv", "verdict"),
    [
        ("exit 0", None, Verdict.OK),
        ("exit 1", "true", Verdict.WARN),
        ("exit 1", None, Verdict.BAD),
        (None, None, Verdict.BAD),
    ],
)
def test_root_needs_a_way_not_to_be(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    unshare: str | None,
    setpriv: str | None,
    verdict: Verdict,
) -> None:
    """PostgreSQL refuses root, so a namespace or setpriv has to work."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    for name, text in (("unshare", unshare), ("setpriv", setpriv)):
        if text is not None:
            program(tmp_path, name, text)
    assert_helps(machine.user_namespaces(settings(tmp_path, PATH=str(tmp_path))), verdict)


def test_others_than_root_need_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary user can run PostgreSQL as it is."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert_helps(machine.user_namespaces(settings(tmp_path, PATH="/nowhere")), Verdict.OK)


def test_the_home_may_not_exist_yet(tmp_path: Path) -> None:
    """`rdev up` creates it; what counts is the folder above."""
    assert machine.home(settings(tmp_path, RDEV_HOME="a/b")).verdict is not Verdict.BAD


def test_a_home_below_a_file_is_bad(tmp_path: Path) -> None:
    """A path that cannot become a folder is said before `rdev up` fails."""
    (tmp_path / "file").write_text("")
    assert_helps(machine.home(settings(tmp_path, RDEV_HOME="file/home")), Verdict.BAD)


def test_a_home_too_long_for_a_socket_is_bad(tmp_path: Path) -> None:
    """A Unix socket's path has 107 bytes."""
    finding = machine.home(settings(tmp_path, RDEV_HOME="h" * 100))
    assert_helps(finding, Verdict.BAD)
    assert "socket" in finding.detail


def test_a_port_in_use_is_bad_unless_it_is_ours(tmp_path: Path) -> None:
    """The rdev that runs in this home may have the port; anything else may not."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        found = settings(tmp_path, RDEV_PORT=str(number), RDEV_HOME=str(tmp_path))
        assert_helps(machine.port(found), Verdict.BAD)
        (tmp_path / "url").write_text(f"http://127.0.0.1:{number}")
        assert_helps(machine.port(found), Verdict.OK)
    assert_helps(machine.port(found), Verdict.OK)


def test_a_port_that_is_no_number_is_bad(tmp_path: Path) -> None:
    """A typing error in RDEV_PORT is found here."""
    assert_helps(machine.port(settings(tmp_path, RDEV_PORT="http")), Verdict.BAD)


def test_a_ready_server_with_a_valid_key_is_well(server: ScriptedServer, tmp_path: Path) -> None:
    """Reachable, ready, accepted, and the key stays on this machine."""
    for check in server_checks.CHECKS:
        assert_helps(check(at(server, tmp_path)), Verdict.OK)


def test_an_unready_server_is_bad(server: ScriptedServer, tmp_path: Path) -> None:
    """What `/ready` complains about is handed on."""
    server.on("GET", "/ready", problem(503, "not_ready", "the database is down"))
    finding = server_checks.reachable(at(server, tmp_path))
    assert_helps(finding, Verdict.BAD)
    assert "the database is down" in str(finding.advice)


def test_a_refused_key_is_bad(server: ScriptedServer, tmp_path: Path) -> None:
    """401 means another key is needed; a missing scope does not."""
    server.on("GET", "/v1/projects", problem(401, "unauthorized"))
    assert_helps(server_checks.key(at(server, tmp_path)), Verdict.BAD)
    server.on("GET", "/v1/projects", problem(403, "forbidden"))
    assert_helps(server_checks.key(at(server, tmp_path)), Verdict.OK)


def test_nothing_is_tried_twice(server: ScriptedServer, tmp_path: Path) -> None:
    """doctor reports how things are now and does not wait for them to change."""
    server.on("GET", "/v1/projects", problem(503, "not_ready"))
    server_checks.key(at(server, tmp_path))
    assert len(server.of("GET", "/v1/projects")) == 1


def test_no_server_is_a_warning_and_a_dead_one_is_bad(tmp_path: Path) -> None:
    """Before `rdev up` nothing is broken; a URL at which nobody answers is."""
    assert_helps(server_checks.reachable(settings(tmp_path)), Verdict.WARN)
    with serving() as gone:
        pass
    assert_helps(server_checks.reachable(at(gone, tmp_path)), Verdict.BAD)


def test_a_key_in_the_clear_is_a_warning(tmp_path: Path) -> None:
    """Plain http to another machine shows the key to everybody in between."""
    found = settings(tmp_path, RDEV_URL="http://far.example", RDEV_API_KEY=KEY)
    assert_helps(server_checks.encrypted(found), Verdict.WARN)


def test_doctor_prints_every_check(
    server: ScriptedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    """The exit code is 1 exactly when something is bad, and the key is never shown."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RDEV_HOME", raising=False)
    monkeypatch.setenv("RDEV_URL", server.url)
    monkeypatch.setenv("RDEV_API_KEY", KEY)
    monkeypatch.setenv("RDEV_PORT", "0")
    code = main(["doctor", "-o", "json"])
    out, err = capfdbinary.readouterr()
    items = json.loads(out)["items"]
    assert len(items) == len(machine.CHECKS) + len(server_checks.CHECKS)
    assert code == int(any(item["verdict"] == "bad" for item in items))
    assert KEY.encode() not in out + err
    assert main(["doctor"]) == code
    assert b"python" in capfdbinary.readouterr().out


@pytest.mark.parametrize(("returned", "code"), [(0, 0), (3, 3), (-9, 137)])
def test_migrate_is_a_process_of_its_own(
    monkeypatch: pytest.MonkeyPatch, returned: int, code: int
) -> None:
    """It runs the server's own entry point with the same environment and hands on its code."""
    seen: list[list[str]] = []

    def run(command: list[str], *, check: bool) -> subprocess.CompletedProcess[bytes]:
        assert not check
        seen.append(command)
        return subprocess.CompletedProcess(command, returned)

    monkeypatch.setattr(subprocess, "run", run)
    assert main(["migrate", "--admin-key-file", "key"]) == code
    assert seen == [[sys.executable, "-m", "common.entrypoints.migrate", "--admin-key-file", "key"]]


def test_healthy_projects_are_counted(server: ScriptedServer, tmp_path: Path) -> None:
    """No issues, and how many projects there are."""
    server.on("GET", "/v1/projects", answer({"items": [{"name": "demo", "issues": []}]}))
    finding = server_checks.projects(at(server, tmp_path))
    assert_helps(finding, Verdict.OK)
    assert finding.detail == "1 without issues"


def test_bad_entries_are_said_with_their_project(server: ScriptedServer, tmp_path: Path) -> None:
    """Each issue with its project, and what belongs to none; others live on, so it is a warning."""
    broken = {"name": "web", "issues": ["web.yaml cannot be read in line 2", "no pod matches 'x'"]}
    server.on("GET", "/v1/projects", answer({"items": [{"name": "demo"}, broken]}))
    checks = {"discovery/kubernetes": {"status": "ok", "detail": "'A B' is no project name"}}
    server.on("GET", "/ready", answer({"status": "ready", "checks": checks}))
    finding = server_checks.projects(at(server, tmp_path))
    assert_helps(finding, Verdict.WARN)
    assert finding.detail == (
        "web: web.yaml cannot be read in line 2; web: no pod matches 'x'; 'A B' is no project name"
    )


def test_projects_that_cannot_be_read_are_not_checked(tmp_path: Path) -> None:
    """Without a server there is nothing to say of projects."""
    finding = server_checks.projects(settings(tmp_path, RDEV_URL="http://127.0.0.1:9"))
    assert_helps(finding, Verdict.WARN)
