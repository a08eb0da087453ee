"""common/domain/keys.py: key texts and what their holders may do."""

from __future__ import annotations

import hashlib
import string
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.domain import keys
from common.domain.errors import Forbidden, NotFound
from common.domain.keys import Caller

BASE62 = string.digits + string.ascii_letters


def caller(scopes: set[str], projects: set[str] | None = None) -> Caller:
    return Caller(
        UUID(int=1), "ci", frozenset(scopes), frozenset(projects) if projects is not None else None
    )


def test_a_new_key_is_well_formed_and_never_the_same() -> None:
    """Fresh keys have the documented shape and differ."""
    made = {keys.new_key() for _ in range(50)}
    assert len(made) == 50
    assert all(keys.is_well_formed(text) and len(text) == 52 for text in made)


@given(st.integers(0, 51), st.sampled_from(BASE62 + "_-é\x00 "))
def test_one_wrong_character_anywhere_is_noticed(place: int, character: str) -> None:
    """A key with any one character changed is refused by its shape or checksum."""
    text = keys.new_key()
    if text[place] != character:
        assert not keys.is_well_formed(text[:place] + character + text[place + 1 :])


@given(st.text(max_size=80))
def test_no_text_breaks_the_check(text: str) -> None:
    """Any text at all is answered with yes or no."""
    assert keys.is_well_formed(text) in {True, False}


@pytest.mark.parametrize(
    "change", [lambda k: k + "\n", lambda k: " " + k, lambda k: k[:-1], str.upper]
)
def test_a_key_with_something_around_it_is_no_key(change: object) -> None:
    """Trailing newlines, spaces, cut ends and another case are refused."""
    assert not keys.is_well_formed(change(keys.new_key()))  # type: ignore[operator]


def test_the_prefix_shows_the_id_and_nothing_secret() -> None:
    """What may be logged is `rdev_` and the 8 characters of the id."""
    text = keys.new_key()
    assert keys.prefix_of(text) == text[:13]
    assert text[14:] not in keys.prefix_of(text)


def test_the_stored_hash_is_sha256_of_the_whole_text() -> None:
    """A key is found by its SHA-256, 32 bytes."""
    text = keys.new_key()
    assert keys.hash_of(text) == hashlib.sha256(text.encode()).digest()


def test_a_caller_without_the_scope_is_forbidden() -> None:
    """`require` names the scope that is missing."""
    with pytest.raises(Forbidden, match="commands:write:shell"):
        caller({"commands:read"}).require("commands:write:shell")


def test_a_wide_scope_covers_its_parts() -> None:
    """`commands:write` is enough for every kind."""
    caller({"commands:write"}).require("commands:write:git")


def test_a_key_for_all_projects_sees_each() -> None:
    """`projects: null` means all."""
    caller(set()).require_project("anything")


def test_a_foreign_project_is_not_found() -> None:
    """A project outside the key's list is answered as if it were not there."""
    mine = caller(set(), {"demo"})
    mine.require_project("demo")
    with pytest.raises(NotFound):
        mine.require_project("other")


def test_an_empty_list_of_projects_sees_none() -> None:
    """No project is not the same as all projects."""
    assert not caller(set(), set()).sees("demo")


PROJECTS = st.none() | st.frozensets(st.sampled_from("abc"))


@given(PROJECTS, PROJECTS)
def test_a_caller_sees_exactly_what_its_key_knows(
    known: frozenset[str] | None, asked: frozenset[str] | None
) -> None:
    """What is narrowed is seen and was asked for; nothing that is both is lost."""
    one = caller(set(), None if known is None else set(known))
    kept = one.narrowed(asked)
    assert one.sees_all(kept)
    assert one.sees_all(asked) == (kept == asked)
    if asked is not None:
        assert kept == frozenset(project for project in asked if one.sees(project))
    else:
        assert kept == known
