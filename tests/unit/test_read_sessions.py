"""services/read_sessions.py and its routes: what a key may not see is not there."""

from __future__ import annotations

import pytest

from common.adapters.memory.commands import MemoryCommandStore
from common.adapters.memory.projects import MemoryProjectStore
from common.adapters.memory.queue import MemoryQueue
from common.domain.command import Kind, NewCommand
from common.domain.identifiers import new_id
from common.domain.keys import Caller
from common.domain.launch import session_id
from common.domain.project import FoundProject
from common.ports.commands import Origin
from tests.unit.conftest import Api
from tests.unit.fakes import KEY


@pytest.fixture
def sessions(api: Api) -> list[str]:
    """Three sessions of demo, oldest first."""
    MemoryProjectStore(api.audit_state).sync([FoundProject("demo", "/w/demo")], "test")
    store, queue = MemoryCommandStore(api.audit_state), MemoryQueue(api.audit_state)
    made = []
    for _ in range(3):
        id_ = new_id()
        command = NewCommand(id_, "demo", Kind.CLAUDE, {"prompt": "x"}, session=session_id(id_))
        store.submit(command, None, Caller(KEY, "ci", frozenset(), None), Origin("req_1"))
        claim = queue.claim("demo", 1)
        assert claim is not None
        queue.mark_running(id_, claim.token)
        made.append(session_id(id_))
    return made


def test_sessions_come_in_pages(api: Api, sessions: list[str]) -> None:
    """The last used first; the cursor of one page leads to the next."""
    client = api.client("projects", api.keys.make("commands:read"))
    first = client.get("/v1/projects/demo/sessions?limit=2").json()
    assert [s["id"] for s in first["items"]] == sessions[:0:-1]
    rest = client.get(f"/v1/projects/demo/sessions?cursor={first['next_cursor']}").json()
    assert ([s["id"] for s in rest["items"]], rest["next_cursor"]) == ([sessions[0]], None)
    one = client.get(f"/v1/projects/demo/sessions/{sessions[0]}").json()
    assert one == rest["items"][0]
    assert (one["state"], one["busy_with"]) == ("busy", one["first_command"])
    assert client.get("/v1/projects/demo/sessions?cursor=x").status_code == 422


def test_a_foreign_session_is_not_there(api: Api, sessions: list[str]) -> None:
    """The same answer for another's project, none, and a session that never was."""
    foreign = api.client("projects", api.keys.make("commands:read", projects={"other"}))
    assert foreign.get("/v1/projects/demo/sessions").status_code == 404
    assert foreign.get(f"/v1/projects/demo/sessions/{sessions[0]}").status_code == 404
    client = api.client("projects", api.keys.make("commands:read"))
    for path in ("none/sessions", f"demo/sessions/{session_id(new_id())}", "demo/sessions/x%00"):
        assert client.get(f"/v1/projects/{path}").status_code == 404
    assert client.get("/v1/projects/other/sessions").json()["items"] == []
