"""The verbs that ask and list: ps, show, logs, wait, cancel, projects, keys, login, whoami."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rdev.main import main
from tests.integration.cli_server import (
    COMMAND_ID,
    KEY,
    LOST,
    Reply,
    ScriptedServer,
    Seen,
    answer,
    block,
    command,
    ended,
    events,
    problem,
    replay,
    serving,
    sse,
)

COMMAND = f"/v1/commands/{COMMAND_ID}"
OUTPUT = f"{COMMAND}/output"
STREAM = f"/v1/streams/commands/{COMMAND_ID}"
OTHER_ID = "cmd_" + "0" * 30 + "ff"

Captured = pytest.CaptureFixture[bytes]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    with serving() as scripted:
        for name in ("RDEV_HOME", "RDEV_PROJECT", "RDEV_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("RDEV_URL", scripted.url)
        monkeypatch.setenv("RDEV_API_KEY", KEY)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        monkeypatch.chdir(tmp_path)
        yield scripted


def page(*items: Any, next_cursor: str | None = None) -> Reply:
    return answer({"items": list(items), "next_cursor": next_cursor})


def stored(**streams: bytes) -> Any:
    """`/output` as the server gives it: what is behind the offset, nothing at its end, else 416."""

    def step(seen: Seen) -> Reply:
        whole = streams[seen.query["stream"]]
        offset = int(seen.query["offset"])
        if offset > len(whole):
            return problem(416, "range_not_satisfiable")
        limit = int(seen.query.get("limit") or len(whole))
        headers = {"content-type": "text/plain", "rdev-output-size": str(len(whole))}
        return Reply(200, headers, whole[offset : offset + limit])

    return step


def test_ps_lists_newest_first(server: ScriptedServer, capfdbinary: Captured) -> None:
    """One line a command, whole ids, and no colours in a pipe."""
    first = command("running", id=OTHER_ID, spec={"argv": ["sleep", "9"]})
    server.on("GET", "/v1/commands", page(first, command("queued", queue_position=3)))
    assert main(["ps"]) == 0
    out, err = capfdbinary.readouterr()
    lines = out.decode().splitlines()
    assert lines[0].split() == ["ID", "STATE", "PROJECT", "KIND", "AGE", "SUMMARY"]
    assert lines[1].startswith(f"{OTHER_ID}  running")
    assert lines[1].endswith("sleep 9")
    assert "queued #3" in lines[2]
    assert err == b""


def test_ps_filters_on_the_server(server: ScriptedServer, capfdbinary: Captured) -> None:
    """Every filter is a query of the API."""
    server.on("GET", "/v1/commands", page(command("failed")))
    argv = ["ps", "-p", "demo", "--state", "failed", "--kind", "shell", "--label", "a=b", "-n", "7"]
    assert main([*argv, "-q"]) == 0
    assert capfdbinary.readouterr().out == f"{COMMAND_ID}\n".encode()
    assert server.seen[0].query == {
        "project": "demo",
        "state": "failed",
        "kind": "shell",
        "label": "a=b",
        "limit": "7",
    }


def test_ps_turns_pages(server: ScriptedServer, capfdbinary: Captured) -> None:
    """More than a page is asked for by cursor, and never more than was wished for."""
    server.on(
        "GET",
        "/v1/commands",
        page(command(), next_cursor="c1"),
        page(command(), command(), command()),
    )
    assert main(["ps", "-q", "-n", "3"]) == 0
    assert len(capfdbinary.readouterr().out.splitlines()) == 3
    assert server.seen[1].query["cursor"] == "c1"


def test_an_empty_list_is_quiet_in_a_pipe(server: ScriptedServer, capfdbinary: Captured) -> None:
    """Advice is for people; a script gets nothing, or an empty list."""
    server.on("GET", "/v1/commands", page())
    assert main(["ps"]) == 0
    assert capfdbinary.readouterr() == (b"", b"")
    assert main(["ps", "-o", "json"]) == 0
    assert json.loads(capfdbinary.readouterr().out) == {"items": []}


def test_an_id_may_be_a_unique_prefix(server: ScriptedServer, capfdbinary: Captured) -> None:
    """The beginning of an id is enough when only one command has it."""
    found = command(id="cmd_0190" + "a" * 28)
    server.on("GET", "/v1/commands", page(command(id="cmd_0191" + "b" * 28), found))
    server.on("GET", f"/v1/commands/{found['id']}", answer(found))
    for text in ("cmd_0190", "0190a"):
        assert main(["show", text]) == 0
        assert found["id"].encode() in capfdbinary.readouterr().out


def test_an_ambiguous_prefix_names_the_candidates(
    server: ScriptedServer, capfdbinary: Captured
) -> None:
    """Nothing is done to a command that might not be meant."""
    server.on("GET", "/v1/commands", page(command(id="cmd_0190a"), command(id="cmd_0190b")))
    assert main(["cancel", "cmd_0190"]) == 64
    err = capfdbinary.readouterr().err
    assert b"cmd_0190a, cmd_0190b" in err
    assert [seen.method for seen in server.seen] == ["GET"]


@pytest.mark.parametrize("text", ["cmd_0199", "cmd_", "../keys", "cmd_x y"])
def test_an_id_that_is_none_is_64(server: ScriptedServer, capfdbinary: Captured, text: str) -> None:
    """An unknown or impossible id is wrong usage, and reaches no other path of the API."""
    server.on("GET", "/v1/commands", page(command(id="cmd_0190a")))
    assert main(["show", text]) == 64
    assert capfdbinary.readouterr().out == b""
    assert {seen.path for seen in server.seen} <= {"/v1/commands"}


def test_looks_no_further_than_the_prefix(server: ScriptedServer, capfdbinary: Captured) -> None:
    """Ids begin with their time, so old pages need not be read."""
    old = [command(id=f"cmd_0001{n:028x}") for n in range(150)]
    server.on("GET", "/v1/commands", page(*old, next_cursor="c1"))
    assert main(["show", "cmd_0190"]) == 64
    assert len(server.seen) == 1
    del capfdbinary


def test_show_tells_how_it_ended(server: ScriptedServer, capfdbinary: Captured) -> None:
    """State, reason, exit code and output totals, one a line."""
    found = ended("failed", "exit_nonzero", 3, labels={"a": "b"})
    found["outcome"]["output"] = {"bytes": 5, "sha256": "abc", "truncated": False, "stderr": None}
    server.on("GET", COMMAND, answer(found))
    assert main(["show", COMMAND_ID]) == 0
    text = capfdbinary.readouterr().out.decode()
    for line in ("failed (exit_nonzero)", "exit code  3", "5 bytes, sha256 abc", "a=b"):
        assert line in text


def test_show_raw_is_the_answer_itself(server: ScriptedServer, capfdbinary: Captured) -> None:
    """-o raw changes no byte of what the server said."""
    body = json.dumps(command(), indent=3).encode()
    server.on("GET", COMMAND, Reply(200, {"content-type": "application/json"}, body))
    assert main(["show", "-o", "raw", COMMAND_ID]) == 0
    assert capfdbinary.readouterr().out == body


def test_logs_print_each_stream_to_its_own(server: ScriptedServer, capfdbinary: Captured) -> None:
    """Stored output is byte-exact and comes without following."""
    server.on("GET", COMMAND, answer(ended()))
    server.on("GET", OUTPUT, stored(stdout=b"\x00out\xff", stderr=b"err\n"))
    assert main(["logs", COMMAND_ID]) == 0
    assert capfdbinary.readouterr() == (b"\x00out\xff", b"err\n")


def test_logs_go_on_behind_a_cut(server: ScriptedServer, capfdbinary: Captured) -> None:
    """A cut while reading stored output is repaired by its offset."""
    server.on("GET", COMMAND, answer(ended(spec={"script": "x"})))
    whole = b"0123456789"
    cut = Reply(200, {}, whole[:4], then="cut")
    server.on("GET", OUTPUT, cut, stored(merged=whole))
    assert main(["logs", COMMAND_ID]) == 0
    assert capfdbinary.readouterr().out == whole
    assert [seen.query["offset"] for seen in server.of("GET", OUTPUT)] == ["0", "4"]


def test_logs_come_in_pages_from_a_server_that_does_not_say_the_size(
    server: ScriptedServer, capfdbinary: Captured
) -> None:
    """Without a size, output is asked for until no more comes."""

    def paged(seen: Seen) -> Reply:
        offset = int(seen.query["offset"])
        return Reply(200, {}, b"0123456789"[offset : offset + 3])

    server.on("GET", COMMAND, answer(ended(spec={"script": "x"})))
    server.on("GET", OUTPUT, paged)
    assert main(["logs", COMMAND_ID]) == 0
    assert main(["logs", "-n", "1", COMMAND_ID]) == 0
    assert capfdbinary.readouterr().out == b"0123456789" * 2


def test_logs_end_though_the_command_goes_on_printing(
    server: ScriptedServer, capfdbinary: Captured
) -> None:
    """Without -f, what counts is the output at the time of asking."""

    def growing(seen: Seen) -> Reply:
        size = 4 + len(server.seen)
        offset = int(seen.query["offset"])
        return Reply(200, {"rdev-output-size": str(size)}, b"y\n" * 50 if offset else b"y\ny\n")

    server.on("GET", COMMAND, answer(command("running", spec={"script": "yes"})))
    server.on("GET", OUTPUT, growing)
    assert main(["logs", COMMAND_ID]) == 0
    assert capfdbinary.readouterr().out == b"y\ny\ny"


def test_the_last_lines_need_only_the_end(server: ScriptedServer, capfdbinary: Captured) -> None:
    """-n of a long output reads its end and not all of it."""
    whole = b"".join(b"%09d\n" % n for n in range(100_000))
    server.on("GET", COMMAND, answer(command("running", spec={"script": "x"})))
    server.on("GET", OUTPUT, stored(merged=whole))
    assert main(["logs", "-n", "2", COMMAND_ID]) == 0
    assert capfdbinary.readouterr().out == b"000099998\n000099999\n"
    assert int(server.of("GET", OUTPUT)[-1].query["offset"]) > len(whole) - 100_000


def test_the_last_lines_and_what_follows(server: ScriptedServer, capfdbinary: Captured) -> None:
    """-f -n shows the tail, then the stream behind it: no line missing, none twice."""
    server.on("GET", COMMAND, answer(command("running")))
    server.on("GET", OUTPUT, stored(stdout=b"1\n2\n3\n", stderr=b""))
    server.on("GET", STREAM, replay(events("1\n", "2\n3\n4", "\n5\n")))
    assert main(["logs", "-f", "-n", "2", COMMAND_ID]) == 0
    assert capfdbinary.readouterr().out == b"2\n3\n4\n5\n"


def test_following_logs_is_a_success_of_its_own(
    server: ScriptedServer, capfdbinary: Captured
) -> None:
    """`logs -f` shows a failed command's output and succeeds at that."""
    server.on("GET", COMMAND, answer(command("running")))
    server.on("GET", STREAM, replay(events("x\n", end=ended("failed", "exit_nonzero", 3))))
    assert main(["logs", "-f", COMMAND_ID]) == 0
    assert capfdbinary.readouterr().out == b"x\n"


def test_logs_with_a_gap_are_no_success(server: ScriptedServer, capfdbinary: Captured) -> None:
    """An output that has expired in part is said, and ends with 75."""
    gap = b'id: 3\nevent: gap\ndata: {"from":1,"to":3}\n\n'
    server.on("GET", COMMAND, answer(ended()))
    server.on("GET", STREAM, sse(gap + block(4, "end", **ended())))
    assert main(["logs", "-f", COMMAND_ID]) == 75
    assert b"lost" in capfdbinary.readouterr().err


def test_since_is_by_the_time_of_the_event(server: ScriptedServer, capfdbinary: Captured) -> None:
    """--since leaves out what is older, and without -f it ends where the output stands."""
    server.on("GET", COMMAND, answer(command("running")))
    server.on("GET", OUTPUT, stored(stdout=b"old\nnew\n", stderr=b""))
    wire = block(1, "output", stream="stdout", offset=0, text="old\n", at="2020-01-01T00:00:00Z")
    wire += block(2, "output", stream="stdout", offset=4, text="new\n", at="2999-01-01T00:00:00Z")
    server.on("GET", STREAM, sse(wire, then="silence"))
    assert main(["logs", "--since", "5m", COMMAND_ID]) == 0
    assert capfdbinary.readouterr().out == b"new\n"


def test_since_without_any_output_ends_at_once(
    server: ScriptedServer, capfdbinary: Captured
) -> None:
    """A running command that has printed nothing has nothing to wait for."""
    server.on("GET", COMMAND, answer(command("running")))
    server.on("GET", OUTPUT, stored(stdout=b"", stderr=b""))
    assert main(["logs", "--since", "5m", COMMAND_ID]) == 0
    assert capfdbinary.readouterr().out == b""
    assert server.of("GET", STREAM) == []


def test_expired_output_is_said(server: ScriptedServer, capfdbinary: Captured) -> None:
    """Output whose retention is over is an error, not an empty success."""
    server.on("GET", COMMAND, answer(ended()))
    server.on("GET", OUTPUT, problem(404, "expired", "the output has expired"))
    assert main(["logs", COMMAND_ID]) == 64
    assert b"the output has expired" in capfdbinary.readouterr().err


def test_logs_of_claude_are_its_text(server: ScriptedServer, capfdbinary: Captured) -> None:
    """What claude wrote is shown as it wrote it, and the answer once."""
    lines = [
        {"type": "assistant", "message": {"content": [{"type": "text", "text": "Let me see"}]}},
        {"type": "assistant", "message": {"content": [{"type": "text", "text": "42"}]}},
        {"type": "result", "is_error": False, "result": "42"},
    ]
    wire = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    server.on("GET", COMMAND, answer(ended(kind="claude", spec={"prompt": "?"})))
    server.on("GET", OUTPUT, stored(stdout=wire, stderr=b""))
    assert main(["logs", COMMAND_ID]) == 0
    assert capfdbinary.readouterr().out == b"Let me see\n42\n"
    assert main(["logs", "-o", "raw", COMMAND_ID]) == 0
    assert capfdbinary.readouterr().out == wire


def test_wait_ends_with_the_first_failure(server: ScriptedServer, capfdbinary: Captured) -> None:
    """All are waited for; the code is that of the first, in the given order, that failed."""
    server.on("GET", COMMAND, answer(command("running")))
    server.on("GET", STREAM, replay(events(end=ended("failed", "exit_nonzero", 4))))
    other = ended("failed", "exit_nonzero", 5, id=OTHER_ID)
    server.on("GET", f"/v1/commands/{OTHER_ID}", answer(other))
    assert main(["wait", "-o", "jsonl", COMMAND_ID, OTHER_ID]) == 4
    lines = capfdbinary.readouterr().out.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [COMMAND_ID, OTHER_ID]


def test_wait_asks_the_server_to_hold_the_question(
    server: ScriptedServer, capfdbinary: Captured
) -> None:
    """The end is told without a byte of output being transferred."""
    server.on(
        "GET", COMMAND, answer(command("running")), answer(ended("failed", "exit_nonzero", 6))
    )
    assert main(["wait", COMMAND_ID]) == 6
    assert [seen.headers.get("prefer") for seen in server.seen] == [None, "wait=45"]
    assert capfdbinary.readouterr() == (b"", b"")


def test_wait_for_a_success_is_0(server: ScriptedServer, capfdbinary: Captured) -> None:
    """A server that holds no more questions is not polled: the events are followed, unseen."""
    server.on("GET", COMMAND, answer(command("running")))
    server.on("GET", STREAM, replay(events("much output\n")))
    assert main(["wait", COMMAND_ID]) == 0
    assert capfdbinary.readouterr() == (b"", b"")


def test_cancel_says_what_it_did(server: ScriptedServer, capfdbinary: Captured) -> None:
    """A cancel that came too late is said and is no error."""
    server.on("POST", f"{COMMAND}/cancel", answer(command("cancelling"), 202))
    server.on("POST", f"/v1/commands/{OTHER_ID}/cancel", answer(ended(id=OTHER_ID)))
    assert main(["cancel", "--force", COMMAND_ID, OTHER_ID]) == 0
    out = capfdbinary.readouterr().out.decode().splitlines()
    assert out == [f"{COMMAND_ID} cancelling", f"{OTHER_ID} had ended already: succeeded"]
    assert server.seen[0].json == {"mode": "force"}


def test_projects_are_listed_and_shown(server: ScriptedServer, capfdbinary: Captured) -> None:
    """Names, load, and what is wrong with a project."""
    project = {
        "name": "demo", "description": "to try", "phase": "ready", "workspace": "/w", "running": 2,
        "queued": 1, "max_concurrent_commands": 5, "paused": True, "allowed_commands": None,
        "issues": ["projects.yaml: line 3"],
    }  # fmt: skip
    server.on("GET", "/v1/projects", page(project))
    server.on("GET", "/v1/projects/demo", answer(project))
    assert main(["projects", "ls"]) == 0
    assert "2/5      1 paused" in capfdbinary.readouterr().out.decode()
    assert main(["projects", "show", "demo"]) == 0
    assert "projects.yaml: line 3" in capfdbinary.readouterr().out.decode()


def test_a_project_name_cannot_leave_its_path(
    server: ScriptedServer, capfdbinary: Captured
) -> None:
    """Slashes and dots in a name are quoted, so no other resource is asked for."""
    assert main(["projects", "show", "../keys"]) == 64
    assert not any(seen.path.startswith("/v1/keys") for seen in server.seen)
    del capfdbinary


def test_a_created_key_is_printed_once(server: ScriptedServer, capfdbinary: Captured) -> None:
    """The key alone goes to standard output, so that a script can catch it."""
    created = {"id": "key_1", "key": "rdev_new_secret", "prefix": "new"}
    server.on("POST", "/v1/keys", answer(created, 201))
    argv = ["keys", "create", "ci", "--scope", "commands:read", "--scope", "commands:write"]
    argv += ["--project", "demo", "--allowed-ip", "10.0.0.0/8", "--rate-limit", "10/1m"]
    assert main([*argv, "--expires-in", "30d", "--max-concurrent", "2"]) == 0
    assert capfdbinary.readouterr() == (b"rdev_new_secret\n", b"")
    sent = server.seen[0].json
    assert sent.pop("expires_at").endswith("Z")
    assert sent == {
        "name": "ci",
        "scopes": ["commands:read", "commands:write"],
        "projects": ["demo"],
        "allowed_ips": ["10.0.0.0/8"],
        "rate_limit": {"limit": 10, "window_s": 60},
        "max_concurrent": 2,
    }


def test_a_key_whose_answer_was_lost_is_said(server: ScriptedServer, capfdbinary: Captured) -> None:
    """The server shows a secret once; if that answer was lost, the key has to be replaced."""
    server.on("POST", "/v1/keys", LOST, answer({"id": "key_1", "key": None}, 201))
    assert main(["keys", "create", "ci", "--scope", "commands:read"]) == 75
    out, err = capfdbinary.readouterr()
    assert out == b""
    assert b"rdev keys revoke key_1" in err
    assert len({s.headers["idempotency-key"] for s in server.seen}) == 1


def test_keys_are_listed_without_secrets(server: ScriptedServer, capfdbinary: Captured) -> None:
    """Name, state, rights; an expired or revoked key is marked."""
    keys = [
        {"id": "key_1", "name": "ci", "prefix": "a", "scopes": ["commands:read"], "projects": None},
        {"id": "key_2", "name": "old", "prefix": "b", "scopes": [], "projects": ["demo"],
         "revoked_at": "2026-01-01T00:00:00Z"},
        {"id": "key_3", "name": "ci", "prefix": "c", "scopes": [], "projects": [],
         "expires_at": "2020-01-01T00:00:00Z"},
    ]  # fmt: skip
    server.on("GET", "/v1/keys", page(*keys))
    assert main(["keys", "ls"]) == 0
    rows = [line.split() for line in capfdbinary.readouterr().out.decode().splitlines()]
    assert [row[3] for row in rows[1:]] == ["valid", "revoked", "expired"]
    assert main(["keys", "ls", "-q", "--name", "ci"]) == 0
    assert capfdbinary.readouterr().out == b"key_1\nkey_3\n"


def test_a_revocation_whose_answer_was_lost_is_done(
    server: ScriptedServer, capfdbinary: Captured
) -> None:
    """404 on the repetition of a lost DELETE means that the first one worked."""
    key_id = "key_" + "a" * 32
    server.on("DELETE", f"/v1/keys/{key_id}", LOST, problem(404, "not_found"))
    assert main(["keys", "revoke", key_id]) == 0
    assert capfdbinary.readouterr().out == f"{key_id} revoked\n".encode()


def test_revoking_what_never_was_is_an_error(server: ScriptedServer, capfdbinary: Captured) -> None:
    """404 on the first attempt is no success."""
    key_id = "key_" + "a" * 32
    server.on("DELETE", f"/v1/keys/{key_id}", problem(404, "not_found"))
    assert main(["keys", "revoke", key_id]) == 64
    del capfdbinary


def log_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, key: str) -> int:
    stdin = tmp_path / "stdin"
    stdin.write_text(f"{key}\n")
    with stdin.open() as file:
        monkeypatch.setattr("sys.stdin", file)
        return main(["login", "--url", url, "--project", "demo"])


def test_login_remembers_a_key_that_works(
    server: ScriptedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: Captured,
) -> None:
    """After login nothing needs to be set, and whoami shows everything but the secret."""
    server.on("GET", "/v1/projects", page())
    listed = {"id": "key_1", "name": "me", "prefix": "testtest", "scopes": ["commands:read"]}
    server.on("GET", "/v1/keys", page(listed))
    assert log_in(monkeypatch, tmp_path, server.url, KEY) == 0
    monkeypatch.delenv("RDEV_URL")
    monkeypatch.delenv("RDEV_API_KEY")
    assert main(["whoami", "-o", "json"]) == 0
    out, err = capfdbinary.readouterr()
    facts = json.loads(out)
    assert (facts["url"], facts["name"], facts["project"]) == (server.url, "me", "demo")
    assert facts["scopes"] == "commands:read"
    assert b"notasecret" not in out + err


def test_login_keeps_no_key_that_is_refused(
    server: ScriptedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: Captured,
) -> None:
    """A typing error is noticed at login, not at the first command."""
    server.on("GET", "/v1/projects", problem(401, "unauthorized"))
    assert log_in(monkeypatch, tmp_path, server.url, "rdev_wrong_key") == 77
    assert not (tmp_path / "config" / "rdev").exists()
    assert b"rdev_wrong_key" not in capfdbinary.readouterr().err


def test_a_key_that_may_not_list_keys_says_so(
    server: ScriptedServer, capfdbinary: Captured
) -> None:
    """whoami works with every key; it only cannot tell its scopes."""
    server.on("GET", "/v1/projects", page())
    server.on("GET", "/v1/keys", problem(403, "forbidden"))
    assert main(["whoami"]) == 0
    assert b"may not list keys" in capfdbinary.readouterr().out


def test_no_key_is_77(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, capfdbinary: Captured
) -> None:
    """Without a key nothing is sent, and the person learns how to give one."""
    monkeypatch.delenv("RDEV_API_KEY")
    assert main(["ps"]) == 77
    assert b"rdev login" in capfdbinary.readouterr().err
    assert server.seen == []


@pytest.mark.parametrize(
    ("argv", "path"),
    [
        (["ps", "-o", "jsonl"], "/v1/commands"),
        (["projects", "ls", "-o", "jsonl"], "/v1/projects"),
        (["keys", "ls", "-o", "jsonl"], "/v1/keys"),
    ],
)
def test_lists_as_json_lines_hold_what_the_server_said(
    server: ScriptedServer, capfdbinary: Captured, argv: list[str], path: str
) -> None:
    """One resource a line, fields of a newer server included."""
    items = [{**command(), "name": "demo", "new_field": n} for n in range(2)]
    server.on("GET", path, page(*items))
    assert main(argv) == 0
    lines = capfdbinary.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == items
    assert main([*argv[:-1], "json"]) == 0
    assert json.loads(capfdbinary.readouterr().out) == {"items": items}


def test_one_resource_as_json_is_one_document(
    server: ScriptedServer, capfdbinary: Captured
) -> None:
    """show, cancel, wait, keys create: json is one document, jsonl one line."""
    server.on("GET", COMMAND, answer(ended()))
    server.on("POST", f"{COMMAND}/cancel", answer(ended()))
    server.on("GET", "/v1/projects/demo", answer({"name": "demo"}))
    server.on("POST", "/v1/keys", answer({"id": "key_1", "key": "rdev_new"}, 201))
    created = ["keys", "create", "ci", "--scope", "commands:read"]
    many = {"items": [ended()]}
    for argv, expected in (
        (["show", COMMAND_ID], ended()),
        (["cancel", COMMAND_ID], many),
        (["wait", COMMAND_ID], many),
        (["projects", "show", "demo"], {"name": "demo"}),
        (created, {"id": "key_1", "key": "rdev_new"}),
    ):
        assert main([*argv, "-o", "json"]) == 0
        assert json.loads(capfdbinary.readouterr().out) == expected
        assert main([*argv, "-o", "jsonl"]) == 0
        line = capfdbinary.readouterr().out
        assert line.count(b"\n") == 1
        assert json.loads(line) == (expected if expected is not many else ended())


def test_show_tells_what_claude_did(server: ScriptedServer, capfdbinary: Captured) -> None:
    """Session, turns, cost and answer of a claude command."""
    found = ended(kind="claude", spec={"prompt": "Why?"}, started_at="2026-01-01T00:00:01Z")
    found["finished_at"] = "2026-01-01T00:02:01Z"
    found["outcome"]["orphans_killed"] = 2
    found["outcome"]["output"] = {
        "bytes": 1, "sha256": "a", "truncated": True, "stderr": {"bytes": 0, "sha256": "b"},
    }  # fmt: skip
    found["outcome"]["agent"] = {
        "session_id": "s1", "num_turns": 2, "cost_usd": 0.5, "result": "Because\nso",
    }  # fmt: skip
    server.on("GET", COMMAND, answer(found))
    assert main(["show", COMMAND_ID]) == 0
    text = capfdbinary.readouterr().out.decode()
    for part in ("s1", "$0.5000", "Because so", "2m", "cut at the limit", "2 processes, killed"):
        assert part in text


@pytest.mark.parametrize("text", ['{"a"', "[]", "@nowhere.json"])
def test_claude_options_that_are_no_json_are_64(
    server: ScriptedServer, capfdbinary: Captured, text: str
) -> None:
    """A schema that cannot be read is refused before anything is submitted."""
    assert main(["claude", "-p", "demo", "--json-schema", text, "Go"]) == 64
    assert server.seen == []
    assert b"--json-schema" in capfdbinary.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ["--session", "s1", "--continue", "Go"],
        ["--fork", "Go"],
        ["--if-session-busy", "queue", "Go"],
        ["   "],
        ["a\udcff"],
    ],
)
def test_claude_options_that_contradict_are_64(
    server: ScriptedServer, capfdbinary: Captured, argv: list[str]
) -> None:
    """Options about a session need a session, and a prompt needs words."""
    assert main(["claude", "-p", "demo", *argv]) == 64
    assert server.seen == []
    del capfdbinary


def test_nothing_to_continue_is_said(server: ScriptedServer, capfdbinary: Captured) -> None:
    """--continue without an earlier session starts no new one in silence."""
    server.on("GET", "/v1/projects/demo/sessions", page())
    assert main(["claude", "-p", "demo", "--continue", "Go"]) == 64
    assert b"no session" in capfdbinary.readouterr().err


def test_reads_a_schema_from_a_file(
    server: ScriptedServer, tmp_path: Path, capfdbinary: Captured
) -> None:
    """@FILE keeps long JSON off the command line."""
    (tmp_path / "schema.json").write_text('{"type": "object"}')
    server.on("POST", "/v1/commands", answer(command(kind="claude"), 202))
    argv = ["claude", "-d", "-p", "demo", "--json-schema", "@schema.json", "Go"]
    assert main(argv) == 0
    assert server.seen[0].json["options"] == {"json_schema": {"type": "object"}}
    assert capfdbinary.readouterr().out == f"{COMMAND_ID}\n".encode()


KEY_ID = "key_" + "a" * 32


def test_a_key_is_changed_by_what_is_named(server: ScriptedServer, capfdbinary: Captured) -> None:
    """Only the given options are in the body; `--all-projects` and its like send null."""
    server.on("PATCH", f"/v1/keys/{KEY_ID}", answer({"id": KEY_ID, "name": "ci", "scopes": ["x"]}))
    assert main(["keys", "update", KEY_ID, "--all-projects", "--rate-limit", "5/1m"]) == 0
    [seen] = server.of("PATCH", f"/v1/keys/{KEY_ID}")
    assert seen.json == {"projects": None, "rate_limit": {"limit": 5, "window_s": 60}}
    assert b"projects     all" in capfdbinary.readouterr().out
    assert main(["keys", "update", KEY_ID]) == 64
    assert main(["keys", "update", KEY_ID, "--any-ip", "--allowed-ip", "10.0.0.0/8"]) == 64


def test_a_key_is_shown(server: ScriptedServer, capfdbinary: Captured) -> None:
    """Every fact on a line of its own."""
    key = {"id": KEY_ID, "name": "ci", "scopes": ["commands:read"], "projects": ["demo"]}
    server.on("GET", f"/v1/keys/{KEY_ID}", answer(key | {"allowed_ips": ["10.0.0.0/8"]}))
    assert main(["keys", "show", KEY_ID]) == 0
    out = capfdbinary.readouterr().out
    assert b"addresses    10.0.0.0/8" in out and b"rate limit   none" in out


def test_a_rotation_prints_the_new_key(server: ScriptedServer, capfdbinary: Captured) -> None:
    """Like a creation: once, and asked again safely when the answer is lost."""
    rotated = {"id": "key_2", "key": "rdev_new"}
    server.on("POST", f"/v1/keys/{KEY_ID}/rotate", LOST, answer(rotated, 201))
    assert main(["keys", "rotate", KEY_ID, "--grace", "1h"]) == 0
    first, second = server.of("POST", f"/v1/keys/{KEY_ID}/rotate")
    assert first.json == {"grace_s": 3600}
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert capfdbinary.readouterr().out == b"rdev_new\n"


def test_the_audit_trail_is_listed_and_exported(
    server: ScriptedServer, capfdbinary: Captured
) -> None:
    """Filters go to the server; an export is a line of JSON an entry."""
    entry = {"id": "aud_1", "at": "2026-01-01T00:00:00Z", "action": "key.revoked", "target": "k"}
    server.on("GET", "/v1/audit", page(entry))
    assert main(["audit", "ls", "--action", "key.revoked", "-p", "demo"]) == 0
    assert b"key.revoked" in capfdbinary.readouterr().out
    asked = server.of("GET", "/v1/audit")[-1].query
    assert (asked["action"], asked["project"]) == ("key.revoked", "demo")
    assert main(["audit", "export"]) == 0
    assert json.loads(capfdbinary.readouterr().out) == entry


def test_a_broken_audit_trail_is_a_failure(server: ScriptedServer, capfdbinary: Captured) -> None:
    """The first broken entry is named and the exit code is 1; a whole one is 0."""
    whole = {"ok": True, "checked": 3, "head": {"seq": 3, "hash": "ab"}, "broken": None}
    broken = whole | {"ok": False, "broken": {"id": "aud_2", "reason": "changed"}}
    server.on("GET", "/v1/audit/verify", answer(whole), answer(broken))
    assert main(["audit", "verify"]) == 0
    assert capfdbinary.readouterr().out == b"whole: 3 entries, up to 3:ab\n"
    assert main(["audit", "verify"]) == 1
    assert capfdbinary.readouterr().out == b"broken: aud_2 (changed)\n"


def test_queues_are_listed_paused_and_resumed(
    server: ScriptedServer, capfdbinary: Captured
) -> None:
    """Waiting by priority, the oldest's age, and what a pause left running."""
    low = {"low": {"queued": 2, "running": 0, "oldest_s": 12.4}}
    one = {"project": "demo", "running": 1, "queued": 2, "oldest_s": 12.4, "by_priority": low}
    paused = one | {"paused_at": "2026-01-01T00:00:00Z"}
    server.on("GET", "/v1/queue", page(paused))
    server.on("POST", "/v1/queue/demo/pause", answer(paused))
    server.on("POST", "/v1/queue/demo/resume", answer(one))
    assert main(["queue", "ls"]) == 0
    assert capfdbinary.readouterr().out.splitlines()[1].split() == (
        b"demo 1 2 0 0 0 2 12s paused".split()
    )
    assert main(["queue", "pause", "demo"]) == 0
    assert main(["queue", "resume", "demo"]) == 0
    assert capfdbinary.readouterr().out.splitlines() == [
        b"demo paused: 1 running, 2 waiting",
        b"demo resumed: 1 running, 2 waiting",
    ]


ASKED = {
    "tool_use_id": "toolu_1", "tool_name": "Bash", "input": {"command": "make deploy"},
    "state": "pending", "expires_at": "2100-01-01T00:00:00.000Z", "decided_at": None,
}  # fmt: skip
APPROVALS = f"{COMMAND}/approvals"


def test_requests_are_listed_allowed_and_denied(
    server: ScriptedServer, capfdbinary: Captured
) -> None:
    """The only pending one needs no name; of several one is named."""
    done = ASKED | {"tool_use_id": "toolu_0", "state": "denied", "input": None}
    server.on("GET", APPROVALS, page(done, ASKED))
    server.on("POST", f"{APPROVALS}/toolu_1", answer(ASKED | {"state": "allowed"}))
    assert main(["approvals", "ls", COMMAND_ID]) == 0
    _, first, second = capfdbinary.readouterr().out.decode().splitlines()
    assert first.split()[:2] == ["toolu_0", "denied"]
    assert second.split()[:2] == ["toolu_1", "pending"]
    assert second.endswith("Bash: make deploy")
    assert main(["approvals", "allow", COMMAND_ID]) == 0
    assert main(["approvals", "deny", COMMAND_ID, "toolu_1", "--message", "No."]) == 0
    sent = [seen.json for seen in server.of("POST", f"{APPROVALS}/toolu_1")]
    assert sent == [{"decision": "allow"}, {"decision": "deny", "message": "No."}]
    server.on("GET", APPROVALS, page(ASKED, ASKED | {"tool_use_id": "toolu_2"}))
    assert main(["approvals", "allow", COMMAND_ID]) == 64
    assert b"toolu_1, toolu_2" in capfdbinary.readouterr().err
    server.on("GET", APPROVALS, page(done))
    assert main(["approvals", "allow", COMMAND_ID]) == 64


SESSION = "0190f3c2-a4b8-7c0e-9a5d-1f2e3c4b5a69"


def session(**fields: Any) -> dict[str, Any]:
    return {
        "id": SESSION, "project": "demo", "state": "busy", "busy_with": COMMAND_ID, "waiting": 2,
        "forked_from": None, "model": "opus\x1b[2J", "commands": 3, "turns": 12, "cost_usd": 0.25,
        "first_command": COMMAND_ID, "last_command": COMMAND_ID,
        "started_at": "2026-01-01T00:00:00.000Z", "last_used_at": "2026-01-01T00:00:00.000Z",
    } | fields  # fmt: skip


def test_sessions_are_listed_and_shown(server: ScriptedServer, capfdbinary: Captured) -> None:
    """Turns, cost and who holds it; an id may be a unique prefix."""
    other = session(id="0190f3c3", waiting=0, state="free")
    server.on("GET", "/v1/projects/demo/sessions", page(session(), other))
    server.on("GET", f"/v1/projects/demo/sessions/{SESSION}", answer(session()))
    assert main(["sessions", "ls", "-p", "demo"]) == 0
    _, first, second = capfdbinary.readouterr().out.decode().splitlines()
    assert first.split()[:6] == [SESSION, "busy", "+2", "3", "12", "$0.2500"]
    assert second.split()[:3] == ["0190f3c3", "free", "3"]
    assert main(["sessions", "show", "-p", "demo", "0190f3c2"]) == 0
    shown = capfdbinary.readouterr().out.decode()
    assert COMMAND_ID in shown
    assert "\x1b" not in shown
    assert main(["sessions", "show", "-p", "demo", "0190"]) == 64
    assert main(["sessions", "show", "-p", "demo", "../keys"]) == 64


def test_usage_is_summed_by_what_was_asked(server: ScriptedServer, capfdbinary: Captured) -> None:
    """Each dimension is a parameter and a column."""
    row = {"project": None, "key_id": None, "model": "opus", "day": "2026-01-01", "commands": 3}
    sums = {"seconds": 1.5, "cost_usd": 0.25, "input_tokens": 10, "output_tokens": 2}
    server.on("GET", "/v1/usage", page(row | sums))
    assert main(["usage", "--by", "model", "--by", "day", "-p", "demo"]) == 0
    head, line = capfdbinary.readouterr().out.splitlines()
    assert head.split()[:2] == [b"MODEL", b"DAY"]
    assert line.split() == b"opus 2026-01-01 3 1.50 0.2500 10 2".split()
    assert server.of("GET", "/v1/usage")[-1].query["project"] == "demo"
