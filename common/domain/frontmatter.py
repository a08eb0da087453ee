"""The YAML between the two `---` of a definition, read with bounds and with line numbers. Pure.

YAML as claude reads it: the core schema (only true and false are booleans, `yes` is a word), no
tags. What strangers write is bounded before it is composed, aliases cannot multiply, and a key that
is there twice is an error, not a silent choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

MOST_CHARACTERS: Final = 16 * 1024
MOST_NODES: Final = 1000
DEEPEST: Final = 8
_FENCE: Final = "---"
_CORE: Final = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class Complaint:
    """Something about the frontmatter as a whole; `line` counts from 1 in the file."""

    code: str
    message: str
    line: int


@dataclass(frozen=True)
class Frontmatter:
    """What was read. `guessed`: its YAML is broken, and the fields are what claude makes of it."""

    present: bool = False
    fields: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    complaints: tuple[Complaint, ...] = ()
    guessed: bool = False


def parse(text: str) -> Frontmatter:
    """The frontmatter at the beginning of a file; not present where claude sees none."""
    block = _block(text)
    if block is None:
        return _without(text)
    if len(block) > MOST_CHARACTERS:
        complaint = Complaint("too_large", f"has more than {MOST_CHARACTERS} characters", 1)
        return Frontmatter(present=True, complaints=(complaint,))
    try:
        return _read(block)
    except _Broken as broken:
        complaint = Complaint("invalid_yaml", broken.message, broken.line)
        if not broken.syntax:
            return Frontmatter(present=True, complaints=(complaint,))
    try:
        guess = _read(_mended(block))
    except _Broken:
        return Frontmatter(present=True, complaints=(complaint,))
    return Frontmatter(True, guess.fields, guess.lines, (complaint,), guessed=True)


def beginning(text: str) -> str:
    """As much of a file as its frontmatter takes, fences included; "" without one."""
    lines = text.splitlines(keepends=True)
    fences = [number for number, line in enumerate(lines) if line.strip("\ufeff \r\n") == _FENCE]
    if not fences or fences[0] != 0:
        return ""
    return "".join(lines[: fences[1] + 1] if len(fences) > 1 else lines)


def body_of(text: str) -> str:
    """What follows the frontmatter."""
    block = _block(text)
    if block is None:
        return text
    lines = text.splitlines(keepends=True)
    return "".join(lines[block.count("\n") + 2 :])


def _without(text: str) -> Frontmatter:
    if _lines(text)[:1] == [_FENCE]:
        return Frontmatter(complaints=(Complaint("not_closed", "no line `---` ends it", 1),))
    return Frontmatter()


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.removeprefix("\ufeff").split("\n")]


def _block(text: str) -> str | None:
    """The lines between the two fences; None when there are not two."""
    lines = _lines(text)
    if lines[0] != _FENCE or _FENCE not in lines[1:]:
        return None
    return "".join(f"{line}\n" for line in lines[1 : lines.index(_FENCE, 1)])


class _Broken(Exception):
    """`syntax`: no parser would take it, so that claude guesses."""

    def __init__(self, message: str, line: int, *, syntax: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.syntax = syntax


class _Loader(yaml.SafeLoader):
    """SafeLoader with the core schema of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # filled below, as PyYAML does


_Loader.add_implicit_resolver(
    _CORE + "bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    _CORE + "null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]
)
_Loader.add_implicit_resolver(
    _CORE + "int", re.compile(r"^[-+]?[0-9]{1,18}$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    _CORE + "float",
    re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,3})?$"),
    list("-+.0123456789"),
)


def _read(block: str) -> Frontmatter:
    """Raises _Broken."""
    try:
        complaints = list(_refused(block))
        root = yaml.compose(block, _Loader)
    except yaml.YAMLError as error:
        raise _Broken(*_said(error), syntax=True) from None
    if root is None:
        return Frontmatter(present=True)
    if not isinstance(root, yaml.MappingNode):
        raise _Broken("is no list of `key: value`", 2)
    fields: dict[str, Any] = {}
    lines: dict[str, int] = {}
    left = [MOST_NODES]
    for key, value in root.value:
        line = key.start_mark.line + 2
        name = key.value if isinstance(key, yaml.ScalarNode) else ""
        if not name:
            raise _Broken("a key is no plain word", line)
        if name in fields:
            complaints.append(Complaint("duplicate_key", f"{name[:80]!r} is there twice", line))
        fields[name], lines[name] = _value(value, left), line
    return Frontmatter(True, fields, lines, tuple(complaints))


def _refused(block: str) -> Iterator[Complaint]:
    """What is YAML and not for here. Raises _Broken for what is too much to go on with."""
    depth = nodes = 0
    for event in yaml.parse(block, _Loader):
        line = event.start_mark.line + 2 if event.start_mark else 1
        if isinstance(event, yaml.DocumentStartEvent) and event.explicit:
            raise _Broken("is more than one document", line)
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if not isinstance(event, yaml.NodeEvent):
            continue
        nodes += 1
        depth += isinstance(event, yaml.CollectionStartEvent)
        if depth > DEEPEST or nodes > MOST_NODES:
            raise _Broken(f"is nested deeper than {DEEPEST} or has over {MOST_NODES} values", line)
        if event.anchor is not None:
            yield Complaint("alias", "anchors and aliases are not for frontmatter", line)
        if getattr(event, "tag", None) not in (None, "!"):
            raise _Broken("tags are not for frontmatter", line)


def _value(node: yaml.Node, left: list[int]) -> Any:
    left[0] -= 1
    if left[0] < 0:
        raise _Broken(f"comes to more than {MOST_NODES} values", node.start_mark.line + 2)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, left) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return {str(_value(k, left))[:200]: _value(v, left) for k, v in node.value}
    match node.tag.removeprefix(_CORE):
        case "bool":
            return node.value.lower() == "true"
        case "int":
            return int(node.value)
        case "float":
            return float(node.value)
        case "null":
            return None
    return node.value


def _said(error: yaml.YAMLError) -> tuple[str, int]:
    """The parser's own words, without the text it quotes, and the line."""
    mark = getattr(error, "problem_mark", None)
    line = mark.line + 2 if mark is not None else 1
    said = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
    return f"is not YAML: {said}", line


_PAIR: Final = re.compile(r"^([A-Za-z_][A-Za-z0-9_-]*):[ \t]+([^\"'\s].*)$")
_TELLING: Final = re.compile(r"[\[\]{}*&#!|>%@`]|: ")


def _mended(block: str) -> str:
    """What claude tries when YAML does not parse: values that hold special characters are quoted.

    Measured with claude 2.1.330 (docs/guides/claude-config.md).
    """
    return "".join(f"{_mended_line(line)}\n" for line in block.split("\n")[:-1])


def _mended_line(line: str) -> str:
    plain = line.lstrip("\t")
    line = "  " * (len(line) - len(plain)) + plain
    match = _PAIR.match(line)
    if match is None or not _TELLING.search(match[2]):
        return line
    value = match[2].replace("\\", "\\\\").replace('"', '\\"')
    return f'{match[1]}: "{value}"'
