"""common/entrypoints/pages.py: cursor pages."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import pytest

from common.domain.errors import InvalidField
from common.entrypoints.pages import before, page


@dataclass
class Item:
    id: UUID


ITEMS = [Item(UUID(int=n)) for n in (5, 4, 3, 2, 1)]


def test_pages_put_together_are_the_list() -> None:
    """The cursor is the last id shown; the last page has none."""
    seen: list[int] = []
    cursor = None
    for _ in range(10):
        start = before("key", cursor)
        rest = [i for i in ITEMS if start is None or i.id < start][:3]
        answer = page(rest, 2, "key", lambda i: {"n": i.id.int})
        seen += [i["n"] for i in answer["items"]]
        cursor = answer["next_cursor"]
        if cursor is None:
            break
    assert seen == [5, 4, 3, 2, 1]


def test_a_full_last_page_has_no_next() -> None:
    """Exactly as many as asked for, and none behind."""
    assert page(ITEMS[:2], 2, "key", lambda _i: {})["next_cursor"] is None


def test_nothing_is_an_empty_page() -> None:
    """Not an error."""
    assert page([], 2, "key", lambda _i: {}) == {"items": [], "next_cursor": None}


@pytest.mark.parametrize("cursor", ["", "x", "key_1", "cmd_" + "0" * 32])
def test_what_is_no_cursor_is_a_wrong_field(cursor: str) -> None:
    """422 on `cursor`."""
    with pytest.raises(InvalidField) as caught:
        before("key", cursor)
    assert caught.value.errors[0].field == "cursor"
