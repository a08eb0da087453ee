"""Every verb explains itself in the same shape, and its examples can be pasted."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from rdev.main import cli, main
from rdev.verb import Verb


def walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Verb]]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from walk(inner, (*path, name))
    else:
        assert isinstance(command, Verb)
        yield path, command


VERBS = dict(walk(cli, ()))
NAMES = sorted(VERBS)


def test_has_the_verbs_of_the_design() -> None:
    """No verb of cli.md that exists today is missing."""
    wanted = {
        "up", "doctor", "migrate", "run", "claude", "git", "ps", "show", "logs", "wait", "cancel",
        "retry", "projects ls", "projects show", "keys create", "keys ls", "keys revoke",
        "keys show", "keys update", "keys rotate", "audit ls", "usage",
        "sessions ls", "sessions show", "approvals ls", "approvals allow", "approvals deny",
        "queue ls", "queue pause", "queue resume", "audit export", "audit verify",
        "config ls", "config get", "config put", "config rm", "config validate",
        "config effective",
        "webhooks create", "webhooks ls", "webhooks show", "webhooks update", "webhooks rm",
        "webhooks rotate", "webhooks ping", "webhooks deliveries", "webhooks redeliver",
        "webhooks recover",
        "triggers create", "triggers ls", "triggers show", "triggers update", "triggers rm",
        "triggers enable", "triggers disable", "triggers rotate", "triggers test",
        "triggers matches", "events send", "events dead", "events replay",
        "login", "whoami",
    }  # fmt: skip
    assert wanted == {" ".join(path) for path in NAMES}


@pytest.mark.parametrize("path", NAMES, ids=" ".join)
def test_help_is_a_sentence_usage_options_and_two_examples(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """The same four parts in the same order for every verb."""
    assert main([*path, "--help"]) == 0
    shown = capsys.readouterr().out
    first = shown.split("\n\n")[0]
    assert first.endswith(".")
    assert first.count(". ") == 0
    places = [shown.index(part) for part in ("Usage:", "Options:", "Examples:")]
    assert places == sorted(places)
    assert len(VERBS[path].examples) == 2


def words_of(example: str) -> list[str]:
    """The words after `rdev` in an example, without assignments, pipes and redirections."""
    lexer = shlex.shlex(example, posix=True, punctuation_chars="|<>")
    lexer.whitespace_split = True
    words = list(lexer)
    start = max(index for index, word in enumerate(words) if word == "rdev") + 1
    until = next((i for i, w in enumerate(words) if i > start and w in ("|", "<", ">")), len(words))
    return words[start:until]


@pytest.mark.parametrize("path", NAMES, ids=" ".join)
def test_examples_are_accepted(path: tuple[str, ...]) -> None:
    """The parser takes each example; a renamed option cannot leave a stale one behind."""
    for example in VERBS[path].examples:
        plain = example.replace("$(rdev ps -q -n 1)", "cmd_1").replace(
            "$(rdev ps -q -n 3)", "cmd_1"
        )
        plain = plain.replace("$(rdev keys ls -q --name ci)", "key_1")
        if "| xargs" in plain:
            plain = plain.partition("xargs ")[2] + " key_1"
        plain = plain.replace(" --event @event.json", "")
        words = words_of(plain)
        assert tuple(words[: len(path)]) == path
        VERBS[path].make_context(" ".join(path), words[len(path) :])


@pytest.mark.parametrize("path", NAMES, ids=" ".join)
def test_every_option_says_what_it_does(path: tuple[str, ...]) -> None:
    """No option is listed without a word about it."""
    for parameter in VERBS[path].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_the_tree_can_be_introspected() -> None:
    """The reference is generated from this: names, options and examples, without running a verb."""
    info = cli.to_info_dict(click.Context(cli))
    assert info["commands"]["run"]["examples"] == list(VERBS[("run",)].examples)


def test_help_ends_with_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts are written from the help, so the codes stand there."""
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "75   the outcome is unknown" in shown


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["nonsense"],
        ["run", "--nonsense"],
        ["run", "--timeout", "soon", "--", "true"],
        ["run"],
        ["run", "--script", "true", "--", "true"],
        ["run", "--env", "=x", "--", "true"],
        ["run", "--env", "RDEV_TEST_IS_NOT_SET", "--", "true"],
        ["run", "--label", "x", "--", "true"],
        ["run", "--", "a\udcff"],
        ["ps", "-n", "0"],
        ["logs", "-n", "5", "--since", "5m", "cmd_1"],
        ["keys", "create", "ci"],
        ["keys", "create", "ci", "--scope", "x", "--rate-limit", "fast"],
        ["cancel"],
    ],
)
def test_wrong_usage_is_64(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake in the command line ends with 64, before anything is asked of a server."""
    assert main(argv) == 64
    assert capsys.readouterr().out == ""


def test_help_imports_neither_the_server_nor_httpx() -> None:
    """`rdev --help` is fast because it imports little, and the client has no server code."""
    program = (
        "import sys, rdev.main; rdev.main.main(['--help']); "
        "print([m for m in sys.modules if m.split('.')[0] in "
        "('httpx', 'common', 'functions', 'infra', 'pydantic', 'starlette')], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stderr.strip() == b"[]"


def test_shows_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`rdev --version` is one line."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("rdev ")
