"""What claude reads below a workspace's `.claude`: names, limits, fingerprints. Pure.

A definition is a command (`commands/sub/name.md`, shown as `sub:name`), a skill (the folder
`skills/name` with its SKILL.md) or an agent (`agents/name.md`). What rdev writes has a plain name;
what it finds may have any, and is shown as it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from hashlib import sha256
from typing import Final

from common.domain.errors import FieldError, NotFound
from common.domain.frontmatter import beginning

# These are also in services/config.sh, which refuses what is beyond them.
MOST_FILE_BYTES: Final = 256 * 1024
MOST_FILES: Final = 64  # of one skill, SKILL.md included
MOST_BYTES: Final = 512 * 1024  # of one skill; as base64 in JSON it is still a body we take
MOST_ENTRIES: Final = 1000  # of one kind, folders included

SKILL: Final = "SKILL.md"
ABSENT: Final = "absent"  # the fingerprint of what is not there
OURS: Final = ".rdev-"  # names of files in the making, for milliseconds or until the next look

_SLUG: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_LONGEST: Final = 64
_DEEPEST: Final = 4  # parts of a command's name, folders of a skill's file
_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_DEVICE: Final = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


class Kind(StrEnum):
    COMMANDS = "commands"
    SKILLS = "skills"
    AGENTS = "agents"

    @classmethod
    def of(cls, text: str) -> Kind:
        """Raises NotFound: a kind is a part of an address."""
        if text not in set(cls):
            raise NotFound(f"there is no {text[:80]!r}: commands, skills and agents are")
        return cls(text)


@dataclass(frozen=True)
class File:
    """A file of a skill besides its SKILL.md."""

    data: bytes
    executable: bool = False


@dataclass(frozen=True)
class Definition:
    """A command, skill or agent as a whole. `content` is its .md, `files` the rest of a skill."""

    kind: Kind
    name: str
    content: bytes
    files: Mapping[str, File] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Below .claude/KIND: of the file, of a skill the folder."""
        return path_of(self.kind, self.name)

    @property
    def parts(self) -> dict[str, File]:
        """All files of a skill, by path."""
        return {SKILL: File(self.content), **self.files}

    @property
    def size(self) -> int:
        return len(self.content) + sum(len(f.data) for f in self.files.values())

    @property
    def fingerprint(self) -> str:
        """SHA-256: of the file's bytes, or over what `fingerprint_folder` in config.sh lists."""
        if self.kind is not Kind.SKILLS:
            return sha256(self.content).hexdigest()
        parts = {f"./{path}": part for path, part in self.parts.items()}
        sums = sorted(f"{sha256(p.data).hexdigest()}  {path}\n" for path, p in parts.items())
        runs = sorted(f"{path}\n" for path, p in parts.items() if p.executable)
        return sha256("".join((*sums, *runs)).encode()).hexdigest()


@dataclass(frozen=True)
class Found:
    """Something below .claude/KIND: `type` is file, folder, link or other.

    `front` is how the file begins, up to the end of its frontmatter: "" without one, None when
    nobody looked.
    """

    path: str
    type: str
    size: int = 0
    front: str | None = None

    @property
    def stem(self) -> str:
        return self.path.removesuffix(".md")


@dataclass(frozen=True)
class Tree:
    """All that was found, by kind. `blocked`: why a kind could not be looked into."""

    found: Mapping[Kind, tuple[Found, ...]]
    truncated: frozenset[Kind] = frozenset()
    blocked: Mapping[Kind, str] = field(default_factory=dict)

    def holding(self, definition: Definition) -> Tree:
        """The same with a definition put there."""
        kind, path = definition.kind, definition.path
        others = [
            f
            for f in self.found.get(kind, ())
            if f.path != path and not f.path.startswith(f"{path}/")
        ]
        found = sorted((*others, *found_of(definition)), key=lambda f: f.path)
        return replace(self, found={**self.found, kind: tuple(found)})


def found_of(definition: Definition) -> list[Found]:
    """What is found once a definition is there; of a skill its folder and its SKILL.md."""
    front = beginning(definition.content.decode("utf-8", "surrogateescape"))
    size = len(definition.content)
    if definition.kind is not Kind.SKILLS:
        return [Found(definition.path, "file", size, front)]
    main = f"{definition.name}/{SKILL}"
    return [Found(definition.name, "folder", front=""), Found(main, "file", size, front)]


def path_of(kind: Kind, name: str) -> str:
    """Where a definition of this name is, below .claude/KIND."""
    return name if kind is Kind.SKILLS else name.replace(":", "/") + ".md"


def name_of(kind: Kind, path: str) -> str:
    """The name behind a path."""
    return path if kind is Kind.SKILLS else path.removesuffix(".md").replace("/", ":")


def check_name(kind: Kind, name: str) -> list[FieldError]:
    """What is wrong with a name: the slug of docs/guides/claude-config.md and nothing else."""
    parts = name.split(":") if kind is Kind.COMMANDS else [name]
    if len(parts) > _DEEPEST or not all(_is_slug(part) for part in parts):
        return [FieldError("name", "invalid_name", _NAMES[kind])]
    if kind is Kind.AGENTS and not 3 <= len(name) <= 50:
        return [FieldError("name", "invalid_name", _NAMES[kind])]
    return []


_WORDS: Final = "lower case letters, digits and single hyphens between them"
_NAMES: Final = {
    Kind.COMMANDS: f"a command's name is {_WORDS}, 64 at most; `folder:name` for one in a folder, "
    f"{_DEEPEST} parts at most",
    Kind.SKILLS: f"a skill's name is {_WORDS}, 64 at most",
    Kind.AGENTS: f"an agent's name is {_WORDS}, 3 to 50",
}


def _is_slug(text: str) -> bool:
    return len(text) <= _LONGEST and _SLUG.fullmatch(text) is not None


def check_files(definition: Definition) -> list[FieldError]:
    """What is wrong with sizes and with the paths of a skill's files."""
    errors = []
    if len(definition.content) > MOST_FILE_BYTES:
        errors.append(_too_large("content"))
    if definition.files and definition.kind is not Kind.SKILLS:
        errors.append(FieldError("files", "not_a_skill", "files: only a skill has further files"))
    for path, part in definition.files.items():
        if not _is_path(path):
            errors.append(FieldError(_field(path), "invalid_path", _PATHS))
        elif path.casefold() == SKILL.casefold():
            errors.append(FieldError(_field(path), "invalid_path", "SKILL.md is `content`"))
        if len(part.data) > MOST_FILE_BYTES:
            errors.append(_too_large(_field(path)))
    if len(definition.parts) > MOST_FILES:
        errors.append(FieldError("files", "too_many", f"a skill has {MOST_FILES} files at most"))
    if definition.size > MOST_BYTES:
        errors.append(FieldError("files", "too_large", f"a skill has {MOST_BYTES} bytes at most"))
    return errors


_PATHS: Final = (
    "a file's path is of ASCII letters, digits, `_`, `.` and `-`; no part begins with `.` or `-` "
    f"or is a device of Windows; {_DEEPEST} folders and 200 characters at most"
)


def _field(path: str) -> str:
    return f"files.{path[:80]}"


def _too_large(name: str) -> FieldError:
    return FieldError(name, "too_large", f"{name}: a file has {MOST_FILE_BYTES} bytes at most")


def _is_path(path: str) -> bool:
    parts = path.split("/")
    return (
        len(path) <= 200
        and len(parts) <= _DEEPEST + 1
        and all(_PART.fullmatch(p) and not _DEVICE.fullmatch(p) for p in parts)
    )


def folded(path: str) -> str:
    """Equal for paths that some file systems cannot tell apart: case, composed and decomposed."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFD", path).casefold())


def collision(path: str, others: Iterable[str]) -> str | None:
    """One of `others`, or its folder, that some file systems take for `path` or a folder of it."""
    mine = {folded(part): part for part in _prefixes(path)}
    for other in others:
        for part in _prefixes(other):
            if mine.get(folded(part), part) != part:
                return part
    return None


def _prefixes(path: str) -> Iterator[str]:
    for index, letter in enumerate(path):
        if letter == "/":
            yield path[:index]
    yield path
