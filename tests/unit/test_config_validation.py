"""common/domain/config_validation.py: what strict validation refuses, field by field."""

from __future__ import annotations

import pytest

from common.domain.claude_config import Definition, Kind
from common.domain.config_validation import ERROR, WARNING, Issue, validate

GOOD = {
    Kind.COMMANDS: "description: Deploys",
    Kind.SKILLS: "name: x-y\ndescription: Reads with care",
    Kind.AGENTS: "name: x-y\ndescription: Reviews what changed",
}


def issues(kind: Kind, yaml: str, body: str = "Do it.\n") -> list[Issue]:
    return validate(Definition(kind, "x-y", f"---\n{yaml}\n---\n{body}".encode()))


def said(kind: Kind, yaml: str) -> list[tuple[str, str, int | None, str]]:
    return [(i.field, i.code, i.line, i.level) for i in issues(kind, yaml)]


@pytest.mark.parametrize("kind", list(Kind))
def test_the_least_is_enough(kind: Kind) -> None:
    """Nothing to say."""
    assert issues(kind, GOOD[kind]) == []


def test_a_command_needs_no_frontmatter() -> None:
    """But something to do."""
    assert validate(Definition(Kind.COMMANDS, "x", b"Do it.")) == []
    [issue] = validate(Definition(Kind.COMMANDS, "x", b"---\n---\n \n"))
    assert (issue.code, issue.level) == ("empty_body", WARNING)


FULL = {
    Kind.COMMANDS: "allowed-tools: [Read, 'Bash(git:*)']\nargument-hint: [file]\nmodel: opus\n"
    "disable-model-invocation: true",
    Kind.SKILLS: "license: MIT\ncompatibility: any\nmetadata: {a: b}\nallowed-tools: Read, Grep\n"
    "user-invocable: false\ncontext: fork\nagent: Explore\nmodel: claude-opus-4-8[1m]\nhooks: {}",
    Kind.AGENTS: "tools: Read\ndisallowedTools: [Bash]\nmodel: inherit\npermissionMode: plan\n"
    "maxTurns: 3\nskills: [a]\nmcpServers: {a: {}}\nhooks: {}\nmemory: project\nbackground: true\n"
    "isolation: worktree\ncolor: cyan",
}


@pytest.mark.parametrize("kind", list(Kind))
def test_every_field_of_the_table_is_known(kind: Kind) -> None:
    """All of them together have nothing wrong."""
    assert issues(kind, f"{GOOD[kind]}\n{FULL[kind]}") == []


@pytest.mark.parametrize(
    ("kind", "yaml", "expected"),
    [
        (Kind.SKILLS, "name: x-y", ("description", "missing", 1, ERROR)),
        (Kind.SKILLS, "name: x-y\ndescription:", ("description", "missing", 3, ERROR)),
        (Kind.SKILLS, "name: other\ndescription: Reads", ("name", "name_mismatch", 2, ERROR)),
        (Kind.SKILLS, "description: Reads", ("name", "missing", 1, WARNING)),
        (Kind.AGENTS, "name: x-y", ("description", "missing", 1, ERROR)),
        (Kind.AGENTS, "description: Reviews it all", ("name", "missing", 1, ERROR)),
        (Kind.AGENTS, "name: x-y\ndescription: short", ("description", "invalid_value", 3, ERROR)),
        (Kind.AGENTS, "name: A B\ndescription: Reviews it", ("name", "invalid_value", 2, ERROR)),
        (Kind.AGENTS, "name: abc\ndescription: Reviews it", ("name", "name_mismatch", 2, WARNING)),
    ],
)  # fmt: skip
def test_what_claude_needs(kind: Kind, yaml: str, expected: tuple[str, str, int, str]) -> None:
    """Named with the line where it is, or where it should be."""
    assert expected in said(kind, yaml)


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (Kind.COMMANDS, "description: [a]"),
        (Kind.COMMANDS, "description: '  '"),
        (Kind.COMMANDS, f"description: {'x' * 1025}"),
        (Kind.COMMANDS, "allowed-tools: 3"),
        (Kind.COMMANDS, "allowed-tools: []"),
        (Kind.COMMANDS, "allowed-tools: [a, {b: c}]"),
        (Kind.COMMANDS, "model: not a model"),
        (Kind.COMMANDS, "disable-model-invocation: yes"),
        (Kind.SKILLS, f"compatibility: {'x' * 501}"),
        (Kind.SKILLS, "context: new"),
        (Kind.SKILLS, "metadata: text"),
        (Kind.AGENTS, "maxTurns: 0"),
        (Kind.AGENTS, "maxTurns: true"),
        (Kind.AGENTS, "permissionMode: sudo"),
        (Kind.AGENTS, "mcpServers: text"),
        (Kind.AGENTS, "color: mauve"),
        (Kind.AGENTS, "background: 1"),
    ],
)
def test_a_wrong_value_is_an_error_with_its_line(kind: Kind, line: str) -> None:
    """The one issue that is about it."""
    yaml = "\n".join(
        y for y in GOOD[kind].split("\n") if y.partition(":")[0] != line.partition(":")[0]
    )
    found = [i for i in issues(kind, f"{yaml}\n{line}") if i.code == "invalid_value"]
    [issue] = found
    assert (issue.field, issue.level) == (line.partition(":")[0], ERROR)
    assert issue.line == 2 + len(yaml.split("\n")) if yaml else issue.line


@pytest.mark.parametrize("kind", list(Kind))
def test_an_unknown_field_is_a_warning(kind: Kind) -> None:
    """claude has more of them than any list; a misspelt one is noticed all the same."""
    yaml = f"{GOOD[kind]}\ndescripton: x"
    line = 2 + len(GOOD[kind].split("\n"))
    assert said(kind, yaml) == [("descripton", "unknown_field", line, WARNING)]


def test_an_empty_field_is_a_warning() -> None:
    """`model:` without a value means nothing."""
    assert said(Kind.COMMANDS, "model:") == [("model", "empty", 2, WARNING)]


def test_broken_yaml_is_one_error() -> None:
    """What would be missing behind it is not guessed at."""
    assert said(Kind.AGENTS, "name: x\ndescription: [a") == [
        ("frontmatter", "invalid_yaml", 4, ERROR)
    ]


def test_errors_come_first_and_by_line() -> None:
    """As a person reads them."""
    found = said(Kind.AGENTS, "zzz: 1\nname: X\nmaxTurns: 0")
    assert [(line, level) for _, _, line, level in found] == [
        (1, ERROR), (3, ERROR), (4, ERROR), (2, WARNING), (3, WARNING),
    ]  # fmt: skip


def test_what_is_no_text_is_said() -> None:
    """Once, and nothing else of it."""
    [issue] = validate(Definition(Kind.COMMANDS, "x", b"\xff"))
    assert (issue.field, issue.code, issue.line) == ("content", "encoding", None)
