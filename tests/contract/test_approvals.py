"""What every Approvals does: a request once, a decision once, and what is sent in one order."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from common.domain.approval import ApprovalState, Asked
from common.domain.audit import AuditFilter
from common.domain.command import Kind, State
from common.domain.keys import Caller
from common.ports.approvals import Piece
from common.ports.queue import Claim, LeaseLost
from tests.contract.conftest import DONE, ORIGIN, World

WAIT_S = 60


@pytest.fixture
def caller(world: World) -> Caller:
    world.project()
    _, made = world.key()
    return made


@pytest.fixture
def claim(world: World, caller: Caller) -> Claim:
    """A claude command that runs."""
    return world.running(caller, kind=Kind.CLAUDE, spec={"prompt": "x"})


def request(number: int = 1, tool_use_id: str = "toolu_1", **more: Any) -> Asked:
    plain = {"tool_name": "Bash", "input": json.dumps({"command": f"make {number}"}).encode()}
    return Asked(**{"request_id": f"req-{number}", "tool_use_id": tool_use_id} | plain | more)


def ask(world: World, claim: Claim, *asked: Asked) -> None:
    for one in asked or (request(),):
        world.approvals.ask(claim.command.id, claim.token, one, WAIT_S)


def decide(
    world: World,
    claim: Claim,
    caller: Caller,
    tool_use_id: str = "toolu_1",
    state: ApprovalState = ApprovalState.ALLOWED,
    **more: Any,
) -> bool:
    asked = world.approvals.find(claim.command.id, tool_use_id)
    assert asked is not None
    message, reply = more.get("message"), more.get("reply", b"yes\n")
    return world.approvals.decide(asked, state, message, reply, caller, ORIGIN)


def told(world: World, claim: Claim) -> list[dict[str, Any]]:
    events = world.events.page(claim.command.id, 0, 1 << 24).events
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    return [json.loads(e.data) for e in events if e.type == "approval"]


def test_a_request_is_stored_once_however_often_it_is_read(world: World, claim: Claim) -> None:
    """With its event, that says all a person needs to decide."""
    ask(world, claim, request(), request(), request(2, "toolu_2"))
    first, second = world.approvals.list(claim.command.id)
    assert (first.request_id, first.tool_use_id, first.tool_name) == ("req-1", "toolu_1", "Bash")
    assert (first.state, first.input) == (ApprovalState.PENDING, b'{"command": "make 1"}')
    assert (first.expires_at - first.requested_at).total_seconds() == pytest.approx(WAIT_S, abs=1)
    assert (first.key_id, first.message, first.decided_at) == (None, None, None)
    assert second.tool_use_id == "toolu_2"
    event, _ = told(world, claim)
    assert event.pop("expires_at").startswith("20")
    assert event == {
        "tool_use_id": "toolu_1", "tool_name": "Bash", "input": {"command": "make 1"},
        "state": "pending", "message": None,
    }  # fmt: skip
    assert world.approvals.inbox(claim.command.id).pieces == []


def test_a_large_input_is_left_out_of_the_event_and_said_so(world: World, claim: Claim) -> None:
    """It is in the list all the same."""
    large = json.dumps({"content": "x" * 100_000}).encode()
    ask(world, claim, request(input=large))
    [event] = told(world, claim)
    assert (event["input"], event["truncated"]) == (None, True)
    [stored] = world.approvals.list(claim.command.id)
    assert stored.input == large


def test_a_decision_is_one_transaction(world: World, claim: Claim, caller: Caller) -> None:
    """Row, event, what is sent, and an audit row that does not hold the input."""
    ask(world, claim)
    state = ApprovalState.DENIED
    assert decide(world, claim, caller, state=state, message="no\u2028\"'", reply=b"no\n")
    [stored] = world.approvals.list(claim.command.id)
    assert (stored.state, stored.message, stored.key_id) == (state, "no\u2028\"'", caller.key_id)
    assert stored.decided_at is not None
    assert [e["state"] for e in told(world, claim)] == ["pending", "denied"]
    assert told(world, claim)[1]["message"] == "no\u2028\"'"
    assert world.approvals.inbox(claim.command.id).pieces == [Piece(1, 3, b"no\n")]
    [entry] = world.audit.list(AuditFilter(action="approval.denied"))
    assert (entry.key_id, entry.project) == (caller.key_id, "demo")
    assert "make" not in json.dumps(entry.detail)


def test_the_second_decision_changes_nothing(world: World, claim: Claim, caller: Caller) -> None:
    """Of two at once one wins; claude is told one thing."""
    ask(world, claim)
    asked = world.approvals.find(claim.command.id, "toolu_1")
    assert asked is not None
    won: list[bool] = []
    ready = threading.Barrier(2)

    def one(state: ApprovalState, reply: bytes) -> None:
        ready.wait()
        won.append(world.approvals.decide(asked, state, None, reply, caller, ORIGIN))

    threads = [
        threading.Thread(target=one, args=args)
        for args in ((ApprovalState.ALLOWED, b"yes\n"), (ApprovalState.DENIED, b"no\n"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False, True]
    [stored] = world.approvals.list(claim.command.id)
    [piece] = world.approvals.inbox(claim.command.id).pieces
    assert piece.data == (b"yes\n" if stored.state is ApprovalState.ALLOWED else b"no\n")
    assert len(told(world, claim)) == 2


def test_what_is_sent_has_one_order(world: World, claim: Claim, caller: Caller) -> None:
    """That of the decisions; what was sent is told by its size, and the rest goes on behind it."""
    ask(world, claim, request(1), request(2, "toolu_2"), request(3, "toolu_3"))
    assert decide(world, claim, caller, "toolu_2", reply=b"two\n")
    world.approvals.answer(claim.command.id, claim.token, "hook-1", b"error\n")
    world.approvals.answer(claim.command.id, claim.token, "hook-1", b"again\n")
    assert decide(world, claim, caller, "toolu_1", reply=b"one\n")
    world.approvals.sent(claim.command.id, 1)
    inbox = world.approvals.inbox(claim.command.id)
    assert inbox.pieces == [Piece(1, 4, None), Piece(2, 6, b"error\n"), Piece(3, 4, b"one\n")]
    assert inbox.overdue == []
    assert inbox.next_s == pytest.approx(WAIT_S, abs=5)


def test_what_nobody_answers_in_time_is_denied(world: World, claim: Claim, caller: Caller) -> None:
    """Not before its time is over; from then on nobody can allow it any more."""
    ask(world, claim)
    world.approvals.expire(claim.command.id, claim.token, "req-1", b"late\n")
    assert world.approvals.inbox(claim.command.id).pieces == []
    world.pass_time(WAIT_S + 1)
    lease = world.queue.adopt(5, 10) or [claim]  # the lease is over too
    token = lease[0].token
    inbox = world.approvals.inbox(claim.command.id)
    assert (inbox.overdue, inbox.next_s) == (["req-1"], None)
    assert not decide(world, claim, caller)
    world.approvals.expire(claim.command.id, token, "req-1", b"late\n")
    world.approvals.expire(claim.command.id, token, "req-1", b"late\n")
    inbox = world.approvals.inbox(claim.command.id)
    assert (inbox.overdue, inbox.pieces) == ([], [Piece(1, 5, b"late\n")])
    assert [e["state"] for e in told(world, claim)] == ["pending", "expired"]
    assert not decide(world, claim, caller)


def test_a_tool_use_that_is_asked_about_again_is_found_while_it_waits(
    world: World, claim: Claim, caller: Caller
) -> None:
    """The pending request is the one a decision is about."""
    ask(world, claim)
    assert decide(world, claim, caller)
    ask(world, claim, request(2))
    found = world.approvals.find(claim.command.id, "toolu_1")
    assert found is not None
    assert (found.request_id, found.state) == ("req-2", ApprovalState.PENDING)
    assert world.approvals.find(claim.command.id, "toolu_forged") is None


def test_who_lost_the_lease_asks_and_answers_nothing(world: World, claim: Claim) -> None:
    """The command has another follower now."""
    stale = claim.token - 1
    with pytest.raises(LeaseLost):
        world.approvals.ask(claim.command.id, stale, request(), WAIT_S)
    with pytest.raises(LeaseLost):
        world.approvals.answer(claim.command.id, stale, "req-1", b"no\n")
    with pytest.raises(LeaseLost):
        world.approvals.expire(claim.command.id, stale, "req-1", b"no\n")
    assert world.approvals.list(claim.command.id) == []


def test_the_end_of_a_command_answers_for_all(world: World, claim: Claim, caller: Caller) -> None:
    """What is pending expires, before the `end`; inputs and replies go with their command."""
    ask(world, claim, request(1), request(2, "toolu_2"))
    assert decide(world, claim, caller)
    world.queue.finish(claim.command.id, claim.token, State.FAILED, DONE)
    decided, expired = world.approvals.list(claim.command.id)
    assert (decided.state, decided.input) == (ApprovalState.ALLOWED, None)
    assert (expired.state, expired.input) == (ApprovalState.EXPIRED, None)
    assert world.approvals.inbox(claim.command.id).pieces == []
    assert not decide(world, claim, caller, "toolu_2")
    events = world.events.page(claim.command.id, 0, 1 << 20).events
    assert [e.type for e in events][-2:] == ["approval", "end"]
    last = told(world, claim)[-1]
    assert (last["tool_use_id"], last["state"]) == ("toolu_2", "expired")
    assert last["input"] == {"command": "make 2"}
