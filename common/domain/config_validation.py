"""What is wrong with a definition, field by field and line by line. Pure.

The tables are those of docs/guides/claude-config.md. A key that they do not have is a warning:
claude has more of them than any list, and gets new ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from common.domain.claude_config import Definition, Kind, check_files, check_name
from common.domain.errors import FieldError
from common.domain.frontmatter import Frontmatter, body_of, parse

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Issue:
    """`field` is a key of the frontmatter when there is a line, else a field of the body."""

    field: str
    code: str
    message: str
    line: int | None = None
    level: str = ERROR

    def as_json(self) -> dict[str, Any]:
        return {
            "field": self.field,
            "code": self.code,
            "message": self.message,
            "line": self.line,
            "level": self.level,
        }

    def as_error(self) -> FieldError:
        return FieldError(self.field, self.code, self.message, self.line)


Check = Callable[[Any], str | None]


def _text(least: int, most: int) -> Check:
    def check(value: Any) -> str | None:
        if not isinstance(value, str):
            return "is no text"
        if not least <= len(value.strip()) or len(value) > most:
            return f"has {least} to {most} characters"
        return None

    return check


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "is true or false"


def _names(value: Any) -> str | None:
    items = value if isinstance(value, list) else [value]
    good = all(isinstance(item, str) and item.strip() for item in items)
    return None if good and items else "is a text, or a list of texts"


def _number(value: Any) -> str | None:
    good = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 100_000
    return None if good else "is a whole number from 1 on"


def _one_of(*words: str) -> Check:
    def check(value: Any) -> str | None:
        return None if value in words else f"is one of {', '.join(words)}"

    return check


def _matching(pattern: str, what: str) -> Check:
    shape = re.compile(pattern)

    def check(value: Any) -> str | None:
        return None if isinstance(value, str) and shape.fullmatch(value) else what

    return check


def _mapping(value: Any) -> str | None:
    return None if isinstance(value, dict) else "is a list of `key: value`"


def _structure(value: Any) -> str | None:
    return None if isinstance(value, dict | list) else "is a list"


_MODEL: Final = _matching(
    r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}(\[[0-9a-z]+\])?",
    "is sonnet, opus, haiku, inherit or the whole name of a model",
)
_SHARED: Final[dict[str, Check]] = {
    "allowed-tools": _names,
    "argument-hint": _names,  # `[file]` without quotes is a list to YAML, and everybody's habit
    "model": _MODEL,
    "disable-model-invocation": _flag,
    "user-invocable": _flag,
    "context": _one_of("fork"),
    "agent": _text(1, 64),
    "hooks": _mapping,
    "when_to_use": _text(1, 1024),
}
_AGENT_NAME: Final = _matching(
    r"(?=.{3,50}$)[a-z0-9]+(-[a-z0-9]+)*",
    "is lower case letters, digits and single hyphens between them, 3 to 50",
)
_FIELDS: Final[Mapping[Kind, Mapping[str, Check]]] = {
    Kind.COMMANDS: {"description": _text(1, 1024), **_SHARED},
    Kind.SKILLS: {
        "name": _text(1, 64),
        "description": _text(1, 1024),
        "license": _text(1, 1024),
        "compatibility": _text(1, 500),
        "metadata": _mapping,
        **_SHARED,
    },
    Kind.AGENTS: {
        "name": _AGENT_NAME,
        "description": _text(10, 5000),
        "tools": _names,
        "disallowedTools": _names,
        "model": _MODEL,
        "permissionMode": _one_of(
            "default", "acceptEdits", "auto", "bypassPermissions", "dontAsk", "manual", "plan"
        ),
        "maxTurns": _number,
        "skills": _names,
        "mcpServers": _structure,
        "hooks": _mapping,
        "memory": _one_of("user", "project", "local"),
        "background": _flag,
        "isolation": _one_of("worktree"),
        "effort": _one_of("low", "medium", "high", "max"),
        "color": _one_of(
            "red", "blue", "green", "yellow", "purple", "orange", "pink", "cyan", "magenta"
        ),
    },
}
_NEEDED: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.COMMANDS: (),
    Kind.SKILLS: ("description",),
    Kind.AGENTS: ("name", "description"),
}


def validate(definition: Definition) -> list[Issue]:
    """Everything there is to say about it, errors first."""
    plain = check_name(definition.kind, definition.name) + check_files(definition)
    issues = [Issue(e.field, e.code, e.message) for e in plain]
    try:
        text = definition.content.decode("utf-8")
    except UnicodeDecodeError:
        issues.append(Issue("content", "encoding", "content: is not UTF-8"))
    else:
        issues += check_front(definition.kind, definition.name, parse(text))
        if not body_of(text).strip():
            issues.append(
                Issue("content", "empty_body", "content: has no instructions", level=WARNING)
            )
    return sorted(issues, key=lambda issue: (issue.level, issue.line or 0))


def check_front(kind: Kind, name: str, front: Frontmatter) -> list[Issue]:
    """What is to say about the frontmatter alone, which is all that lists look at."""
    issues = [
        Issue("frontmatter", c.code, f"frontmatter: {c.message}", c.line) for c in front.complaints
    ]
    if not front.guessed:
        issues += _missing(kind, front)
    if not any(issue.code == "invalid_yaml" for issue in issues):
        issues += _wrong(kind, front)
        issues += _misnamed(kind, name, front)
    return issues


def _missing(kind: Kind, front: Frontmatter) -> Iterator[Issue]:
    if any(complaint.code in ("invalid_yaml", "too_large") for complaint in front.complaints):
        return
    for key in _NEEDED[kind]:
        if front.fields.get(key) is None:
            yield Issue(key, "missing", f"{key}: is needed", front.lines.get(key, 1))


def _wrong(kind: Kind, front: Frontmatter) -> Iterator[Issue]:
    for key, value in front.fields.items():
        line, check = front.lines[key], _FIELDS[kind].get(key)
        if check is None:
            shown = key[:80]
            message = f"{shown}: is not a field that rdev knows; claude may ignore it"
            yield Issue(shown, "unknown_field", message, line, WARNING)
        elif value is None:
            if key not in _NEEDED[kind]:
                yield Issue(key, "empty", f"{key}: is empty", line, WARNING)
        elif (wrong := check(value)) is not None:
            yield Issue(key, "invalid_value", f"{key}: {wrong}", line)


def _misnamed(kind: Kind, name: str, front: Frontmatter) -> Iterator[Issue]:
    said = front.fields.get("name")
    line = front.lines.get("name", 1)
    if kind is Kind.SKILLS and said is None:
        yield Issue("name", "missing", f"name: the format wants `name: {name[:64]}`", line, WARNING)
    elif kind is Kind.SKILLS and said != name:
        yield Issue("name", "name_mismatch", f"name: must be the folder's, {name[:64]!r}", line)
    elif kind is Kind.AGENTS and isinstance(said, str) and said != name:
        message = f"name: claude calls this agent {said[:64]!r}, its file is {name[:64]!r}"
        yield Issue("name", "name_mismatch", message, line, WARNING)
