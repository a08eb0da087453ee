"""Pages of what a caller may see, out of a store that knows no callers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar
from uuid import UUID

from common.domain.keys import Caller


class _OfProjects(Protocol):
    @property
    def id(self) -> UUID: ...
    @property
    def projects(self) -> frozenset[str] | None: ...


T = TypeVar("T", bound=_OfProjects)


def visible(
    read: Callable[[UUID | None, int], Sequence[T]], caller: Caller, before: UUID | None, limit: int
) -> list[T]:
    """The newest `limit` below `before` whose projects the caller all sees.

    `read(before, limit)` gives the newest of all.
    """
    found: list[T] = []
    while len(found) < limit:
        page = read(before, limit)
        found += [one for one in page if caller.sees_all(one.projects)]
        if len(page) < limit:
            break
        before = page[-1].id
    return found[:limit]
