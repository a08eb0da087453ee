"""common/domain/claude_config.py: names, paths, fingerprints, and who collides with whom."""

from __future__ import annotations

import re
import subprocess
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.domain.claude_config import (
    MOST_BYTES,
    MOST_FILE_BYTES,
    MOST_FILES,
    Definition,
    File,
    Kind,
    Tree,
    check_files,
    check_name,
    collision,
    folded,
    found_of,
    name_of,
    path_of,
)
from common.domain.errors import NotFound

SLUG = re.compile(r"^[a-z0-9]+(-[a-z0-9]+)*$")
LISTED = (
    "LC_ALL=C; export LC_ALL; { find . -type f -exec sha256sum {} + | sort; "
    "find . -type f -perm -0100 | sort; } | sha256sum"
)
slugs = st.from_regex(r"[a-z0-9]{1,8}(-[a-z0-9]{1,8}){0,3}", fullmatch=True)
odd = st.text(min_size=0, max_size=80)


@given(odd | slugs)
def test_a_skills_name_is_the_slug_and_nothing_else(name: str) -> None:
    """The one pattern of the guide, written down a second time."""
    good = len(name) <= 64 and SLUG.match(name) is not None and not name.endswith("\n")
    assert (check_name(Kind.SKILLS, name) == []) is good


@given(odd | slugs)
def test_an_agents_name_has_a_length_too(name: str) -> None:
    """3 to 50."""
    good = check_name(Kind.SKILLS, name) == [] and 3 <= len(name) <= 50
    assert (check_name(Kind.AGENTS, name) == []) is good


@given(st.lists(slugs, min_size=1, max_size=6))
def test_a_commands_name_is_a_path_of_slugs(parts: list[str]) -> None:
    """Four at most; it and its path say the same, and the path stays below."""
    name = ":".join(parts)
    assert (check_name(Kind.COMMANDS, name) == []) is (len(parts) <= 4)
    path = path_of(Kind.COMMANDS, name)
    assert name_of(Kind.COMMANDS, path) == name
    assert Path(path).parts == (*parts[:-1], f"{parts[-1]}.md")


@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_what_cannot_be_told_apart_collides(one: str, other: str) -> None:
    """Case and normal forms; the same path is no collision, and a plain slug only meets its own."""
    if "/" in one + other:
        return
    for changed in (one.upper(), one.lower(), unicodedata.normalize("NFD", one)):
        if folded(changed) == folded(one) and changed != one:
            assert collision(one, [changed]) == changed
    assert collision(one, [one]) is None
    if folded(one) != folded(other):
        assert collision(one, [other]) is None


def test_a_folder_collides_too() -> None:
    """Wherever it is in the path; folders that are the same do not."""
    assert collision("ops/deploy.md", ["Ops/other.md"]) == "Ops"
    assert collision("ops/deploy.md", ["ops/other.md", "ops"]) is None
    assert collision("a.md", ["b/A.md"]) is None


def test_kinds_are_three() -> None:
    """Anything else is not there."""
    assert [Kind.of(kind) for kind in ("commands", "skills", "agents")] == list(Kind)
    for other in ("", "Commands", "command", "hooks", "commands/.."):
        with pytest.raises(NotFound):
            Kind.of(other)


def test_a_fingerprint_is_what_the_workspace_computes(tmp_path: Path) -> None:
    """Of a file its SHA-256, of a skill the SHA-256 over what find and sha256sum list, sorted."""
    skill = Definition(
        Kind.SKILLS, "x", b"one", {"run.sh": File(b"2", executable=True), "a/b": File(b"")}
    )
    for path, part in skill.parts.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(part.data)
        (tmp_path / path).chmod(0o755 if part.executable else 0o644)
    listed = subprocess.run(
        ["sh", "-c", LISTED], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert skill.fingerprint == listed.stdout.split()[0]
    assert Definition(Kind.AGENTS, "x", b"one").fingerprint.startswith("7692c3ad3540bb80")


def test_sizes_have_bounds() -> None:
    """Of a file, of a skill, of their number; each says which."""
    large = Definition(Kind.COMMANDS, "x", bytes(MOST_FILE_BYTES + 1))
    assert [e.field for e in check_files(large)] == ["content"]
    fits = {"a": File(bytes(MOST_FILE_BYTES)), "b": File(bytes(MOST_FILE_BYTES - 1))}
    assert check_files(Definition(Kind.SKILLS, "x", b"1", fits)) == []
    assert MOST_BYTES == 2 * MOST_FILE_BYTES
    [error] = check_files(Definition(Kind.SKILLS, "x", b"12", fits))
    assert (error.field, error.code) == ("files", "too_large")
    many = {f"f{n}": File(b"") for n in range(MOST_FILES)}
    [error] = check_files(Definition(Kind.SKILLS, "x", b"", many))
    assert error.code == "too_many"
    [error] = check_files(Definition(Kind.AGENTS, "abc", b"", {"a": File(b"")}))
    assert error.code == "not_a_skill"


def test_a_tree_is_as_if_it_were_written() -> None:
    """In its place, with what was below it gone; found as a workspace would show it."""
    front = b"---\ndescription: x\n---\n"
    old = Definition(Kind.SKILLS, "x", b"", {"old": File(b"")})
    new = Definition(Kind.SKILLS, "x", front + b"Do.", {"a/b": File(b"")})
    other = Definition(Kind.SKILLS, "y", b"")
    tree = Tree({Kind.SKILLS: (*found_of(old), *found_of(other))}).holding(new)
    found = {f.path: (f.type, f.front) for f in tree.found[Kind.SKILLS]}
    assert found == {
        "x": ("folder", ""),
        "x/SKILL.md": ("file", front.decode()),
        "y": ("folder", ""),
        "y/SKILL.md": ("file", ""),
    }
