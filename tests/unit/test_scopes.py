"""common/domain/scopes.py: the closed list and what implies what."""

from __future__ import annotations

import re
from itertools import product

import pytest

from common.domain.scopes import ALL, grants


@pytest.mark.parametrize(("held", "wanted"), list(product(ALL, ALL)))
def test_a_scope_grants_itself_and_what_is_below_it(held: str, wanted: str) -> None:
    """One scope implies another exactly when it is a whole-word prefix of it."""
    expected = wanted.split(":")[: len(held.split(":"))] == held.split(":")
    assert grants(frozenset({held}), wanted) == expected


def test_nothing_grants_without_a_scope() -> None:
    """An empty set allows nothing."""
    assert not any(grants(frozenset(), scope) for scope in ALL)


def test_all_parts_do_not_make_the_whole() -> None:
    """Holding every kind of write is not holding `commands:write`."""
    assert not grants(
        frozenset(s for s in ALL if s.startswith("commands:write:")), "commands:write"
    )


def test_a_word_that_begins_like_a_scope_is_not_covered() -> None:
    """`commands:write` covers `commands:write:x` and not `commands:writer`."""
    assert not grants(frozenset({"commands:write"}), "commands:writer")


def test_the_list_has_no_doubles_and_one_form() -> None:
    """Every scope is lower-case words joined by colons, once."""
    assert len(set(ALL)) == len(ALL)
    assert all(re.fullmatch(r"[a-z-]+(:[a-z]+){1,2}", scope) for scope in ALL)
