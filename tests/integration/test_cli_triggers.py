"""The verbs of triggers and events: what they ask of the server and say of its answers."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rdev.main import main
from tests.integration.cli_server import KEY, Reply, ScriptedServer, answer, problem, serving

TRIGGER_ID = "trg_" + "0" * 31 + "1"
LETTER_ID = "dlt_" + "0" * 31 + "1"
COMMAND_ID = "cmd_" + "0" * 31 + "1"
TRIGGER: dict[str, Any] = {
    "id": TRIGGER_ID,
    "name": "greet",
    "key_id": "key_1",
    "filter": {"exact": {"type": "t"}},
    "command": {"project": "demo", "kind": "shell", "script": "echo {{ data.a }}", "env": {}},
    "accept": ["http", "github"],
    "enabled": True,
    "rate_limit": {"limit": 60, "window_s": 3600},
    "created_at": "2026-01-01T00:00:00.000Z",
    "updated_at": "2026-01-01T00:00:00.000Z",
    "links": {"self": f"/v1/triggers/{TRIGGER_ID}", "github": f"/v1/events/github/{TRIGGER_ID}"},
}
ONE = f"/v1/triggers/{TRIGGER_ID}"
Captured = pytest.CaptureFixture[bytes]


@pytest.fixture(scope="module")
def shared() -> Iterator[ScriptedServer]:
    with serving() as scripted:
        yield scripted


@pytest.fixture
def server(
    shared: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ScriptedServer:
    for name in ("RDEV_HOME", "RDEV_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RDEV_URL", shared.url)
    monkeypatch.setenv("RDEV_API_KEY", KEY)
    monkeypatch.setenv("RDEV_PROJECT", "demo")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    shared.seen.clear()
    return shared


def page(*items: Any) -> Reply:
    return answer({"items": list(items), "next_cursor": None})


@pytest.mark.parametrize(
    ("options", "body"),
    [
        (
            ["--type", "t", "--script", "echo {{ data.a }}"],
            {
                "filter": {"exact": {"type": "t"}},
                "command": {"project": "demo", "kind": "shell", "script": "echo {{ data.a }}"},
            },
        ),
        (
            ["--source", "/ci/", "--subject", "s", "-p", "other", "--", "make", "X={{data.x}}"],
            {
                "filter": {"all": [{"exact": {"subject": "s"}}, {"prefix": {"source": "/ci/"}}]},
                "command": {"project": "other", "kind": "shell", "argv": ["make", "X={{data.x}}"]},
            },
        ),
        (
            ["--filter", '{"suffix":{"type":"x"}}', "--prompt", "Fix {{ data.a }}", "--env", "A=b",
             "--label", "l=m", "--accept", "broker", "--rate-limit", "1/1m", "--disabled"],
            {
                "filter": {"suffix": {"type": "x"}},
                "command": {
                    "project": "demo", "kind": "claude", "prompt": "Fix {{ data.a }}",
                    "env": {"A": "b"}, "labels": {"l": "m"},
                },
                "accept": ["broker"],
                "rate_limit": {"limit": 1, "window_s": 60},
                "enabled": False,
            },
        ),
        (
            ["--from-data", "shell", "--from-data", "git"],
            {"command": {"from": "data", "projects": ["demo"], "kinds": ["shell", "git"]}},
        ),
        (["--command", '{"kind":"git"}'], {"command": {"kind": "git"}}),
    ],
)  # fmt: skip
def test_create_says_what_to_run_when(
    server: ScriptedServer, capfdbinary: Captured, options: list[str], body: dict[str, Any]
) -> None:
    """The id is all of standard output; the secret is told beside it."""
    server.on("POST", "/v1/triggers", answer(TRIGGER | {"secret": "s3cret"}, 201))
    before, sep, after = [*options, ""][:-1], [], []
    if "--" in before:
        at = before.index("--")
        before, sep, after = before[:at], ["--"], before[at + 1 :]
    assert main(["triggers", "create", *before, "greet", *sep, *after]) == 0
    assert server.seen[-1].json == {"name": "greet"} | body
    out, err = capfdbinary.readouterr()
    assert out.decode() == f"{TRIGGER_ID}\n"
    assert b"s3cret" in err


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--script", "a", "--prompt", "b"],
        ["--type", "t", "--filter", "{}", "--script", "a"],
        ["--command", "{}", "--env", "A=b"],
        ["--env", "A=b"],
        ["--command", "not json"],
        ["--command", "@/no/such/file"],
    ],
)
def test_create_refuses_what_it_cannot_mean(server: ScriptedServer, options: list[str]) -> None:
    """64, and nothing is sent."""
    assert main(["triggers", "create", "greet", *options]) == 64
    assert [s for s in server.seen if s.method == "POST"] == []


def test_ls_and_show_tell_what_a_trigger_does(
    server: ScriptedServer, capfdbinary: Captured
) -> None:
    """A line each, ids alone for scripts, everything for one."""
    from_data = {"command": {"from": "data", "projects": ["a", "b"], "kinds": ["git"]}}
    both = page(TRIGGER | {"enabled": False}, TRIGGER | from_data)
    server.on("GET", "/v1/triggers", both, both, both, page())
    assert main(["triggers", "ls"]) == 0
    lines = capfdbinary.readouterr().out.decode().splitlines()
    assert lines[1].split()[:2] == [TRIGGER_ID, "disabled"]
    assert "shell: echo {{ data.a }}" in lines[1]
    assert "git: from data" in lines[2]
    assert main(["triggers", "ls", "-q"]) == 0
    assert capfdbinary.readouterr().out.decode().split() == [TRIGGER_ID] * 2
    assert main(["triggers", "ls", "-o", "jsonl"]) == 0
    assert len(capfdbinary.readouterr().out.splitlines()) == 2
    assert main(["triggers", "ls", "-o", "json"]) == 0
    assert json.loads(capfdbinary.readouterr().out) == {"items": []}
    server.on("GET", ONE, answer(TRIGGER), answer(TRIGGER))
    assert main(["triggers", "show", TRIGGER_ID]) == 0
    shown = capfdbinary.readouterr().out.decode()
    assert "/v1/events/github/" in shown
    assert "60/3600s" in shown
    assert main(["triggers", "show", TRIGGER_ID, "-o", "json"]) == 0
    assert json.loads(capfdbinary.readouterr().out) == TRIGGER


def test_update_changes_what_it_read(server: ScriptedServer, capfdbinary: Captured) -> None:
    """The ETag that was read goes along, and the project stays."""
    read = answer(TRIGGER, etag='"7"')
    server.on("GET", ONE, read, read, read)
    server.on("PATCH", ONE, answer(TRIGGER))
    assert main(["triggers", "update", TRIGGER_ID, "--script", "true", "--name", "n"]) == 0
    sent = server.seen[-1]
    assert sent.headers["if-match"] == '"7"'
    command = {"project": "demo", "kind": "shell", "script": "true"}
    assert sent.json == {"name": "n", "command": command}
    assert main(["triggers", "update", TRIGGER_ID]) == 64
    server.on("PATCH", ONE, problem(412, "precondition_failed"))
    assert main(["triggers", "update", TRIGGER_ID, "--name", "n"]) != 0
    capfdbinary.readouterr()


def test_enable_disable_and_rm_say_what_they_did(
    server: ScriptedServer, capfdbinary: Captured
) -> None:
    """One line each, whatever version is there."""
    server.on("PATCH", ONE, answer(TRIGGER), answer(TRIGGER))
    server.on("DELETE", ONE, Reply(204))
    for verb, done in (("enable", "enabled"), ("disable", "disabled"), ("rm", "deleted")):
        assert main(["triggers", verb, TRIGGER_ID]) == 0
        assert capfdbinary.readouterr().out.decode() == f"{TRIGGER_ID} {done}\n"
        assert server.seen[-1].headers["if-match"] == "*"


def test_rotate_prints_the_secret_once(server: ScriptedServer, capfdbinary: Captured) -> None:
    """An answer that is a replay has none, and says what to do."""
    made = answer(TRIGGER | {"secret": "new"}, 201)
    server.on("POST", f"{ONE}/rotate", made, made, answer(TRIGGER | {"secret": None}, 201))
    assert main(["triggers", "rotate", TRIGGER_ID, "--grace", "1h"]) == 0
    assert server.seen[-1].json == {"grace_s": 3600}
    assert capfdbinary.readouterr().out == b"new\n"
    assert main(["triggers", "rotate", TRIGGER_ID, "-o", "json"]) == 0
    assert main(["triggers", "rotate", TRIGGER_ID]) == 75


def test_test_shows_the_command_or_why_there_is_none(
    server: ScriptedServer, capfdbinary: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 when the event would start nothing."""
    would = {"matches": True, "command": {"kind": "shell"}, "reason": None, "detail": ""}
    wrong = {"matches": False, "command": None, "reason": "no_match", "detail": "not for it"}
    server.on("POST", f"{ONE}/test", answer(would), answer(wrong), answer(wrong))
    data = ["--data", '{"a":1}', "--channel", "broker"]
    assert main(["triggers", "test", TRIGGER_ID, "--type", "t", *data]) == 0
    event = {"type": "t", "source": "/cli", "data": {"a": 1}}
    assert server.seen[-1].json == {"event": event, "channel": "broker"}
    assert json.loads(capfdbinary.readouterr().out) == {"kind": "shell"}
    whole = io.TextIOWrapper(io.BytesIO(b'{"type":"x"}'))
    monkeypatch.setattr(sys, "stdin", whole)
    assert main(["triggers", "test", TRIGGER_ID, "--event", "@-"]) == 1
    assert server.seen[-1].json["event"] == {"type": "x"}
    assert capfdbinary.readouterr().out == b"no_match: not for it\n"
    assert main(["triggers", "test", TRIGGER_ID, "--type", "t", "-o", "json"]) == 1
    assert main(["triggers", "test", TRIGGER_ID]) == 64


def test_matches_are_a_log(server: ScriptedServer, capfdbinary: Captured) -> None:
    """The command, or why there is none."""
    good = {"at": "2026-01-01T00:00:00Z", "outcome": "submitted", "event_id": "1", "source": "/s",
            "command_id": COMMAND_ID, "reason": None, "detail": ""}  # fmt: skip
    bad = good | {"outcome": "refused", "command_id": None, "reason": "key_expired", "detail": "d"}
    server.on("GET", f"{ONE}/matches", page(good, bad), page())
    assert main(["triggers", "matches", TRIGGER_ID]) == 0
    lines = capfdbinary.readouterr().out.decode().splitlines()
    assert lines[1].endswith(COMMAND_ID)
    assert lines[2].endswith("key_expired: d")
    assert main(["triggers", "matches", TRIGGER_ID, "--outcome", "refused"]) == 0
    assert server.seen[-1].query["outcome"] == "refused"


def received(outcome: str, *at: dict[str, Any]) -> Reply:
    return answer({"events": [{"id": "1", "outcome": outcome, "triggers": list(at)}]}, 202)


def test_send_prints_the_commands_it_started(server: ScriptedServer, capfdbinary: Captured) -> None:
    """125 when it started none; the id is chosen here, so that it can be sent again."""
    done = {"trigger_id": TRIGGER_ID, "command_id": COMMAND_ID, "duplicate": False}
    no = {"trigger_id": TRIGGER_ID, "command_id": None, "duplicate": False, "reason": "key_expired"}
    path = "/v1/events"
    server.on(
        "POST", path, received("submitted", done), received("refused", no), received("no_trigger"),
        received("submitted", done),
    )  # fmt: skip
    options = ["--subject", "s", "--attribute", "x=y"]
    assert main(["events", "send", "--type", "t", "--data", "1", *options]) == 0
    assert capfdbinary.readouterr().out.decode() == f"{COMMAND_ID}\n"
    sent = server.seen[-1]
    assert sent.headers["content-type"] == "application/cloudevents+json"
    assert len(sent.json.pop("id")) == 32
    assert sent.json | {"id": ""} == {
        "specversion": "1.0", "id": "", "source": "/cli", "type": "t", "subject": "s", "x": "y",
        "data": 1, "datacontenttype": "application/json",
    }  # fmt: skip
    assert main(["events", "send", "--type", "t"]) == 125
    assert b"key_expired" in capfdbinary.readouterr().err
    assert main(["events", "send", "--type", "t"]) == 125
    assert b"no_trigger" in capfdbinary.readouterr().err
    whole = '{"type":"t","id":"7","source":"/x"}'
    assert main(["events", "send", "--event", whole, "-o", "json"]) == 0
    assert server.seen[-1].json["id"] == "7"
    for wrong in ([], ["--event", "[]"], ["--event", "{}", "--type", "t"]):
        assert main(["events", "send", *wrong]) == 64


def test_dead_letters_are_listed_and_replayed(
    server: ScriptedServer, capfdbinary: Captured
) -> None:
    """Those that were not replayed, unless all are asked for."""
    letter = {"id": LETTER_ID, "created_at": "2026-01-01T00:00:00Z", "reason": "no_trigger",
              "type": "t", "source": "/s", "detail": "why"}  # fmt: skip
    path = "/v1/events/dead-letters"
    server.on("GET", path, page(letter), page(letter), page(letter), page(letter), page())
    assert main(["events", "dead", "--reason", "no_trigger"]) == 0
    assert server.seen[-1].query["replayed"] == "false"
    assert "no_trigger" in capfdbinary.readouterr().out.decode()
    assert main(["events", "dead", "-q", "--all"]) == 0
    assert "replayed" not in server.seen[-1].query
    assert capfdbinary.readouterr().out.decode() == f"{LETTER_ID}\n"
    assert main(["events", "dead", "-o", "jsonl"]) == 0
    server.on("POST", f"{path}/{LETTER_ID}/replay", answer({"outcome": "submitted"}))
    assert main(["events", "replay", "dlt_0"]) == 0
    server.on("POST", f"{path}/{LETTER_ID}/replay", answer({"outcome": "refused"}))
    assert main(["events", "replay", LETTER_ID]) == 125
    assert main(["events", "dead", "-o", "json"]) == 0
