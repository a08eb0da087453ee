"""Rows 51 to 54 of the attack table: git runs no program, writes no file, reads none outside."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from common.domain.command import Kind
from common.domain.launch import job_for
from tests.unit import fakes
from tests.unit.conftest import Api, api, make_api  # noqa: F401  # fixtures

CMD = "touch canary"
PROGRAMS: list[list[str]] = [
    *(["-c", f"core.{name}={CMD}", "fetch", "ssh://x/y"]
      for name in ("sshCommand", "fsmonitor", "editor", "pager", "hooksPath")),
    ["-c", f"alias.x=!{CMD}", "x"],
    ["-c", f"diff.external={CMD}", "diff"],
    ["--config-env=core.pager=X", "log"],
    ["--config-env", "core.pager=X", "log"],
    ["--exec-path=.", "status"],
    *([verb, f"--upload-pack={CMD};", "."] for verb in ("fetch", "pull", "ls-remote", "clone")),
    *([verb, "--upload-pack", f"{CMD};", "."] for verb in ("fetch", "pull", "ls-remote")),
    ["push", f"--receive-pack={CMD};", ".", "main"],
    ["push", f"--exec={CMD};", ".", "main"],
    ["clone", "-u", f"{CMD};", ".", "out"],
    ["clone", f"-u{CMD};", ".", "out"],
    ["clone", f"--config=core.sshCommand={CMD}", "ssh://x/y"],
    ["clone", "-c", f"core.sshCommand={CMD}", "ssh://x/y"],
    ["clone", "--template=evil", ".", "out"],
    ["clone", "--bundle-uri=https://example.com/x", ".", "out"],
    ["grep", f"-O{CMD};", "x"],
    ["grep", f"--open-files-in-pager={CMD};", "x"],
    ["archive", f"--exec={CMD};", "--remote=.", "HEAD"],
    ["archive", "--remote=ext::x", "HEAD"],
    ["rebase", "--exec", CMD, "HEAD"],
    ["rebase", f"-x{CMD}", "HEAD"],
    ["bisect", "run", "sh", "-c", CMD],
    ["submodule", "foreach", CMD],
    ["filter-branch", "--tree-filter", CMD],
    ["difftool", "-x", CMD],
]  # fmt: skip
FILES: list[list[str]] = [
    *([verb, "--output=canary"] for verb in ("log", "diff", "show")),
    *([verb, "--output", "canary"] for verb in ("log", "diff", "show")),
    ["archive", "-o", "canary", "HEAD"],
    ["archive", "-ocanary", "HEAD"],
    ["archive", "--output=canary", "HEAD"],
    ["format-patch", "-o", "canary", "HEAD~1"],
    ["diff", "--no-index", "/etc/passwd", "a"],
    ["diff", "/dev/null", "/etc/passwd"],
    ["diff", "a", "../../../../../etc/passwd"],
    ["--git-dir=/tmp/x", "status"],
    ["--git-dir", "/tmp/x", "status"],
    ["-C", "/", "status"],
    ["-C/", "status"],
    ["--work-tree=/", "add", "etc/passwd"],
    ["commit", "-F", "/etc/passwd"],
]
SHORTENED: list[list[str]] = [
    ["fetch", f"--upl={CMD};", "."],
    ["fetch", f"--upload-p={CMD};", "."],
    ["ls-remote", f"--up={CMD};", "."],
    ["push", f"--receive={CMD};", ".", "main"],
    ["clone", f"-qu{CMD};", ".", "out"],
    ["clone", f"-nqu{CMD};", ".", "out"],
    ["grep", f"-nO{CMD};", "x"],
    ["rebase", "--exe", CMD, "HEAD"],
    ["log", "--outpu=canary"],
    ["log", "-p", "--outp", "canary"],
]
ADDRESSES: list[list[str]] = [
    [verb, address]
    for verb in ("clone", "fetch", "pull", "push", "ls-remote")
    for address in (
        f"ext::sh -c {CMD}% >&2",
        "fd::17/foo",
        "file:///etc",
        "file:/etc",
        "FILE:///etc",
        f"ssh://-oProxyCommand={CMD}/x",
        f"ssh://git@-oProxyCommand={CMD}/x",
        f"-oProxyCommand={CMD}:x",
        f"-u{CMD}",
        "https://user:secret@example.com/x",
        "ssh://user:secret@example.com/x",
        "git://example.com/x",
        "/etc",
        "../../other",
    )
]
ROWS = [
    pytest.param(args, id=f"{row}-{number}-{args[0]}")
    for row, corpus in (
        ("row-51", PROGRAMS),
        ("row-52", FILES),
        ("row-53", SHORTENED),
        ("row-54", ADDRESSES),
    )
    for number, args in enumerate(corpus)
]


@pytest.mark.parametrize("args", ROWS)
def test_it_is_refused_at_the_door(api: Api, args: list[str]) -> None:  # noqa: F811
    """422 names the argument's field, and nothing is stored."""
    client = api.client("projects", api.keys.make("commands:write:git"))
    answer = client.post("/v1/projects/demo/git", content=json.dumps({"args": args}).encode())
    assert answer.status_code == 422
    assert [e["field"] for e in answer.json()["errors"]] == ["args"]
    assert api.commands.submitted == []


@pytest.mark.parametrize("args", ROWS)
def test_it_is_refused_again_before_it_would_run(args: list[str]) -> None:
    """A command that is stored with such arguments, however it came there, is never started."""
    with pytest.raises(ValueError, match="git"):
        job_for(fakes.command(Kind.GIT, args=args), {}, 1 << 20)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits, with nobody's configuration but its own."""
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "a").write_text("x\n")
    git(tmp_path, "add", "a")
    for message in ("one", "two"):
        git(tmp_path, "commit", "-q", "--allow-empty", "-m", message)
    return tmp_path


def git(cwd: Path, *args: str) -> None:
    """Run it for its effects; it may fail."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(cwd),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@example.com",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@example.com",
    }
    subprocess.run(
        ["git", *args], cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
        timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "args",
    [
        ["fetch", f"--upload-pack={CMD};", "."],
        ["fetch", f"--upl={CMD};", "."],
        ["ls-remote", f"--upload-pack={CMD};", "."],
        ["clone", f"-qu{CMD};", ".", "out"],
        ["-c", f"alias.x=!{CMD}", "x"],
        ["rebase", "--exec", CMD, "HEAD~1"],
        ["log", "--output=canary"],
        ["archive", "-o", "canary", "HEAD"],
    ],
    ids=" ".join,
)
def test_the_corpus_is_real(repository: Path, args: list[str]) -> None:
    """Without the list git itself does what these ask: the refusals above are not for nothing."""
    git(repository, *args)
    assert (repository / "canary").exists()


def test_a_forced_address_of_another_kind_runs_nothing(repository: Path) -> None:
    """Row 54: git's own protocol list is in the environment of every git command."""
    job = job_for(fakes.command(Kind.GIT, args=["fetch", "origin"]), {}, 1 << 20)
    target = [
        *map(str, job.argv[:-2]),
        "-c",
        "protocol.ext.allow=always",
        "fetch",
        f"ext::sh -c {CMD}",
    ]
    environment = {"PATH": os.environ["PATH"], "HOME": str(repository), **job.env}
    done = subprocess.run(
        target, cwd=repository, env=environment, capture_output=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert not (repository / "canary").exists()
