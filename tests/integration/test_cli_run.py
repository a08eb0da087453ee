"""`rdev run` and its relatives as processes: bytes, exit codes, signals, terminals."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli_server import (
    COMMAND_ID,
    KEY,
    LOST,
    Reply,
    ScriptedServer,
    Seen,
    after,
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

STREAM = f"/v1/streams/commands/{COMMAND_ID}"
CANCEL = f"/v1/commands/{COMMAND_ID}/cancel"
RDEV = [sys.executable, "-m", "rdev"]
SESSION = "0190f3c2-a4b8-7c0e-9a5d-1f2e3c4b5a69"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with serving() as scripted:
        scripted.on("POST", "/v1/commands", answer(command(), 202))
        yield scripted


def environment(server: ScriptedServer, tmp_path: Path, **more: str) -> dict[str, str]:
    # What a coverage run hands to child processes is no configuration of rdev's.
    measured = {name: text for name, text in os.environ.items() if name.startswith("COVERAGE_")}
    return {
        **measured,
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "RDEV_URL": server.url,
        "RDEV_API_KEY": KEY,
        **more,
    }


def rdev(
    server: ScriptedServer, tmp_path: Path, *argv: str, **more: Any
) -> subprocess.CompletedProcess[bytes]:
    env = environment(server, tmp_path, **more.pop("env", {}))
    return subprocess.run(
        [*RDEV, *argv],
        env=env,
        cwd=tmp_path,
        stdin=more.pop("stdin", subprocess.DEVNULL),
        capture_output=True,
        timeout=60,
        check=False,
        **more,
    )


def test_run_gives_the_bytes_and_the_exit_code(server: ScriptedServer, tmp_path: Path) -> None:
    """Each stream arrives byte for byte where it belongs, and nothing of rdev's is mixed in."""
    blocks = [
        block(1, "output", stream="stdout", offset=0, b64="AP8K"),
        block(2, "output", stream="stderr", offset=0, text="é\r"),
        block(3, "end", **ended("failed", "exit_nonzero", 42)),
    ]
    server.on("GET", STREAM, replay(blocks))
    done = rdev(server, tmp_path, "run", "-p", "demo", "--", "sh", "-c", "echo $i")
    assert (done.stdout, done.stderr, done.returncode) == (b"\x00\xff\n", "é\r".encode(), 42)


def test_run_submits_what_was_typed(server: ScriptedServer, tmp_path: Path) -> None:
    """argv reaches the server unchanged, options as fields, the rest left to its defaults."""
    server.on("GET", STREAM, replay(events()))
    words = ["sh", "-c", 'for i in 1 2; do echo "$i"; done', "--timeout", "-p", "ü"]
    options = ["--timeout", "5m", "--priority", "high", "--env", "A=b=c", "--env", "FROM_HERE"]
    options += ["--label", "team=web", "--if-busy", "reject", "--cwd", "sub"]
    env = {"env": {"FROM_HERE": "secret"}}
    done = rdev(server, tmp_path, "run", "-p", "demo", *options, "--", *words, **env)
    assert done.returncode == 0, done.stderr
    assert server.of("POST", "/v1/commands")[0].json == {
        "project": "demo",
        "kind": "shell",
        "argv": words,
        "streams": "separate",
        "timeouts": {"run_s": 300},
        "priority": "high",
        "env": {"A": "b=c", "FROM_HERE": "secret"},
        "labels": {"team": "web"},
        "if_busy": "reject",
        "cwd": "sub",
    }


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (
            ["run", "--script", "make\ntest"],
            {"kind": "shell", "script": "make\ntest", "streams": "separate"},
        ),
        (
            ["git", "--", "log", "--oneline", "-5"],
            {"kind": "git", "args": ["log", "--oneline", "-5"], "streams": "separate"},
        ),
        (["git", "status"], {"kind": "git", "args": ["status"], "streams": "separate"}),
        (["claude", "-p", "demo", "Fix it"], {"kind": "claude", "prompt": "Fix it"}),
        (
            ["claude", "--session", SESSION, "--fork", "--max-turns", "3", "--allowed-tool", "Bash",
             "--json-schema", '{"type": "object"}', "--", "-x"],
            {
                "kind": "claude",
                "prompt": "-x",
                "session": {"mode": "fork", "id": SESSION},
                "options": {
                    "max_turns": 3,
                    "allowed_tools": ["Bash"],
                    "json_schema": {"type": "object"},
                },
            },
        ),
    ],
)  # fmt: skip
def test_each_kind_has_its_shape(
    server: ScriptedServer, tmp_path: Path, argv: list[str], expected: dict[str, Any]
) -> None:
    """shell, git and claude are submitted as api.md shows them."""
    server.on("GET", STREAM, replay(events()))
    done = rdev(server, tmp_path, *argv, env={"RDEV_PROJECT": "demo"})
    assert done.returncode == 0, done.stderr
    assert server.of("POST", "/v1/commands")[0].json == {"project": "demo", **expected}


def test_claude_reads_its_prompt_from_a_pipe(server: ScriptedServer, tmp_path: Path) -> None:
    """Without PROMPT, standard input is the prompt, and the answer alone is the output."""
    server.on("POST", "/v1/commands", answer(command(kind="claude"), 202))
    end = ended(kind="claude")
    end["outcome"]["agent"] = {"num_turns": 1, "session_id": "s1", "result": "42"}
    result = {"type": "result", "is_error": False, "result": "42"}
    server.on("GET", STREAM, replay([block(1, "agent", **result), block(2, "end", **end)]))
    prompt = tmp_path / "prompt"
    prompt.write_text("What is it?\n")
    with prompt.open() as stdin:
        done = rdev(server, tmp_path, "claude", "-p", "demo", stdin=stdin)
    assert (done.stdout, done.stderr) == (b"42\n", b"")
    assert server.of("POST", "/v1/commands")[0].json["prompt"] == "What is it?\n"


def test_claude_continues_the_latest_session(server: ScriptedServer, tmp_path: Path) -> None:
    """--continue asks for the session that was used last."""
    server.on("GET", STREAM, replay(events()))
    items = [{"id": "s7"}, {"id": "s6"}]
    server.on("GET", "/v1/projects/demo/sessions", answer({"items": items, "next_cursor": None}))
    done = rdev(server, tmp_path, "claude", "-p", "demo", "--continue", "Go on")
    assert done.returncode == 0, done.stderr
    assert server.of("GET", "/v1/projects/demo/sessions")[0].query == {"limit": "1"}
    sent = server.of("POST", "/v1/commands")[0].json
    assert sent["session"] == {"mode": "resume", "id": "s7"}


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (ended("failed", "signalled", None, signal=9), 137),
        (ended("failed", "start_failed", None), 125),
        (ended("timed_out", "run", None), 124),
        (ended("cancelled", "user", None), 130),
        (ended("lost", "pod_deleted", None), 75),
    ],
)
def test_run_ends_as_the_command_did(
    server: ScriptedServer, tmp_path: Path, end: dict[str, Any], code: int
) -> None:
    """Each outcome has its exit code, and rdev's own codes come with a word of explanation."""
    server.on("GET", STREAM, replay(events(end=end)))
    done = rdev(server, tmp_path, "run", "-p", "demo", "--", "true")
    assert done.returncode == code
    assert (COMMAND_ID.encode() in done.stderr) == (code != 137)


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (problem(401, "unauthorized"), 77),
        (problem(403, "forbidden"), 77),
        (problem(404, "not_found"), 125),
        (problem(409, "session_busy"), 125),
        (problem(422, "invalid_field"), 125),
        (problem(429, "concurrency_limited"), 125),
        (problem(500, "internal"), 70),
        (Reply(200, {}, b"<html>"), 70),
    ],
)
def test_refusals_have_their_codes(
    server: ScriptedServer, tmp_path: Path, refusal: Reply, code: int
) -> None:
    """A command that was not taken ends with the code that says why, and with the reason."""
    server.on("POST", "/v1/commands", refusal)
    done = rdev(server, tmp_path, "run", "-p", "demo", "-o", "json", "--", "true")
    assert done.returncode == code
    assert done.stderr.startswith(b"rdev: ")
    assert json.loads(done.stdout)["error"]["exit_code"] == code
    assert KEY.encode() not in done.stdout + done.stderr


def test_a_lost_answer_does_not_submit_twice(server: ScriptedServer, tmp_path: Path) -> None:
    """When the reply to a submit is lost, the same Idempotency-Key and body are sent again."""
    server.on("POST", "/v1/commands", LOST, problem(409, "idempotency_in_flight"),
              answer(command(), 202))  # fmt: skip
    server.on("GET", STREAM, replay(events("once\n")))
    done = rdev(server, tmp_path, "run", "-p", "demo", "--", "true")
    assert (done.returncode, done.stdout) == (0, b"once\n")
    sent = server.of("POST", "/v1/commands")
    assert len(sent) == 3
    assert len({s.headers["idempotency-key"] for s in sent}) == 1
    assert len({s.body for s in sent}) == 1


def test_two_submits_have_two_keys(server: ScriptedServer, tmp_path: Path) -> None:
    """Running the same thing again is not taken for a repetition."""
    for _ in range(2):
        rdev(server, tmp_path, "run", "-d", "-p", "demo", "--", "true")
    keys = [s.headers["idempotency-key"] for s in server.of("POST", "/v1/commands")]
    assert len(set(keys)) == 2


def test_waits_as_long_as_the_server_asks(server: ScriptedServer, tmp_path: Path) -> None:
    """503 with Retry-After is an invitation to come back, not an error."""
    busy = problem(503, "not_ready", **{"retry-after": "0"})
    server.on("POST", "/v1/commands", busy, busy, answer(command(), 202))
    done = rdev(server, tmp_path, "run", "-d", "-p", "demo", "--", "true")
    assert (done.returncode, done.stdout) == (0, f"{COMMAND_ID}\n".encode())


def test_gives_up_at_once_when_the_wait_is_too_long(server: ScriptedServer, tmp_path: Path) -> None:
    """Nobody is left hanging for a window that opens in an hour."""
    late = problem(429, "rate_limited", **{"retry-after": "3600"})
    server.on("POST", "/v1/commands", late)
    done = rdev(server, tmp_path, "run", "-p", "demo", "--", "true")
    assert done.returncode == 125
    assert len(server.of("POST", "/v1/commands")) == 1


def test_detach_prints_the_id_only(server: ScriptedServer, tmp_path: Path) -> None:
    """-d is made for scripts: the id, and nothing else."""
    done = rdev(server, tmp_path, "run", "-d", "-p", "demo", "--", "true")
    assert (done.stdout, done.stderr, done.returncode) == (f"{COMMAND_ID}\n".encode(), b"", 0)
    assert server.of("GET", STREAM) == []


def test_json_is_the_final_resource(server: ScriptedServer, tmp_path: Path) -> None:
    """-o json holds the outcome, so that 75 from the command is not taken for ours."""
    end = ended("failed", "exit_nonzero", 75)
    server.on("GET", STREAM, replay(events("x\n", end=end)))
    done = rdev(server, tmp_path, "run", "-p", "demo", "-o", "json", "--", "true")
    assert done.returncode == 75
    assert json.loads(done.stdout)["outcome"]["reason"] == "exit_nonzero"


def test_jsonl_is_the_stream(server: ScriptedServer, tmp_path: Path) -> None:
    """-o jsonl prints one event a line, up to the end."""
    server.on("GET", STREAM, replay(events("x\n")))
    done = rdev(server, tmp_path, "run", "-p", "demo", "-o", "jsonl", "--", "true")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["id"], line["event"]) for line in lines] == [
        (1, "state"),
        (2, "state"),
        (3, "output"),
        (4, "end"),
    ]
    assert lines[2]["data"]["text"] == "x\n"


def test_the_only_project_is_meant(server: ScriptedServer, tmp_path: Path) -> None:
    """Without -p, the one project there is; with several, the person has to say."""
    server.on("GET", "/v1/projects", answer({"items": [{"name": "demo"}], "next_cursor": None}))
    server.on("GET", STREAM, replay(events()))
    assert rdev(server, tmp_path, "run", "--", "true").returncode == 0
    assert server.of("POST", "/v1/commands")[0].json["project"] == "demo"
    several = {"items": [{"name": "demo"}, {"name": "api"}], "next_cursor": None}
    server.on("GET", "/v1/projects", answer(several))
    done = rdev(server, tmp_path, "run", "--", "true")
    assert done.returncode == 64
    assert b"api, demo" in done.stderr


def test_works_beside_rdev_up_without_configuration(server: ScriptedServer, tmp_path: Path) -> None:
    """`.rdev/url` and `.rdev/admin.key` are all it needs."""
    home = tmp_path / ".rdev"
    home.mkdir()
    (home / "url").write_text(server.url)
    (home / "admin.key").write_text(KEY)
    server.on("GET", STREAM, replay(events("hi\n")))
    env = environment(server, tmp_path)
    del env["RDEV_URL"], env["RDEV_API_KEY"]
    argv = [*RDEV, "run", "-p", "demo", "--", "true"]
    done = subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hi\n", b"")
    assert server.seen[0].headers["authorization"] == f"Bearer {KEY}"


def test_an_unreachable_server_is_69(tmp_path: Path) -> None:
    """Nobody there: said with the URL and where it came from."""
    with serving() as gone:
        env = environment(gone, tmp_path)
    done = subprocess.run(
        [*RDEV, "ps"], env=env, cwd=tmp_path, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 69
    assert b"RDEV_URL" in done.stderr
    assert b"rdev doctor" in done.stderr


def test_a_reader_that_leaves_cancels_where_nobody_can_be_asked(
    server: ScriptedServer, tmp_path: Path
) -> None:
    """`rdev run -- yes | head -1` stops the command like a local pipeline would."""
    blocks = events(*["y\n" * 30_000] * 10)
    server.on("GET", STREAM, replay(blocks))
    server.on("POST", CANCEL, answer(command("cancelling"), 202))
    with start(server, tmp_path, "run", "-p", "demo", "--", "yes") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        assert process.wait(timeout=60) == 141
    assert len(server.of("POST", CANCEL)) == 1


def start(
    server: ScriptedServer, tmp_path: Path, *argv: str, **more: Any
) -> subprocess.Popen[bytes]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    streams = {"stdin": subprocess.DEVNULL, **pipes, **more}
    return subprocess.Popen(
        [*RDEV, *argv],
        env=environment(server, tmp_path, NO_COLOR="1"),
        cwd=tmp_path,
        **streams,
    )


class CancellableCommand:
    """A stream that goes on until the command is cancelled."""

    def __init__(self, server: ScriptedServer) -> None:
        self._blocks = events("working\n")[:-1]
        self._is_cancelled = False
        server.on("GET", STREAM, self._stream)
        server.on("POST", CANCEL, self._cancel)

    def _stream(self, seen: Seen) -> Reply:
        rest = after(self._blocks, seen)
        return sse(rest) if self._is_cancelled else sse(b"retry: 50\n\n" + rest)

    def _cancel(self, seen: Seen) -> Reply:
        assert seen.json == {"mode": "graceful"}
        self._is_cancelled = True
        end = ended("cancelled", "user", None)
        self._blocks.append(block(len(self._blocks) + 1, "end", **end))
        return answer(command("cancelling"), 202)


def test_without_a_terminal_an_interrupt_cancels(server: ScriptedServer, tmp_path: Path) -> None:
    """Nobody can be asked in a script, so the first Ctrl-C cancels, and the end is awaited."""
    CancellableCommand(server)
    with start(server, tmp_path, "run", "-p", "demo", "--", "sleep", "9") as process:
        server.wait_for("GET", STREAM, 2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (out, process.returncode) == (b"working\n", 130)
    assert b"was cancelled" in err
    assert len(server.of("POST", CANCEL)) == 1


def test_sigterm_is_an_interrupt_too(server: ScriptedServer, tmp_path: Path) -> None:
    """A CI job that is stopped leaves no command behind."""
    CancellableCommand(server)
    with start(server, tmp_path, "run", "-p", "demo", "--", "sleep", "9") as process:
        server.wait_for("GET", STREAM, 2)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(server.of("POST", CANCEL)) == 1


def test_detach_on_interrupt_leaves_the_command_running(
    server: ScriptedServer, tmp_path: Path
) -> None:
    """--on-interrupt detach leaves at once, cancels nothing, and says how to come back."""
    server.on("GET", STREAM, sse(b"".join(events("working\n")[:-1]), then="silence"))
    argv = ["run", "-p", "demo", "--on-interrupt", "detach", "--", "sleep", "9"]
    with start(server, tmp_path, *argv) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"working\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"rdev logs -f {COMMAND_ID}".encode() in err
    assert server.of("POST", CANCEL) == []


class Terminal:
    """A terminal for standard error, read until a text appears."""

    def __init__(self) -> None:
        self._outside, self.inside = pty.openpty()
        self.text = ""

    def read_until(self, wanted: str) -> None:
        while wanted not in self.text:
            ready, _, _ = select.select([self._outside], [], [], 30)
            assert ready, f"{wanted!r} did not come; there is {self.text!r}"
            self.text += os.read(self._outside, 4096).decode()

    def type(self, text: str) -> None:
        os.write(self._outside, text.encode())

    def close(self) -> None:
        os.close(self._outside)
        os.close(self.inside)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    found = Terminal()
    yield found
    found.close()


def test_on_a_terminal_the_second_interrupt_cancels(
    server: ScriptedServer, tmp_path: Path, terminal: Terminal
) -> None:
    """The first Ctrl-C says how to come back and changes nothing; the second cancels."""
    CancellableCommand(server)
    argv = ["run", "-p", "demo", "--", "sleep", "9"]
    with start(server, tmp_path, *argv, stderr=terminal.inside) as process:
        server.wait_for("GET", STREAM, 2)
        process.send_signal(signal.SIGINT)
        terminal.read_until(f"stop it with `rdev cancel {COMMAND_ID}`; Ctrl-C again cancels it")
        assert server.of("POST", CANCEL) == []
        server.wait_for("GET", STREAM, len(server.of("GET", STREAM)) + 1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        terminal.read_until("was cancelled")
    assert len(server.of("POST", CANCEL)) == 1


def test_the_third_interrupt_leaves(
    server: ScriptedServer, tmp_path: Path, terminal: Terminal
) -> None:
    """A cancel that takes its time holds nobody."""
    server.on("GET", STREAM, sse(b"".join(events("working\n")[:-1]), then="silence"))
    server.on("POST", CANCEL, answer(command("cancelling"), 202))
    argv = ["run", "-p", "demo", "--", "sleep", "9"]
    with start(server, tmp_path, *argv, stderr=terminal.inside) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"working\n"
        process.send_signal(signal.SIGINT)
        terminal.read_until("Ctrl-C again")
        process.send_signal(signal.SIGINT)
        server.wait_for("POST", CANCEL)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        terminal.read_until(f"left {COMMAND_ID}")


def test_an_interrupt_while_submitting_says_that_it_is_unknown(
    server: ScriptedServer, tmp_path: Path
) -> None:
    """Ctrl-C before the answer may come too late, and the person is told."""
    server.on("POST", "/v1/commands", Reply(202, {}, b"{", then="silence"))
    with start(server, tmp_path, "run", "-p", "demo", "--", "true") as process:
        server.wait_for("POST", "/v1/commands")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"may have taken the command" in err


def test_says_why_a_command_waits(
    server: ScriptedServer, tmp_path: Path, terminal: Terminal
) -> None:
    """A person who waits learns the place in the queue and the reason."""
    waiting = command("queued", queue_position=1)
    server.on("POST", "/v1/commands", answer(waiting, 202))
    server.on("GET", f"/v1/commands/{COMMAND_ID}", answer(waiting))
    project = {"name": "demo", "running": 5, "max_concurrent_commands": 5, "paused": False}
    server.on("GET", "/v1/projects/demo", answer(project))
    blocks = events("done\n")
    server.on("GET", STREAM, sse(b"retry: 50\n\n" + blocks[0]), sse(b"retry: 50\n\n: full\n\n"))
    argv = ["run", "-p", "demo", "--", "true"]
    with start(server, tmp_path, *argv, stderr=terminal.inside) as process:
        terminal.read_until("queued at position 1: demo runs 5 of at most 5 commands")
        server.on("GET", STREAM, replay(blocks))
        terminal.read_until("started")
        assert process.wait(timeout=60) == 0


def test_claude_asks_on_a_terminal(
    server: ScriptedServer, tmp_path: Path, terminal: Terminal
) -> None:
    """What claude wants is shown and asked; the answer is sent, and one that is too late said."""
    running = command("running", kind="claude", spec={"options": {"approvals": True}})
    server.on("POST", "/v1/commands", answer(running, 202))
    path = f"/v1/commands/{COMMAND_ID}/approvals/toolu_"
    server.on("POST", f"{path}1", answer({"state": "denied"}))
    server.on("POST", f"{path}2", problem(409, "conflict", "it is allowed already"))
    wire = b"".join(
        block(n, "approval", state="pending", tool_use_id=f"toolu_{n}", tool_name="Bash",
              input={"command": f"touch {n}"}) for n in (1, 2)
    )  # fmt: skip
    server.on("GET", STREAM, sse(wire + block(3, "end", **ended(kind="claude"))))
    argv = ["claude", "-p", "demo", "--approvals", "Go"]
    streams = {"stderr": terminal.inside, "stdin": terminal.inside}
    with start(server, tmp_path, *argv, **streams) as process:
        terminal.read_until("claude asks to use Bash: touch 1")
        terminal.read_until("allow it?")
        terminal.type("maybe\nn Ask first.\n")
        terminal.read_until("denied")
        terminal.read_until("touch 2")
        terminal.type("Y\n")
        terminal.read_until("it is allowed already")
        assert process.wait(timeout=60) == 0
    assert server.of("POST", "/v1/commands")[0].json["options"] == {"approvals": True}
    [first] = server.of("POST", f"{path}1")
    assert first.json == {"decision": "deny", "message": "Ask first."}


def test_retry_follows_the_new_command(server: ScriptedServer, tmp_path: Path) -> None:
    """A retry is a new command: submitted once, with its environment given again, and followed."""
    old = "cmd_" + "a" * 32
    path = f"/v1/commands/{old}/retry"
    server.on("POST", path, LOST, answer(command(retry_of=old), 202))
    server.on("GET", STREAM, replay(events("again\n")))
    done = rdev(server, tmp_path, "retry", "--env", "A=b", old)
    assert (done.returncode, done.stdout) == (0, b"again\n")
    assert server.of("POST", path)[0].json == {"env": {"A": "b"}}
    assert len({s.headers["idempotency-key"] for s in server.of("POST", path)}) == 1


def test_a_reader_that_leaves_a_terminal_is_told_how_to_come_back(
    server: ScriptedServer, tmp_path: Path, terminal: Terminal
) -> None:
    """Where Ctrl-C would ask, a closed pipe cancels nothing: the person learns what still runs."""
    server.on("GET", STREAM, replay(events(*["y\n" * 30_000] * 10)))
    argv = ["run", "-p", "demo", "--", "yes"]
    with start(server, tmp_path, *argv, stderr=terminal.inside) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        terminal.read_until(f"rdev cancel {COMMAND_ID}")
    assert server.of("POST", CANCEL) == []


def test_a_cancel_that_is_refused_is_said(server: ScriptedServer, tmp_path: Path) -> None:
    """Ctrl-C that could not cancel says so, and goes on following."""
    blocks = events("working\n", "still working\n")
    server.on("POST", CANCEL, problem(403, "forbidden"))

    def stream(seen: Seen) -> Reply:
        if server.of("POST", CANCEL):
            return sse(after(blocks, seen))
        return sse(b"retry: 50\n\n" + after(blocks[:3], seen))

    server.on("GET", STREAM, stream)
    with start(server, tmp_path, "run", "-p", "demo", "--", "sleep", "9") as process:
        server.wait_for("GET", STREAM, 2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (out, process.returncode) == (b"working\nstill working\n", 0)
    assert b"could not cancel" in err
