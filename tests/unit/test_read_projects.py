"""common/services/read_projects.py: showing projects."""

from __future__ import annotations

import pytest

from common.domain.errors import NotFound
from common.domain.keys import Caller
from common.domain.project import Project
from common.services.read_projects import ReadProjects
from tests.unit import fakes
from tests.unit.fakes import CALLER, KEY

MINE = Caller(KEY, "x", frozenset(), frozenset({"demo", "gone"}))


class Store:
    def list(self) -> list[Project]:
        return [fakes.project("demo"), fakes.project("other")]

    def get(self, name: str) -> Project | None:
        return next((p for p in self.list() if p.name == name), None)


READ = ReadProjects(Store())  # type: ignore[arg-type]


def test_a_key_sees_its_own_projects() -> None:
    """And a key for all sees all."""
    assert [p.name for p in READ.many(MINE)] == ["demo"]
    assert [p.name for p in READ.many(CALLER)] == ["demo", "other"]
    assert READ.one("demo", MINE).name == "demo"


@pytest.mark.parametrize("name", ["other", "gone", "x" * 500])
def test_foreign_and_missing_projects_read_the_same(name: str) -> None:
    """404, with a short text."""
    with pytest.raises(NotFound) as caught:
        READ.one(name, MINE)
    assert len(caught.value.detail) < 200
