"""functions/queue and functions/usage: what callers see, and what a key may not."""

from __future__ import annotations

import pytest

from common.adapters.memory.commands import MemoryCommandStore
from common.adapters.memory.projects import MemoryProjectStore
from common.domain.command import Kind, NewCommand
from common.domain.identifiers import new_id
from common.domain.keys import Caller
from common.domain.project import FoundProject
from common.ports.commands import Origin
from tests.unit.conftest import Api
from tests.unit.fakes import KEY


@pytest.fixture
def busy(api: Api) -> Api:
    """Two projects with a waiting command each."""
    found = [FoundProject(name, f"/w/{name}") for name in ("demo", "other")]
    MemoryProjectStore(api.audit_state).sync(found, "test")
    for project in ("demo", "other"):
        command = NewCommand(new_id(), project, Kind.SHELL, {"script": "true"})
        caller = Caller(KEY, "ci", frozenset(), None)
        MemoryCommandStore(api.audit_state).submit(command, None, caller, Origin("req_1"))
    return api


def test_a_project_is_paused_and_resumed(busy: Api) -> None:
    """The answer is the queue as it is then; resuming rings the runner for what waits."""
    client = busy.client("queue", busy.keys.make("queue:admin"))
    assert client.post("/v1/queue/demo/pause").json()["paused_at"] is not None
    assert busy.bell.rung == []
    resumed = client.post("/v1/queue/demo/resume").json()
    assert (resumed["paused_at"], resumed["queued"]) == (None, 1)
    assert resumed["by_priority"]["normal"]["queued"] == 1
    assert busy.bell.rung == ["demo"]
    assert client.post("/v1/queue/none/pause").status_code == 404


def test_who_reads_does_not_pause(busy: Api) -> None:
    """projects:read shows depths; pausing needs queue:admin."""
    client = busy.client("queue", busy.keys.make("projects:read"))
    assert [q["project"] for q in client.get("/v1/queue").json()["items"]] == ["demo", "other"]
    assert client.post("/v1/queue/demo/pause").status_code == 403


def test_a_foreign_project_is_not_there(busy: Api) -> None:
    """Neither to see nor to pause, and its sums are nobody else's."""
    key = busy.keys.make("queue:admin", "usage:read", projects={"demo"})
    client = busy.client("queue", key)
    assert [q["project"] for q in client.get("/v1/queue").json()["items"]] == ["demo"]
    assert client.get("/v1/queue/other").status_code == 404
    assert client.post("/v1/queue/other/pause").status_code == 404
    assert busy.audit_state.projects["other"].paused_at is None
    usage = busy.client("usage", key)
    assert usage.get("/v1/usage?project=other").json()["items"] == []
    assert usage.get("/v1/usage?by=colour").status_code == 422
    assert usage.get("/v1/usage?since=1999-01-01").status_code == 422
