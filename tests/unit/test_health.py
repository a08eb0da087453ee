"""common/services/health.py: how the system is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from common.domain.errors import Unavailable
from common.ports.status import Dependency, Numbers
from common.services.health import Health


class FakeStatus:
    code_version = 3

    def __init__(self, version: int = 3, compatible: int = 1) -> None:
        self.schema = (version, compatible)
        self.away = False
        self.asked = 0
        self.found: list[Dependency] = []

    def ping(self) -> None:
        if self.away:
            raise Unavailable("the database does not answer")

    def schema_version(self) -> tuple[int, int]:
        self.asked += 1
        self.ping()
        return self.schema

    def dependencies(self) -> list[Dependency]:
        return self.found

    def numbers(self) -> Numbers:
        counts = {("shell", "running"): 2, ("git", "queued"): 1}
        return Numbers(counts, {"urgent": 0, "normal": 4}, 1.5, 7, 0.0)


@pytest.mark.parametrize(
    ("version", "compatible", "fits"),
    [(3, 1, True), (4, 3, True), (3, 3, True), (2, 1, False), (5, 4, False), (0, 0, False)],
)
def test_code_serves_a_schema_that_is_new_enough_and_still_compatible(
    version: int, compatible: int, fits: bool
) -> None:
    """db.version ≥ ours and db.min_compatible ≤ ours; else it says what to do."""
    health = Health(FakeStatus(version, compatible))
    if fits:
        health.require_compatible_schema()
    else:
        with pytest.raises(Unavailable, match="rdev migrate"):
            health.require_compatible_schema()


def test_a_database_that_is_away_makes_no_process_unready() -> None:
    """Unknown passes, and is asked again; known is remembered."""
    status = FakeStatus()
    health = Health(status)
    status.away = True
    health.require_compatible_schema()
    status.away = False
    health.require_compatible_schema()
    health.require_compatible_schema()
    assert status.asked == 2


def test_all_well_is_ready() -> None:
    """The database answers and every dependency was seen healthy lately."""
    status = FakeStatus()
    status.found = [Dependency("kubernetes", "closed", 0, datetime.now(UTC))]
    assert Health(status).ready() == (
        True,
        {"database": {"status": "ok"}, "kubernetes": {"status": "ok", "detail": None}},
    )


def test_a_database_that_is_away_is_not_ready() -> None:
    """And nothing else is asked of it."""
    status = FakeStatus()
    status.away = True
    well, checks = Health(status).ready()
    assert not well
    assert checks == {"database": {"status": "unhealthy", "detail": "the database does not answer"}}


def test_a_schema_that_does_not_fit_is_not_ready() -> None:
    """The check of the database says so."""
    well, checks = Health(FakeStatus(2, 1)).ready()
    assert not well
    assert "migrate" in checks["database"]["detail"]


@pytest.mark.parametrize(
    ("state", "age", "shown"),
    [("open", 0, "unhealthy"), ("half_open", 0, "unhealthy"), ("closed", 91, "stale")],
)
def test_an_open_breaker_or_an_old_check_is_not_ready(state: str, age: int, shown: str) -> None:
    """Nobody vouches for what was not looked at for 90 s."""
    status = FakeStatus()
    at = datetime.now(UTC) - timedelta(seconds=age)
    status.found = [Dependency("kubernetes", state, 5, at, "why")]
    well, checks = Health(status).ready()
    assert not well
    assert checks["kubernetes"] == {"status": shown, "detail": "why"}


def test_a_cluster_that_was_never_read_is_not_ready() -> None:
    """Also when no breaker is open yet: nobody can run anything, and the reason is said."""
    status = FakeStatus()
    never = Health(status, kubernetes=True)
    assert never.ready()[0] is False
    status.found = [Dependency("kubernetes", "closed", 1, datetime.now(UTC), "no kubeconfig")]
    well, checks = never.ready()
    assert not well
    assert checks["discovery/kubernetes"]["detail"] == "projects were never read: no kubeconfig"
    status.found.append(Dependency("discovery/kubernetes", "closed", 0, datetime.now(UTC)))
    assert never.ready()[0] is True
    assert Health(FakeStatus(), kubernetes=False).ready()[0] is True


def test_metrics_are_prometheus_text() -> None:
    """Gauges with their types, from what the tables say."""
    text = Health(FakeStatus()).metrics()
    assert 'rdev_commands{kind="git",state="queued"} 1\n' in text
    assert 'rdev_commands{kind="shell",state="running"} 2\n' in text
    assert 'rdev_queue_depth{priority="normal"} 4\n' in text
    assert "rdev_queue_oldest_age_seconds 1.5\n" in text
    assert "rdev_outbox_pending 7\n" in text
    types = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(types) == len(set(types)) == 5
