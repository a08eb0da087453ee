"""What every SessionStore does: sessions are what their commands say, whatever happened to them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from common.domain.accounting import SessionTotal
from common.domain.command import Kind, State
from common.domain.identifiers import new_id
from common.domain.keys import Caller
from common.domain.session import Session
from common.ports.queue import Claim
from tests.contract.conftest import World


@pytest.fixture
def caller(world: World) -> Caller:
    world.project()
    _, made = world.key()
    return made


def submit(world: World, caller: Caller, session: str, mode: str = "resume", **more: Any) -> UUID:
    """A claude command that holds `session`; it goes on with it, or with `source`."""
    source = more.pop("source", session)
    asked = {"mode": mode} | ({"id": source} if mode != "new" else {})
    spec = {"prompt": "secret", "session": asked, "options": more}
    id_ = new_id()
    world.submit(caller, id=id_, kind=Kind.CLAUDE, spec=spec, session=session)
    return id_


def start(world: World) -> Claim:
    claim = world.claimed()
    world.queue.mark_running(claim.command.id, claim.token)
    return claim


def end(world: World, claim: Claim, reason: str = "exit_zero", **agent: Any) -> None:
    told = {"session_id": claim.command.session, "num_turns": 2, "cost_usd": 0.25} | agent
    world.queue.finish(
        claim.command.id, claim.token, State.SUCCEEDED, {"reason": reason, "agent": told}
    )


def spent(total: float) -> dict[str, Any]:
    return {"session_total": {"cost_usd": total, "models": {"opus": {"cost_usd": total}}}}


def test_a_session_is_the_sum_of_its_commands(world: World, caller: Caller) -> None:
    """Turns and cost add up; the first and the last command and their times are told."""
    first = submit(world, caller, "s", "new", model="opus")
    end(world, start(world))
    second = submit(world, caller, "s")
    end(world, start(world), num_turns=3, cost_usd=0.5, models={"haiku": {"cost_usd": 0.5}})
    [found] = world.sessions.list("demo", None, 10)
    assert (found.id, found.project, found.busy_with, found.waiting) == ("s", "demo", None, 0)
    assert (found.commands, found.turns, found.cost_usd) == (2, 5, 0.75)
    assert (found.first_command, found.last_command) == (first, second)
    assert found.started_at <= found.last_used_at
    assert (found.model, found.forked_from) == ("haiku", None)
    assert world.sessions.get("demo", "s") == found
    assert world.sessions.get("other", "s") is None


def test_a_held_session_is_busy_and_says_by_whom(world: World, caller: Caller) -> None:
    """What waits for it is counted; it is free when nothing holds it."""
    submit(world, caller, "s", "new")
    claim = start(world)
    submit(world, caller, "s")
    busy = world.sessions.get("demo", "s")
    assert busy is not None
    assert (busy.busy_with, busy.waiting, busy.commands) == (claim.command.id, 1, 1)
    end(world, claim)
    free = world.sessions.get("demo", "s")
    assert free is not None
    assert (free.busy_with, free.waiting) == (None, 1)


def test_what_claude_never_knew_is_no_session(world: World, caller: Caller) -> None:
    """A command that did not start, or whose session was unknown, made none."""
    submit(world, caller, "waiting", "new")
    assert world.sessions.list("demo", None, 10) == []
    end(world, start(world))
    for reason in ("session_unknown", "start_failed"):
        submit(world, caller, reason)
        end(world, start(world), reason)
    assert ids(world.sessions.list("demo", None, 10)) == ["waiting"]
    assert world.sessions.get("demo", "session_unknown") is None


def test_a_fork_is_a_session_of_its_own(world: World, caller: Caller) -> None:
    """It remembers where it came from, and its source is not used by it."""
    submit(world, caller, "source", "new")
    end(world, start(world))
    submit(world, caller, "copy", "fork", source="source")
    end(world, start(world))
    copy, source = world.sessions.list("demo", None, 10)
    assert (copy.id, copy.forked_from, copy.commands) == ("copy", "source", 1)
    assert (source.id, source.forked_from, source.commands) == ("source", None, 1)


def test_the_last_used_comes_first_and_pages_go_on(world: World, caller: Caller) -> None:
    """A page begins behind the newest command of the page before it."""
    for session in ("a", "b", "c", "a"):
        submit(world, caller, session)
        end(world, start(world))
    assert ids(world.sessions.list("demo", None, 10)) == ["a", "c", "b"]
    first = world.sessions.list("demo", None, 2)
    assert ids(world.sessions.list("demo", first[-1].last_command, 2)) == ["b"]


def test_the_total_before_a_command_is_the_last_one_told(world: World, caller: Caller) -> None:
    """Of the session it goes on with, a fork's of its source; a new or unknown one has none."""
    submit(world, caller, "s", "new")
    first = start(world)
    assert world.queue.session_total(first.command.id) is None
    end(world, first, **spent(0.25))
    submit(world, caller, "s")
    second = start(world)
    assert world.queue.session_total(second.command.id) == total(0.25)
    submit(world, caller, "copy", "fork", source="s")
    fork = start(world)
    end(world, second, **spent(0.75))
    assert world.queue.session_total(fork.command.id) == total(0.25)
    end(world, fork, **spent(0.5))
    submit(world, caller, "s")
    killed = start(world)
    assert world.queue.session_total(killed.command.id) == total(0.75)
    world.queue.finish(killed.command.id, killed.token, State.LOST, {"reason": "supervisor"})
    submit(world, caller, "s")
    assert world.queue.session_total(start(world).command.id) == total(0.75)
    submit(world, caller, "elsewhere")
    assert world.queue.session_total(start(world).command.id) is None


def total(cost: float) -> SessionTotal | None:
    return SessionTotal.stored(spent(cost)["session_total"])


def ids(sessions: list[Session]) -> list[str]:
    return [s.id for s in sessions]
