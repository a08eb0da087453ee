"""common/domain/identifiers.py: UUIDv7 inside, prefix and hex outside."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.domain import identifiers
from common.domain.errors import NotFound


def test_new_ids_are_version_7_and_sort_by_age() -> None:
    """Ids made later sort later."""
    made = [identifiers.new_id() for _ in range(200)]
    assert made == sorted(made)
    assert {i.version for i in made} == {7}


@given(st.uuids())
def test_what_is_shown_is_read_back(value: UUID) -> None:
    """`parse` undoes `show`."""
    assert identifiers.parse("cmd", identifiers.show("cmd", value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cmd",
        "cmd_",
        "key_" + "0" * 32,
        "cmd_" + "0" * 31,
        "cmd_" + "0" * 33,
        "cmd_" + "A" * 32,
        "cmd_" + "0" * 31 + "g",
        "cmd_" + "0" * 32 + "\n",
        "cmd_" + "٠" * 32,
        "cmd_\ud800" + "0" * 31,
        "cmd_01234567-89ab-cdef-0123-456789abcdef",
        "CMD_" + "0" * 32,
        "cmd_" + "x" * 5000,
    ],
)
def test_anything_else_is_not_found(text: str) -> None:
    """A malformed id is answered like one that never was, with a short text."""
    with pytest.raises(NotFound) as caught:
        identifiers.parse("cmd", text)
    assert len(caught.value.detail) < 200
