"""What every Oversight does: depths as they are, pauses that hold, sums that add up."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from common.domain.audit import AuditFilter
from common.domain.command import Kind, Priority, State
from common.domain.oversight import UsageFilter
from tests.contract.conftest import ORIGIN, WORKER, World, now


def test_depths_are_told_apart_by_project_and_priority(world: World) -> None:
    """Waiting, running and the oldest's age; a project with nothing is there too."""
    world.project("busy")
    world.project("idle")
    _, caller = world.key()
    world.running(caller, "busy", priority=Priority.URGENT)
    world.submit(caller, "busy", priority=Priority.LOW)
    world.pass_time(60)
    world.submit(caller, "busy", priority=Priority.LOW)
    world.submit(caller, "busy", run_at=now() + timedelta(hours=1))
    busy, idle = world.oversight.queues(None)
    assert (busy.project, busy.queued, busy.running) == ("busy", 2, 1)
    assert set(busy.depths) == {Priority.URGENT, Priority.LOW}
    low = busy.depths[Priority.LOW]
    assert (low.queued, low.running) == (2, 0)
    assert low.oldest_s is not None
    assert low.oldest_s == busy.oldest_s
    assert low.oldest_s >= 60
    assert (idle.project, idle.queued, idle.running, idle.oldest_s) == ("idle", 0, 0, None)
    assert [q.project for q in world.oversight.queues(frozenset({"idle", "none"}))] == ["idle"]


def test_a_paused_project_starts_nothing_until_it_resumes(world: World) -> None:
    """What runs goes on; who paused it is on record, once."""
    world.project()
    _, caller = world.key()
    claim = world.running(caller)
    world.submit(caller)
    assert world.oversight.pause("demo", caller, ORIGIN, paused=True)
    assert world.oversight.pause("demo", caller, ORIGIN, paused=True)
    assert world.oversight.queues(None)[0].paused_at is not None
    assert world.queue.claim("demo", WORKER) is None
    assert world.finish(claim) is not None
    assert world.oversight.pause("demo", caller, ORIGIN, paused=False)
    assert world.queue.claim("demo", WORKER) is not None
    actions = [e.action for e in world.audit.list(AuditFilter(limit=2))]
    assert actions == ["queue.resumed", "queue.paused"]
    assert not world.oversight.pause("none", caller, ORIGIN, paused=True)


def agent(cost: Any, tokens: Any) -> dict[str, Any]:
    usage = {"input_tokens": tokens, "output_tokens": 2, "cache_read_input_tokens": 3}
    return {"reason": "exit_zero", "agent": {"cost_usd": cost, "usage": usage}}


def used(world: World, *by: str, **wanted: Any) -> list[tuple[Any, ...]]:
    span = {"since": now() - timedelta(days=1), "until": now() + timedelta(days=1)}
    found = world.oversight.usage(UsageFilter(**span | wanted, by=frozenset(by)))
    return sorted(
        ((u.project, u.model, u.commands, round(u.cost_usd, 6), u.input_tokens) for u in found),
        key=repr,
    )


@pytest.fixture
def spent(world: World) -> World:
    """Three commands that ended, of two projects and two models, and one that has not."""
    _, caller = world.key()
    for project, model, outcome in (
        ("one", "opus", agent(0.5, 10)),
        ("one", "haiku", agent("much", 1e300)),
        ("two", "opus", agent(0.25, 5)),
    ):
        world.project(project)
        options = {"model": model}
        world.submit(caller, project, kind=Kind.CLAUDE, spec={"options": options})
        claim = world.claimed(project)
        world.queue.mark_running(claim.command.id, claim.token)
        world.queue.finish(claim.command.id, claim.token, State.SUCCEEDED, outcome)
    world.submit(caller, "one")
    return world


def test_usage_adds_up_whatever_it_is_told_apart_by(spent: World) -> None:
    """Only what ended counts, and what is no sane number counts as nothing."""
    assert used(spent) == [(None, None, 3, 0.75, 15)]
    assert used(spent, "project") == [("one", None, 2, 0.5, 10), ("two", None, 1, 0.25, 5)]
    assert used(spent, "model") == [(None, "haiku", 1, 0.0, 0), (None, "opus", 2, 0.75, 15)]
    [total] = spent.oversight.usage(
        UsageFilter(now() - timedelta(days=1), now() + timedelta(days=1), frozenset({"key"}))
    )
    assert total.key_id is not None
    assert (total.output_tokens, total.cache_read_tokens, total.day) == (6, 9, None)
    assert total.seconds >= 0


def test_a_command_counts_in_every_model_it_used(spent: World) -> None:
    """Once where models are not told apart; the outcome's models win over the one asked for."""
    _, caller = spent.key()
    models = {"opus": {"cost_usd": 2, "input_tokens": 7}, "haiku": {"cost_usd": 1}}
    outcome = {"reason": "exit_zero", "agent": {"cost_usd": 3, "models": models}}
    spent.submit(caller, "two", kind=Kind.CLAUDE, spec={"options": {"model": "alias"}})
    claim = spent.claimed("two")
    spent.queue.mark_running(claim.command.id, claim.token)
    spent.queue.finish(claim.command.id, claim.token, State.SUCCEEDED, outcome)
    assert used(spent) == [(None, None, 4, 3.75, 22)]
    assert used(spent, "model") == [(None, "haiku", 2, 1.0, 0), (None, "opus", 3, 2.75, 22)]
    assert used(spent, "project", model="opus", projects=frozenset({"two"})) == [
        ("two", None, 2, 2.25, 12)
    ]


def test_usage_is_narrowed_by_every_filter(spent: World) -> None:
    """Projects, model and time; nothing fits is no sum at all."""
    assert used(spent, projects=frozenset({"two"})) == [(None, None, 1, 0.25, 5)]
    assert used(spent, model="haiku") == [(None, None, 1, 0.0, 0)]
    assert used(spent, until=now() - timedelta(hours=1)) == []
    assert used(spent, projects=frozenset()) == []
