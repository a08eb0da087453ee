"""The registry as views of a cluster write it: in dicts and in PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from common.adapters.memory.dependencies import MemoryDiscoveryStore
from common.adapters.memory.projects import MemoryProjectStore
from common.adapters.memory.state import MemoryState
from common.adapters.postgres.dependencies import PgDiscoveryStore
from common.adapters.postgres.pool import Database
from common.adapters.postgres.projects import PgProjectStore
from common.adapters.postgres.status import PgStatus
from common.domain.project import FoundProject
from common.ports.discovery import DiscoveryStore, Synced
from common.ports.projects import ProjectStore

DEMO, OTHER = FoundProject("demo", "/w"), FoundProject("other", "/w")


@dataclass
class Registry:
    views: DiscoveryStore
    projects: ProjectStore

    @property
    def names(self) -> list[str]:
        return [project.name for project in self.projects.list()]


@pytest.fixture(params=["memory", "postgres"])
def registry(request: pytest.FixtureRequest) -> Iterator[Registry]:
    if request.param == "memory":
        state = MemoryState()
        yield Registry(MemoryDiscoveryStore(state), MemoryProjectStore(state))
        return
    db = Database(request.getfixturevalue("database_url"))
    yield Registry(PgDiscoveryStore(db), PgProjectStore(db))
    db.close()


def test_a_view_is_written_and_its_changes_are_told(registry: Registry) -> None:
    """What is new, then what is gone."""
    views = registry.views
    assert views.sync("pods", views.begin(), [DEMO, OTHER], []) == Synced(["demo", "other"], [])
    assert views.sync("pods", views.begin(), [DEMO], []) == Synced([], ["other"])
    assert registry.names == ["demo"]


def test_who_has_a_project_is_known(registry: Registry) -> None:
    """By source; a project without a pod, or gone, is nobody's."""
    views = registry.views
    mine = FoundProject("demo", "/w", pod_uid="uid/0/demo-0/box/label")
    views.sync("pods", views.begin(), [mine, OTHER], [])
    assert views.holders("pods") == {"demo": "uid/0/demo-0/box/label"}
    assert views.holders("elsewhere") == {}
    views.sync("pods", views.begin(), [OTHER], [])
    assert views.holders("pods") == {}


def test_an_older_view_changes_nothing(registry: Registry) -> None:
    """A look that began first and was written last is dropped, with its notes."""
    views = registry.views
    slow, quick = views.begin(), views.begin()
    assert views.sync("pods", quick, [DEMO], ["new"]) is not None
    assert views.sync("pods", slow, [], ["old"]) is None
    assert registry.names == ["demo"]
    assert views.notes() == ["new"]


def test_each_look_has_a_higher_number(registry: Registry) -> None:
    """So they can be told apart by age."""
    numbers = [registry.views.begin() for _ in range(5)]
    assert numbers == sorted(set(numbers))


def test_one_source_owns_all_names(registry: Registry) -> None:
    """What another kind of workspace had is gone, and its names can be given again."""
    registry.projects.sync([DEMO, OTHER], "directories")
    assert registry.views.own("pods") == ["demo", "other"]
    assert registry.names == []
    views = registry.views
    assert views.sync("pods", views.begin(), [DEMO], []) == Synced(["demo"], [])
    assert registry.views.own("pods") == []
    assert registry.names == ["demo"]


def test_notes_are_shown_with_their_age(database_url: str) -> None:
    """`/ready` has them: they belong to no project."""
    db = Database(database_url)
    views = PgDiscoveryStore(db)
    views.sync("pods", views.begin(), [], ["one", "another"])
    shown = {d.name: d.detail for d in PgStatus(db).dependencies()}
    assert shown["discovery/pods"] == "another; one"
    db.close()
