"""What the command line reads out of resources, and how it lists them."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from rdev import events
from rdev.commands import up
from rdev.commands.whoami import key_prefix
from rdev.errors import ServerFault, WrongUsage
from rdev.events import CommandEvent
from rdev.main import main
from rdev.queue_notice import why_waiting
from rdev.resources import Command
from rdev.table import render


def command(**fields: Any) -> Command:
    return Command.parse(
        {"id": "cmd_1", "project": "demo", "kind": "shell", "state": "queued", **fields}
    )


@pytest.mark.parametrize(
    ("kind", "spec", "summary"),
    [
        ("shell", {"argv": ["sh", "-c", "echo $i"]}, "sh -c 'echo $i'"),
        ("shell", {"script": "make\ntest"}, "make test"),
        ("git", {"args": ["log", "-5"]}, "git log -5"),
        ("claude", {"prompt": "Fix\x1b[2J it"}, "Fix[2J it"),
        ("shell", {}, ""),
    ],
)
def test_summarises_what_runs(kind: str, spec: dict[str, Any], summary: str) -> None:
    """One line, as it would be typed, and safe for a terminal."""
    assert command(kind=kind, spec=spec).summary == summary


@pytest.mark.parametrize("value", [None, [], {}, {"id": "cmd_1"}, {"id": 1, "project": "x"}])
def test_an_answer_that_is_no_command_is_a_server_fault(value: Any) -> None:
    """Another program at the URL is noticed."""
    with pytest.raises(ServerFault):
        Command.parse(value)


@pytest.mark.parametrize(
    ("fields", "project", "expected"),
    [
        (
            {"queue_position": 1},
            {"running": 5, "max_concurrent_commands": 5},
            "queued at position 1: demo runs 5 of at most 5 commands",
        ),
        ({"queue_position": 3}, {"paused": True}, "queued at position 3: demo is paused"),
        (
            {"queue_position": 1, "session_id": "s1"},
            {"running": 1, "max_concurrent_commands": 5},
            "queued at position 1: session s1 may be in use",
        ),
        ({"queue_position": 0}, {}, "about to start: waiting for a runner"),
        ({"state": "scheduled", "run_at": "2026-01-01T00:00:00Z"}, {},
         "scheduled for 2026-01-01T00:00:00Z"),
    ],
)  # fmt: skip
def test_says_why_a_command_waits(
    fields: dict[str, Any], project: dict[str, Any], expected: str
) -> None:
    """The place in the queue, and what it waits for."""
    assert why_waiting(command(**fields), project) == expected


@pytest.mark.parametrize("data", [{}, {"b64": "!"}, {"b64": "YQ"}, {"text": "\ud800"}, {"text": 5}])
def test_refuses_output_that_cannot_be_restored(data: dict[str, Any]) -> None:
    """Bytes are never guessed."""
    with pytest.raises(ServerFault):
        events.output_of(CommandEvent(1, "output", data))


def test_tables_cut_only_the_last_column() -> None:
    """Ids are there to be copied, so the summary makes room."""
    rows = [("cmd_0123456789", "a" * 100)]
    lines = render(("ID", "SUMMARY"), rows, width=40)
    assert lines == ["ID              SUMMARY", f"cmd_0123456789  {'a' * 23}…"]
    assert render(("ID", "SUMMARY"), rows, width=None)[1].endswith("a" * 100)


def test_shows_the_public_part_of_a_key_only() -> None:
    """The prefix names a key; everything behind it opens doors."""
    assert key_prefix("rdev_abcdefgh_secretsecret") == "rdev_abcdefgh"
    assert "secret" not in key_prefix("secretsecret")
    assert "secret" not in key_prefix("rdev_secretsecret")


def test_up_hands_its_options_to_the_local_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    """`rdev up` is the runner's own main, with the options that were given."""
    seen: list[list[str]] = []

    class Runner:
        @staticmethod
        def main(argv: list[str]) -> int:
            seen.append(argv)
            return 3

    monkeypatch.setitem(sys.modules, "infra.local.main", Runner)
    assert up._run_local(["--port", "9000"]) == 3
    assert seen == [["--port", "9000"]]


def test_up_without_a_server_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation of the command line alone cannot run the server, and says it."""
    monkeypatch.setitem(sys.modules, "infra.local", None)
    monkeypatch.delitem(sys.modules, "infra.local.main", raising=False)
    with pytest.raises(WrongUsage, match="only the command line"):
        up._run_local([])


def test_up_is_reached_through_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each option of `rdev up` arrives, and the runner's exit code is ours."""
    seen: list[list[str]] = []

    class Runner:
        @staticmethod
        def main(argv: list[str]) -> int:
            seen.append(argv)
            return 1

    monkeypatch.setitem(sys.modules, "infra.local.main", Runner)
    argv = ["--port", "0", "--home", "h", "--keep-running", "--json"]
    assert main(["up", *argv]) == 1
    assert main(["up"]) == 1
    assert seen == [argv, []]
