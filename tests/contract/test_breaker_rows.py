"""The dependencies table: in dicts and in PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from common.adapters.memory.dependencies import MemoryDependencies
from common.adapters.postgres.dependencies import PgDependencies
from common.adapters.postgres.pool import Database
from common.adapters.postgres.projects import PgProjectStore
from common.adapters.postgres.status import PgStatus
from common.domain.breaker import State
from common.domain.project import FoundProject
from common.ports.dependencies import KUBERNETES, Dependencies, workspace


@pytest.fixture(params=["memory", "postgres"])
def rows(request: pytest.FixtureRequest) -> Iterator[Dependencies]:
    if request.param == "memory":
        yield MemoryDependencies()
        return
    db = Database(request.getfixturevalue("database_url"))
    yield PgDependencies(db)
    db.close()


def test_an_unknown_one_is_not_there(rows: Dependencies) -> None:
    """None, and forgetting it is no error."""
    assert rows.read("nothing") is None
    rows.forget("nothing")


def test_what_is_written_is_read(rows: Dependencies) -> None:
    """State, failures, what is left of the opening, and why; the last word counts."""
    rows.write(KUBERNETES, State.OPEN, 5, 60.0, "it said \0 and \ud800")
    rows.write(KUBERNETES, State.OPEN, 6, 60.0, "refused")
    row = rows.read(KUBERNETES)
    assert row is not None
    assert (row.state, row.failures, row.detail) == (State.OPEN, 6, "refused")
    assert 0 < row.open_for_s <= 60


def test_an_opening_ends_at_zero(rows: Dependencies) -> None:
    """What is left is never negative."""
    rows.write(KUBERNETES, State.CLOSED, 0, 0.0, None)
    row = rows.read(KUBERNETES)
    assert row is not None
    assert row.open_for_s == 0


def test_a_probe_is_for_one(rows: Dependencies) -> None:
    """While it is open nobody probes; when its time is over one does, until that time is over."""
    rows.write(KUBERNETES, State.OPEN, 5, 60.0, "refused")
    assert not rows.take_probe(KUBERNETES, 60)
    rows.write(KUBERNETES, State.OPEN, 5, 0.0, "refused")
    assert rows.take_probe(KUBERNETES, 60)
    assert not rows.take_probe(KUBERNETES, 60)
    row = rows.read(KUBERNETES)
    assert row is not None
    assert row.state is State.HALF_OPEN


def test_what_is_closed_or_unknown_may_be_tried(rows: Dependencies) -> None:
    """Somebody else closed it in the meantime."""
    assert rows.take_probe("nothing", 60)
    rows.write(KUBERNETES, State.CLOSED, 0, 0.0, None)
    assert rows.take_probe(KUBERNETES, 60)


def test_a_forgotten_one_is_gone(rows: Dependencies) -> None:
    """As if it had never failed."""
    rows.write("workspace/demo", State.OPEN, 5, 60.0, "refused")
    rows.forget("workspace/demo")
    assert rows.read("workspace/demo") is None


def test_people_see_it_on_the_project_and_in_ready(database_url: str) -> None:
    """A broken workspace is an issue of its project and a row of the status."""
    db = Database(database_url)
    projects = PgProjectStore(db)
    projects.sync([FoundProject("demo", "/w", issues=("one",)), FoundProject("fine", "/w")], "test")
    PgDependencies(db).write(workspace("demo"), State.OPEN, 5, 60.0, "exec is refused")
    demo, fine = projects.list()
    assert demo.issues == ("one", "its workspace is not asked for a while: exec is refused")
    assert fine.issues == ()
    shown = {d.name: d.state for d in PgStatus(db).dependencies()}
    assert shown[workspace("demo")] == "open"
    db.close()
