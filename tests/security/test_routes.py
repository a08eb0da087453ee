"""Row 13: which key opens which door, written down by hand; a door that is not here fails."""

from __future__ import annotations

import pytest

from common.domain.scopes import ALL
from common.entrypoints.function import Route
from infra.generation import declared
from tests.security.conftest import House

ANY_COMMAND = {
    "commands:write", "commands:write:claude", "commands:write:shell", "commands:write:git",
}  # fmt: skip
TABLE = {
    "GET /v1/audit": {"audit:read"},
    "GET /v1/audit/export": {"audit:read"},
    "GET /v1/audit/verify": {"audit:read"},
    "GET /v1/claude-config/{project}/effective": {"claude-config:read"},
    "POST /v1/claude-config/{project}/{kind}:validate": {"claude-config:read"},
    "GET /v1/claude-config/{project}/{kind}": {"claude-config:read"},
    "POST /v1/claude-config/{project}/{kind}": {"claude-config:write"},
    "GET /v1/claude-config/{project}/{kind}/{name}": {"claude-config:read"},
    "PUT /v1/claude-config/{project}/{kind}/{name}": {"claude-config:write"},
    "DELETE /v1/claude-config/{project}/{kind}/{name}": {"claude-config:write"},
    "POST /v1/commands": ANY_COMMAND,
    "GET /v1/commands": {"commands:read"},
    "GET /v1/commands/{id}": {"commands:read"},
    "PATCH /v1/commands/{id}": ANY_COMMAND,
    "POST /v1/commands/{id}/cancel": ANY_COMMAND,
    "POST /v1/commands/{id}/retry": ANY_COMMAND,
    "GET /v1/commands/{id}/output": {"commands:read"},
    "GET /v1/commands/{id}/approvals": {"commands:read"},
    "POST /v1/commands/{id}/approvals/{tool_use_id}": {"approvals:write"},
    "POST /v1/keys": {"keys:admin"},
    "POST /v1/events": {"events:write"},
    "GET /v1/events/dead-letters": {"triggers:write"},
    "GET /v1/events/dead-letters/{id}": {"triggers:write"},
    "POST /v1/events/dead-letters/{id}/replay": {"triggers:write"},
    "GET /v1/keys": {"keys:admin"},
    "GET /v1/keys/{id}": {"keys:admin"},
    "PATCH /v1/keys/{id}": {"keys:admin"},
    "POST /v1/keys/{id}/rotate": {"keys:admin"},
    "DELETE /v1/keys/{id}": {"keys:admin"},
    "GET /v1/projects": {"projects:read"},
    "GET /v1/projects/{project}": {"projects:read"},
    "GET /v1/projects/{project}/sessions": {"commands:read"},
    "GET /v1/projects/{project}/sessions/{id}": {"commands:read"},
    "POST /v1/projects/{project}/shell": {"commands:write", "commands:write:shell"},
    "POST /v1/projects/{project}/git": {"commands:write", "commands:write:git"},
    "POST /v1/projects/{project}/claude": {"commands:write", "commands:write:claude"},
    "GET /v1/queue": {"projects:read", "queue:admin"},
    "GET /v1/queue/{project}": {"projects:read", "queue:admin"},
    "POST /v1/queue/{project}/pause": {"queue:admin"},
    "POST /v1/queue/{project}/resume": {"queue:admin"},
    "GET /v1/streams/commands/{id}": {"commands:read"},
    "GET /v1/streams/projects/{project}": {"commands:read"},
    "POST /v1/triggers": {"triggers:write"},
    "GET /v1/triggers": {"triggers:write"},
    "GET /v1/triggers/{id}": {"triggers:write"},
    "PATCH /v1/triggers/{id}": {"triggers:write"},
    "DELETE /v1/triggers/{id}": {"triggers:write"},
    "POST /v1/triggers/{id}/rotate": {"triggers:write"},
    "POST /v1/triggers/{id}/test": {"triggers:write"},
    "GET /v1/triggers/{id}/matches": {"triggers:write"},
    "GET /v1/usage": {"usage:read"},
    "POST /v1/webhooks": {"webhooks:write"},
    "GET /v1/webhooks": {"webhooks:write"},
    "GET /v1/webhooks/{id}": {"webhooks:write"},
    "PATCH /v1/webhooks/{id}": {"webhooks:write"},
    "DELETE /v1/webhooks/{id}": {"webhooks:write"},
    "POST /v1/webhooks/{id}/rotate": {"webhooks:write"},
    "POST /v1/webhooks/{id}/ping": {"webhooks:write"},
    "GET /v1/webhooks/{id}/deliveries": {"webhooks:write"},
    "GET /v1/webhooks/{id}/deliveries/{delivery}": {"webhooks:write"},
    "POST /v1/webhooks/{id}/deliveries/{delivery}/redeliver": {"webhooks:write"},
    "POST /v1/webhooks/{id}/recover": {"webhooks:write"},
}
ROUTES = {
    f"{route.method} {route.path}": (function.name, route)
    for function in declared.functions()
    for route in function.routes
    if route.scopes
}
# No key opens these: what is sent there carries a signature of its own.
SIGNED = {"POST /v1/events/github/{trigger}"}


@pytest.mark.row(13)
def test_every_door_is_in_the_table() -> None:
    """A new operation is written down here, by a person who has thought about who may use it."""
    assert set(ROUTES) == set(TABLE)
    doors = {f"{r.method} {r.path}": r for f in declared.functions() for r in f.routes}
    assert {name for name, route in doors.items() if route.signed} == SIGNED
    open_ = [name for name, r in doors.items() if "/v1/" in r.path and not r.scopes]
    assert set(open_) == SIGNED


@pytest.mark.row(13)
@pytest.mark.parametrize("name", sorted(set(TABLE) & set(ROUTES)))
def test_a_scope_opens_exactly_its_doors(house: House, name: str) -> None:
    """Each scope alone is tried at each door: 403 unless the table has it."""
    function, route = ROUTES[name]
    for scope in ALL:
        client = house.client(function, house.key(scope))
        if scope in TABLE[name] and route.kind == "stream":
            continue  # what opens is told by the tests of streams
        answer = client.request(route.method, path_of(route), content=b"{}" if route.body else b"")
        forbidden = answer.status_code == 403 and "lacks the scope" in answer.json()["detail"]
        assert forbidden is (scope not in TABLE[name]), (scope, answer.text)


def path_of(route: Route) -> str:
    kinds = {"keys": "key", "webhooks": "whk"}
    kind = kinds.get(route.path.split("/")[2], "cmd")
    nobody = "0" * 32
    names = {"project": "demo", "kind": "commands", "name": "deploy", "tool_use_id": "t"}
    return route.path.format_map({"id": f"{kind}_{nobody}", "delivery": f"dlv_{nobody}"} | names)
