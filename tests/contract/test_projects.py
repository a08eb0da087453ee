"""What every ProjectStore does: say what its sources showed last, and announce what changed."""

from __future__ import annotations

from common.domain.project import FoundProject, Phase
from common.ports.queue import LEASE_S
from tests.contract.conftest import OTHER_WORKER, World

ONE = FoundProject(
    "one",
    "/w/one",
    description="é",
    namespace="ns",
    pod="pod",
    pod_uid="uid",
    container="box",
    allowed_commands=("shell", "null"),
    max_concurrent_commands=3,
    issues=("bad yaml",),
)
TWO = FoundProject("two", "/w/two", Phase.PENDING)


def announced(world: World) -> list[tuple[str, str]]:
    """What the outbox says of projects: (what, name); and forget it."""
    world.pass_time(6)
    events = world.outbox.take_left(100)
    world.outbox.sent([event.id for event in events])
    return sorted((event.type.split(".")[-2], event.data["project"]) for event in events)


def test_what_is_found_can_be_read(world: World) -> None:
    """Every field comes back, in the list by name and one by one."""
    world.projects.sync([TWO, ONE], "a")
    one, two = world.projects.list()
    assert (one.name, two.name) == ("one", "two")
    assert one == world.projects.get("one")
    for field in [
        "workspace",
        "description",
        "namespace",
        "pod",
        "pod_uid",
        "container",
        "allowed_commands",
        "phase",
        "issues",
        "max_concurrent_commands",
    ]:
        assert getattr(one, field) == getattr(ONE, field)
    assert two.phase is Phase.PENDING
    assert two.allowed_commands is None
    assert world.projects.get("three") is None


def test_changes_are_told_once(world: World) -> None:
    """A sync answers and announces what appeared and what went; a repeat says nothing."""
    assert world.projects.sync([ONE, TWO], "a") == (["one", "two"], [])
    assert announced(world) == [("discovered", "one"), ("discovered", "two")]
    assert world.projects.sync([ONE, TWO], "a") == ([], [])
    assert world.projects.sync([TWO], "a") == ([], ["one"])
    assert announced(world) == [("removed", "one")]
    assert world.projects.get("one") is None
    assert [p.name for p in world.projects.list()] == ["two"]
    assert world.projects.sync([ONE, TWO], "a") == (["one"], [])
    assert announced(world) == [("discovered", "one")]


def test_a_changed_project_is_no_new_one(world: World) -> None:
    """A new phase or limit is stored and is not announced."""
    world.projects.sync([ONE], "a")
    announced(world)
    moved = FoundProject("one", "/elsewhere", Phase.UNREACHABLE, max_concurrent_commands=9)
    assert world.projects.sync([moved], "a") == ([], [])
    found = world.projects.get("one")
    assert found is not None
    assert (found.workspace, found.phase, found.max_concurrent_commands) == (
        "/elsewhere",
        Phase.UNREACHABLE,
        9,
    )
    assert announced(world) == []


def test_sources_leave_each_other_alone(world: World) -> None:
    """A source neither removes, changes nor brings back what belongs to another."""
    world.projects.sync([ONE], "a")
    assert world.projects.sync([FoundProject("one", "/theirs"), TWO], "b") == (["two"], [])
    one = world.projects.get("one")
    assert one is not None
    assert one.workspace == "/w/one"
    world.projects.sync([], "a")
    assert world.projects.sync([FoundProject("one", "/theirs"), TWO], "b") == ([], [])
    assert [p.name for p in world.projects.list()] == ["two"]


def test_a_project_says_what_runs_and_waits_there(world: World) -> None:
    """running counts live commands, queued those that wait."""
    world.project()
    _, caller = world.key()
    world.running(caller)
    world.submit(caller)
    world.submit(caller)
    world.claimed()
    (project,) = world.projects.list()
    assert (project.running, project.queued) == (2, 1)


def test_a_pause_survives_a_sync(world: World) -> None:
    """What people decided is not what sources find."""
    world.project()
    world.pause("demo", True)
    world.project(limit=7)
    project = world.projects.get("demo")
    assert project is not None
    assert project.paused_at is not None


def test_commands_outlive_their_project(world: World) -> None:
    """A live command of a project that went is still adopted, and says that it is gone."""
    world.project()
    _, caller = world.key()
    claim = world.running(caller)
    world.projects.sync([], "test")
    world.pass_time(LEASE_S + 1)
    (adopted,) = world.queue.adopt(OTHER_WORKER, 1)
    assert adopted.command.id == claim.command.id
    assert adopted.project.phase is Phase.GONE
