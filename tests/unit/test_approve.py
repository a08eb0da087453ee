"""services/approve.py and its routes: who decides, once, and is told the truth about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from common.adapters.memory.approvals import MemoryApprovals
from common.adapters.memory.commands import MemoryCommandStore
from common.adapters.memory.projects import MemoryProjectStore
from common.adapters.memory.queue import MemoryQueue
from common.adapters.memory.state import MemoryState
from common.domain.approval import ApprovalState, Asked
from common.domain.command import Kind, NewCommand
from common.domain.identifiers import COMMAND, new_id, show
from common.domain.keys import Caller
from common.domain.project import FoundProject
from common.ports import signals
from common.ports.commands import Origin
from tests.harness.running import until
from tests.unit import fakes
from tests.unit.conftest import Api, Client

ID = new_id()
PATH = f"/v1/commands/{show(COMMAND, ID)}/approvals"


@pytest.fixture
def store(api: Api) -> MemoryApprovals:
    """A claude command that asks for `toolu_1`."""
    state: MemoryState = api.audit_state
    MemoryProjectStore(state).sync([FoundProject("demo", "/w/demo")], "test")
    caller = Caller(fakes.KEY, "ci", frozenset(), None)
    new = NewCommand(ID, "demo", Kind.CLAUDE, {"prompt": "x", "options": {"approvals": True}})
    MemoryCommandStore(state).submit(new, None, caller, Origin("req_1"))
    claim = MemoryQueue(state).claim("demo", 1)
    assert claim is not None
    api.commands.rows[ID] = replace(claim.command)
    store = MemoryApprovals(state)
    store.ask(ID, claim.token, Asked("r1", "toolu_1", "Bash", b'{"command":"make"}'), 60)
    return store


def client(api: Api, *scopes: str, **more: Any) -> Client:
    return api.client("commands", api.keys.make(*(scopes or ("approvals:write",)), **more))


def decide(who: Client, tool_use_id: str = "toolu_1", body: str = '{"decision":"allow"}') -> Any:
    headers = {"content-type": "application/json"}
    return who.post(f"{PATH}/{tool_use_id}", content=body.encode(), headers=headers)


def test_a_request_is_shown_to_whoever_sees_the_command(api: Api, store: MemoryApprovals) -> None:
    """With its input, as long as the command lives."""
    [item] = client(api, "commands:read").get(PATH).json()["items"]
    assert (item["tool_use_id"], item["state"]) == ("toolu_1", "pending")
    assert (item["input"], item["key_id"]) == ({"command": "make"}, None)
    assert client(api, "commands:read", projects={"other"}).get(PATH).status_code == 404


def test_a_decision_is_stored_and_announced(api: Api, store: MemoryApprovals) -> None:
    """Streams and the runner that follows the command hear of it."""
    answer = decide(client(api), body='{"decision":"deny","message":"No."}')
    assert (answer.status_code, answer.json()["state"]) == (200, "denied")
    assert answer.json()["key_id"] is not None
    assert answer.json()["message"] == "No."
    [piece] = store.inbox(ID).pieces
    assert b'"behavior":"deny","message":"No."' in (piece.data or b"")
    wanted = {(signals.OUTPUT, f"{ID.hex} demo"), (signals.CONTROL, ID.hex)}
    until("both are told", lambda: wanted <= set(api.signals.said))


def test_the_answer_is_about_what_was_decided(api: Api, store: MemoryApprovals) -> None:
    """claude may ask about one tool use again while the first request still waits."""
    token = api.audit_state.commands[ID].token
    store.ask(ID, token, Asked("r2", "toolu_1", "Bash", b"{}"), 60)
    assert [decide(client(api)).json()["state"] for _ in range(2)] == ["allowed", "allowed"]
    assert decide(client(api)).status_code == 409


def test_it_is_decided_once(api: Api, store: MemoryApprovals) -> None:
    """The same again is a conflict too, and says how it was decided."""
    assert decide(client(api)).status_code == 200
    for body in ('{"decision":"allow"}', '{"decision":"deny"}'):
        again = decide(client(api), body=body)
        assert (again.status_code, again.json()["code"]) == (409, "conflict")
        assert "allowed" in again.json()["detail"]
    assert len(store.inbox(ID).pieces) == 1


def test_who_decides_at_the_same_moment_hears_no(
    api: Api, store: MemoryApprovals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the decision somebody else was faster."""
    stale = store.find(ID, "toolu_1")
    assert decide(client(api)).status_code == 200
    monkeypatch.setattr(MemoryApprovals, "find", lambda *_: stale)
    assert decide(client(api)).status_code == 409
    assert [a.state for a in store.list(ID)] == [ApprovalState.ALLOWED]


@pytest.mark.parametrize("tool_use_id", ["toolu_forged", "r1", "toolu%201", "a%00", "x" * 201])
def test_what_was_never_asked_is_not_there(
    api: Api, store: MemoryApprovals, tool_use_id: str
) -> None:
    """Nothing is decided by a forged id."""
    assert decide(client(api), tool_use_id).status_code == 404
    assert store.inbox(ID).pieces == []


def test_who_may_not_decides_nothing(api: Api, store: MemoryApprovals) -> None:
    """Neither another's project nor a wrong body nor another scope."""
    assert decide(client(api, "approvals:write", projects={"other"})).status_code == 404
    assert decide(client(api, "commands:write")).status_code == 403
    for body in ('{"decision":"maybe"}', "{}", '{"decision":"allow","input":{}}'):
        assert decide(client(api), body=body).status_code == 422
    assert store.inbox(ID).pieces == []
