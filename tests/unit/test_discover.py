"""common/services/discover.py: the registry says what the source shows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from common.domain.errors import Unavailable
from common.domain.project import FoundProject
from common.services.discover import Discover

FOUND = [FoundProject("demo", "/w/demo")]


class Source:
    name = "directories"

    def find(self) -> list[FoundProject]:
        return FOUND


class Store:
    def __init__(self) -> None:
        self.synced: list[tuple[list[FoundProject], str]] = []

    def sync(self, found: Sequence[FoundProject], source: str) -> tuple[list[str], list[str]]:
        self.synced.append((list(found), source))
        return ["demo"], ["old"]


def test_what_is_found_is_written_under_the_sources_name() -> None:
    """One call, and what changed is the answer."""
    store = Store()
    assert Discover(Source(), store)() == (["demo"], ["old"])  # type: ignore[arg-type]
    assert store.synced == [(FOUND, "directories")]


def test_a_source_that_cannot_be_read_changes_nothing() -> None:
    """Not seeing projects is not the same as seeing none."""

    class Away(Source):
        def find(self) -> list[FoundProject]:
            raise Unavailable("no permission")

    store = Store()
    with pytest.raises(Unavailable):
        Discover(Away(), store)()  # type: ignore[arg-type]
    assert store.synced == []
