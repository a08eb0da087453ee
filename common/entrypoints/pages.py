"""Cursor pages: `{items, next_cursor}`. The cursor is the last id shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, TypeVar
from uuid import UUID

from common.domain import identifiers
from common.domain.errors import InvalidField, NotFound

T = TypeVar("T")
by_id: Callable[[Any], UUID] = attrgetter("id")


def page(
    items: Sequence[T],
    limit: int,
    prefix: str,
    shown: Callable[[T], dict[str, Any]],
    place: Callable[[T], UUID] = by_id,
) -> dict[str, Any]:
    """A page of at most `limit`; `items` holds one more when there is a next page.

    `place` is what items are ordered by.
    """
    cursor = identifiers.show(prefix, place(items[limit - 1])) if len(items) > limit else None
    return {"items": [shown(item) for item in items[:limit]], "next_cursor": cursor}


def before(prefix: str, cursor: str | None) -> UUID | None:
    """The id behind a cursor. Raises InvalidField."""
    if cursor is None:
        return None
    try:
        return identifiers.parse(prefix, cursor)
    except NotFound:
        raise InvalidField.one("cursor", "invalid", "cursor: not one of ours") from None
