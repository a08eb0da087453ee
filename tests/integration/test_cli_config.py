"""`rdev config`: what it sends for a file or a folder, and what it tells about the answer."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rdev.main import main
from tests.integration.cli_server import KEY, LOST, ScriptedServer, answer, problem, serving

BASE = "/v1/claude-config/demo"
ONE = f"{BASE}/commands/ops:deploy"
Captured = pytest.CaptureFixture[bytes]


@pytest.fixture(scope="module")
def running() -> Iterator[ScriptedServer]:
    with serving() as scripted:
        yield scripted


@pytest.fixture
def server(
    running: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ScriptedServer:
    running.seen.clear()
    monkeypatch.delenv("RDEV_HOME", raising=False)
    monkeypatch.setenv("RDEV_PROJECT", "demo")
    monkeypatch.setenv("RDEV_URL", running.url)
    monkeypatch.setenv("RDEV_API_KEY", KEY)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return running


def definition(**fields: Any) -> dict[str, Any]:
    plain: dict[str, Any] = line("ops:deploy") | {"content": "Deploy.\n", "files": {}}
    return plain | fields


def line(name: str, **fields: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {"kind": "agents", "name": name, "description": None, "issues": [],
             "effective": {"loaded": True, "reason": None}}  # fmt: skip
    return plain | fields


def test_ls_shows_what_is_loaded(server: ScriptedServer, capfdbinary: Captured) -> None:
    """All kinds when none is named; broken ones with the number of their errors."""
    broken = line("nobody", effective={"loaded": False, "reason": "no name"},
                  issues=[{"level": "error"}, {"level": "warning"}])  # fmt: skip
    for kind, items in (("commands", []), ("skills", []), ("agents", [line("reader"), broken])):
        server.on("GET", f"{BASE}/{kind}", answer({"items": items, "next_cursor": None}))
    assert main(["config", "ls"]) == 0
    lines = [text.split() for text in capfdbinary.readouterr().out.decode().splitlines()]
    assert lines == [
        ["KIND", "NAME", "LOADED", "ERRORS", "DESCRIPTION"],
        ["agents", "reader", "yes", "-", "-"],
        ["agents", "nobody", "no", "1", "-"],
    ]


def test_a_list_that_is_cut_says_so(server: ScriptedServer, capfdbinary: Captured) -> None:
    """On standard error; the list itself stays what programs expect."""
    page = {"items": [line("reader")], "next_cursor": None, "truncated": True}
    server.on("GET", f"{BASE}/agents", answer(page))
    assert main(["config", "ls", "agents", "-o", "json"]) == 0
    out, err = capfdbinary.readouterr()
    assert json.loads(out)["items"] == [line("reader")]
    assert b"not all of it is listed" in err


def test_get_prints_the_file_and_nothing_else(
    server: ScriptedServer, capfdbinary: Captured
) -> None:
    """Byte for byte, so that `> deploy.md` is the file; JSON carries the ETag too."""
    reply = answer(definition(content="Grüße,\r\nno end"), etag='"abc"')
    server.on("GET", ONE, reply, reply)
    assert main(["config", "get", "commands", "ops:deploy"]) == 0
    assert capfdbinary.readouterr().out == "Grüße,\r\nno end".encode()
    assert main(["config", "get", "commands", "ops:deploy", "-o", "json"]) == 0
    assert json.loads(capfdbinary.readouterr().out)["etag"] == '"abc"'


def test_a_skill_goes_to_a_folder_and_comes_back_from_it(
    server: ScriptedServer, tmp_path: Path, capfdbinary: Captured
) -> None:
    """Texts, bytes and what can be executed; the same folder again is the same body."""
    files = {
        "notes/a.txt": "a",
        "run.sh": {"text": "#!/bin/sh\n", "executable": True},
        "all.bin": {"b64": "AP8=", "executable": False},
    }
    path = f"{BASE}/skills/reading"
    server.on("GET", path, answer(definition(content="Read.\n", files=files), etag='"a"'),
              answer(definition(), etag='"a"'))  # fmt: skip
    server.on("PUT", path, answer(definition(), etag='"b"'))
    assert main(["config", "get", "skills", "reading", "--to", "out"]) == 0
    out = tmp_path / "out"
    assert (out / "all.bin").read_bytes() == b"\0\xff"
    assert (out / "run.sh").stat().st_mode & 0o100
    assert main(["config", "get", "skills", "reading", "--to", "out"]) != 0
    assert main(["config", "put", "skills", "reading", "out"]) == 0
    sent = server.of("PUT", path)[0]
    assert sent.json == {"content": "Read.\n", "files": files}
    assert sent.headers["if-match"] == '"a"'
    assert b"skills/reading written" in capfdbinary.readouterr().out


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "..\\x"])
def test_a_server_cannot_write_elsewhere(
    server: ScriptedServer, tmp_path: Path, name: str, capfdbinary: Captured
) -> None:
    """A path that would lead out of the folder is refused, and nothing is written."""
    server.on("GET", f"{BASE}/skills/x", answer(definition(files={name: "x"})))
    assert main(["config", "get", "skills", "x", "--to", "inner/out"]) == 70
    assert not (tmp_path / "inner").exists()


def test_put_creates_what_is_not_there(
    server: ScriptedServer, tmp_path: Path, capfdbinary: Captured
) -> None:
    """With an Idempotency-Key; warnings and what claude makes of it are told."""
    (tmp_path / "deploy.md").write_text("Deploy.\n")
    issue = {"line": 2, "message": "colour: is not a field", "level": "warning"}
    effect = {"loaded": False, "reason": "a skill has the same name and wins"}
    server.on("GET", ONE, problem(404, "not_found"))
    server.on("POST", f"{BASE}/commands",
              answer(definition(issues=[issue], effective=effect), 201, etag='"a"'))  # fmt: skip
    assert main(["config", "put", "commands", "ops:deploy", "deploy.md", "--lenient"]) == 0
    [sent] = server.of("POST", f"{BASE}/commands")
    assert sent.json == {"name": "ops:deploy", "content": "Deploy.\n"}
    assert sent.query == {"validate": "lenient"}
    assert sent.headers["idempotency-key"]
    out, err = capfdbinary.readouterr()
    assert out == b"commands/ops:deploy created\n"
    assert b"line 2: colour: is not a field (warning)" in err
    assert b"claude will not load it: a skill has the same name and wins" in err


def test_a_version_of_what_is_to_be_created(server: ScriptedServer, capfdbinary: Captured) -> None:
    """Makes no sense, and is said before anything is sent."""
    words = ["config", "put", "commands", "x", "-", "--create", "--if-match", "abc"]
    assert main(words) == 64
    assert server.seen == []


def test_put_says_which_line_is_wrong(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, capfdbinary: Captured
) -> None:
    """From standard input, under an ETag that was given; a refusal is a wrong usage."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"---\n")))
    errors = [{"field": "model", "code": "x", "message": "model: is no text", "line": 3}]
    refusal = problem(422, "invalid_field")
    body = json.dumps(json.loads(refusal.body) | {"errors": errors}).encode()
    server.on("PUT", ONE, type(refusal)(422, refusal.headers, body))
    assert main(["config", "put", "commands", "ops:deploy", "-", "--if-match", "abc"]) == 64
    assert server.of("PUT", ONE)[0].headers["if-match"] == '"abc"'
    assert b"line 3: model: is no text" in capfdbinary.readouterr().err


def test_a_lost_answer_to_put_is_asked_again(
    server: ScriptedServer, tmp_path: Path, capfdbinary: Captured
) -> None:
    """The same request with the same If-Match: the server knows what it did already."""
    (tmp_path / "deploy.md").write_text("Deploy.\n")
    server.on("GET", ONE, answer(definition(), etag='"a"'))
    server.on("PUT", ONE, LOST, answer(definition(), etag='"b"'))
    assert main(["config", "put", "commands", "ops:deploy", "deploy.md"]) == 0
    first, second = server.of("PUT", ONE)
    assert (first.body, first.headers["if-match"]) == (second.body, second.headers["if-match"])


def test_rm_removes_the_version_that_is_there(
    server: ScriptedServer, capfdbinary: Captured
) -> None:
    """The ETag is read first."""
    server.on("GET", ONE, answer(definition(), etag='"a"'))
    server.on("DELETE", ONE, answer(None, 204))
    assert main(["config", "rm", "commands", "ops:deploy"]) == 0
    assert server.of("DELETE", ONE)[0].headers["if-match"] == '"a"'
    assert capfdbinary.readouterr().out == b"commands/ops:deploy removed\n"


def test_validate_exits_as_it_finds(
    server: ScriptedServer, tmp_path: Path, capfdbinary: Captured
) -> None:
    """0 and `valid`, or 1 and the lines."""
    (tmp_path / "a.md").write_text("x")
    issue = {"line": 1, "message": "name: is needed", "level": "error"}
    path = f"{BASE}/agents:validate"
    server.on("POST", path, answer({"valid": True, "issues": []}),
              answer({"valid": False, "issues": [issue]}))  # fmt: skip
    assert main(["config", "validate", "agents", "reader", "a.md"]) == 0
    assert main(["config", "validate", "agents", "reader", "a.md"]) == 1
    assert capfdbinary.readouterr().out == b"valid\nline 1: name: is needed\nnot valid\n"


def test_effective_says_why_not(server: ScriptedServer, capfdbinary: Captured) -> None:
    """What rdev cannot tell has a question mark."""
    why = {"loaded": None, "reason": "a symbolic link"}
    page = {"items": [line("reader"), line("linked", effective=why)], "next_cursor": None}
    server.on("GET", f"{BASE}/effective", answer(page))
    assert main(["config", "effective"]) == 0
    lines = [text.split() for text in capfdbinary.readouterr().out.decode().splitlines()]
    assert lines[1:] == [
        ["agents", "reader", "yes"],
        ["agents", "linked", "?", "a", "symbolic", "link"],
    ]


def test_what_cannot_be_read_here_is_not_sent(
    server: ScriptedServer, tmp_path: Path, capfdbinary: Captured
) -> None:
    """Neither bytes that are no text, nor a folder that is no skill, nor links in it."""
    (tmp_path / "bytes.md").write_bytes(b"\xff")
    (tmp_path / "bare").mkdir()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "SKILL.md").write_text("x")
    (tmp_path / "linked" / "to").symlink_to("/etc/passwd")
    big = tmp_path / "big"
    big.mkdir()
    (big / "SKILL.md").write_text("x")
    (big / "data").write_bytes(bytes(600_000))
    for kind, source in (
        ("commands", "bytes.md"), ("commands", "bare"), ("skills", "bare"), ("skills", "linked"),
        ("skills", "big"), ("commands", "none.md"),
    ):  # fmt: skip
        assert main(["config", "validate", kind, "x", source]) == 64, source
    assert server.seen == []
