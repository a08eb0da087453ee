"""common/services/submit.py: accepting a command."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from common.domain import identifiers
from common.domain.command import Kind, NewCommand
from common.domain.errors import ConcurrencyLimited, Conflict, Forbidden, InvalidField, NotFound
from common.domain.keys import Caller
from common.domain.launch import session_id
from common.ports import signals
from common.ports.commands import Idempotency, Origin
from common.services.submit import Submit
from common.services.wakeups import Wakeups
from tests.unit.fakes import CALLER, KEY, FakeCommands, FakeRelay, FakeSealer, FakeSignals

ORIGIN = Origin("req_1")


class FakeTimers:
    def __init__(self) -> None:
        self.due: list[datetime] = []

    def due_at(self, at: datetime) -> None:
        self.due.append(at)


class World:
    def __init__(self) -> None:
        self.commands = FakeCommands()
        self.relay = FakeRelay()
        self.timers = FakeTimers()
        self.signals = FakeSignals()
        self.submit = Submit(
            self.commands,
            FakeSealer(),
            self.relay,  # type: ignore[arg-type]
            self.timers,  # type: ignore[arg-type]
            Wakeups(self.signals),
        )


@pytest.fixture
def world() -> World:
    return World()


def new(**more: Any) -> NewCommand:
    fields = {"project": "demo", "kind": Kind.SHELL, "spec": {"script": "x"}} | more
    return NewCommand(identifiers.new_id(), **fields)


def test_a_command_is_stored_and_its_doorbell_rung(world: World) -> None:
    """The row first, then the outbox row is published and streams are woken."""
    wanted = new()
    done = world.submit(wanted, CALLER, ORIGIN)
    assert done.command.id == wanted.id
    assert world.relay.asked == [done.doorbell]
    assert world.signals.said == [(signals.OUTPUT, f"{wanted.id.hex} demo")]


def test_a_replay_wakes_nobody(world: World) -> None:
    """The first request has done it all."""
    world.commands.replayed = True
    run_at = datetime.now(UTC) - timedelta(seconds=30)  # it has passed since
    again = Idempotency("POST /v1/commands", "k", b"h")
    assert world.submit(new(run_at=run_at), CALLER, ORIGIN, again).replayed
    assert (world.relay.asked, world.signals.said, world.timers.due) == ([], [], [])
    assert world.commands.submitted[0][2] is again


def test_environment_values_are_sealed(world: World) -> None:
    """What is stored of them is sealed; without any there is nothing to seal."""
    world.submit(new(env={"A": "secret"}), CALLER, ORIGIN)
    world.submit(new(), CALLER, ORIGIN)
    assert [sealed for _, sealed, _ in world.commands.submitted] == [
        b'sealed:{"A": "secret"}',
        None,
    ]


def test_a_kind_without_its_scope_is_forbidden(world: World) -> None:
    """Holding the scope for git is not enough for shell."""
    caller = Caller(KEY, "ci", frozenset({"commands:write:git"}), None)
    with pytest.raises(Forbidden):
        world.submit(new(), caller, ORIGIN)
    assert world.commands.submitted == []


def test_a_foreign_project_is_not_found(world: World) -> None:
    """And the database is not even asked."""
    caller = Caller(KEY, "ci", frozenset({"commands:write"}), frozenset({"mine"}))
    with pytest.raises(NotFound):
        world.submit(new(), caller, ORIGIN)
    assert world.commands.submitted == []


@pytest.mark.parametrize(
    ("ahead", "code"),
    [
        (timedelta(seconds=-1), "in_the_past"),
        (timedelta(days=-3000), "in_the_past"),
        (timedelta(days=7, seconds=60), "too_far"),
        (timedelta(days=300_000), "too_far"),
    ],
)
def test_run_at_lies_within_7_days(world: World, ahead: timedelta, code: str) -> None:
    """In the past or too far ahead: 422, and nothing is left behind."""
    with pytest.raises(InvalidField) as caught:
        world.submit(new(run_at=datetime.now(UTC) + ahead), CALLER, ORIGIN)
    assert [(e.field, e.code) for e in caught.value.errors] == [("run_at", code)]
    assert world.commands.submitted == []


def test_what_is_due_soon_is_kept_in_this_process(world: World) -> None:
    """The timer hears of every scheduled command."""
    run_at = datetime.now(UTC) + timedelta(days=6)
    world.submit(new(run_at=run_at), CALLER, ORIGIN)
    assert world.timers.due == [run_at]


def resume(**more: Any) -> NewCommand:
    return new(
        kind=Kind.CLAUDE,
        spec={"prompt": "x", "session": {"mode": "resume", "id": "s"}},
        session="s",
        **more,
    )


def test_a_busy_session_is_forked_when_asked(world: World) -> None:
    """First strictly; when the session is held, the same command in a copy of it."""
    world.commands.refusals = [Conflict("busy", code="session_busy")]
    wanted = resume(fork_if_session_busy=True)
    world.submit(wanted, CALLER, ORIGIN)
    strict, forked = (c for c, _, _ in world.commands.submitted)
    assert strict.reject_if_session_busy
    assert (forked.id, forked.session, forked.spec["session"]) == (
        wanted.id,
        session_id(wanted.id),
        {"mode": "fork", "id": "s"},
    )


def test_a_free_session_is_not_forked(world: World) -> None:
    """Forking is only for when it is held."""
    world.submit(resume(fork_if_session_busy=True), CALLER, ORIGIN)
    assert len(world.commands.submitted) == 1
    assert world.commands.submitted[0][0].session == "s"


@pytest.mark.parametrize(
    "error", [Conflict("in flight", code="idempotency_in_flight"), ConcurrencyLimited("full")]
)
def test_other_refusals_are_not_answered_with_a_fork(world: World, error: Exception) -> None:
    """Only `session_busy` means that the session is held."""
    world.commands.refusals = [error]
    with pytest.raises(type(error)):
        world.submit(resume(fork_if_session_busy=True), CALLER, ORIGIN)
    assert len(world.commands.submitted) == 1


def test_a_command_remembers_the_trace_it_came_from(world: World) -> None:
    """So that its start, in another process, continues the request's span."""
    context = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(1))
    with trace.use_span(NonRecordingSpan(context)):
        world.submit(new(), CALLER, ORIGIN)
    world.submit(new(), CALLER, ORIGIN)
    first, second = (c.traceparent for c, _, _ in world.commands.submitted)
    assert first == f"00-{0xABC:032x}-{0xDEF:016x}-01"
    assert second is None
