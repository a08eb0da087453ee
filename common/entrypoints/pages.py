"""Cursor pages: `{items, next_cursor}`. The cursor is the last id shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar
from uuid import UUID

from common.domain import identifiers
from common.domain.errors import InvalidField, NotFound


class HasId(Protocol):
    @property
    def id(self) -> UUID: ...


T = TypeVar("T", bound=HasId)


def page(
    items: Sequence[T], limit: int, prefix: str, shown: Callable[[T], dict[str, Any]]
) -> dict[str, Any]:
    """A page of at most `limit`; `items` holds one more when there is a next page."""
    cursor = identifiers.show(prefix, items[limit - 1].id) if len(items) > limit else None
    return {"items": [shown(item) for item in items[:limit]], "next_cursor": cursor}


def before(prefix: str, cursor: str | None) -> UUID | None:
    """The id behind a cursor. Raises InvalidField."""
    if cursor is None:
        return None
    try:
        return identifiers.parse(prefix, cursor)
    except NotFound:
        raise InvalidField.one("cursor", "invalid", "cursor: not one of ours") from None
