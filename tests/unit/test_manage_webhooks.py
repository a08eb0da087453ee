"""manage_webhooks.py and functions/webhooks: what is refused, and what rings the sender."""

from __future__ import annotations

import json
from typing import Any

import pytest

from common.domain.scopes import ALL
from tests.unit.conftest import Api, Client

HOOK = {"url": "https://example.com/hook"}


@pytest.fixture
def client(api: Api) -> Client:
    return api.client("webhooks", api.keys.make(*ALL))


def made(client: Client, **body: Any) -> str:
    """A webhook's path."""
    answer = client.post("/v1/webhooks", content=json.dumps(HOOK | body).encode())
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/webhooks/{answer.json()['id']}"
    return str(answer.headers["location"])


def test_a_webhook_is_created_shown_listed_changed_and_deleted(api: Api, client: Client) -> None:
    """Its secret is in the first answer only; enabling it rings the sender."""
    path = made(client, event_types=["command.lost"], headers={"X-A": "b"})
    shown = client.get(path).json()
    assert "secret" not in shown
    assert (shown["event_types"], shown["headers"]) == (["command.lost"], {"X-A": None})
    assert client.get("/v1/webhooks").json()["items"] == [shown]
    rings = api.sender_bell.rings
    off = client.request("PATCH", path, content=b'{"enabled":false}').json()
    assert (off["enabled"], off["disabled_reason"]) == (False, "user")
    assert api.sender_bell.rings == rings
    body = b'{"enabled":true,"event_types":null,"headers":{}}'
    on = client.request("PATCH", path, content=body).json()
    assert (on["enabled"], on["event_types"], on["headers"]) == (True, None, {})
    assert api.sender_bell.rings == rings + 1
    assert client.request("DELETE", path).status_code == 204
    assert client.get(path).status_code == 404


def test_pages_of_webhooks_go_on(client: Client) -> None:
    """Newest first, by cursor; a foreign cursor is refused."""
    paths = [made(client) for _ in range(3)]
    first = client.get("/v1/webhooks?limit=2").json()
    rest = client.get(f"/v1/webhooks?limit=2&cursor={first['next_cursor']}").json()
    ids = [item["id"] for item in first["items"] + rest["items"]]
    assert ids == [path.rpartition("/")[2] for path in reversed(paths)]
    assert rest["next_cursor"] is None
    assert client.get("/v1/webhooks?cursor=cmd_1").status_code == 422
    assert client.get(f"{paths[0]}/deliveries?cursor=whk_1").status_code == 422


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, "empty_range"),
        ({"since": "2190-01-01T00:00:00Z"}, "empty_range"),
        ({"since": "2020-01-01T00:00:00Z"}, "too_far"),
        ({"since": "2026-01-01T00:00:00"}, "timezone_aware"),
        ({}, "missing"),
    ],
)
def test_a_range_that_is_none_is_refused(client: Client, body: Any, code: str) -> None:
    """422 that says why."""
    answer = client.post(f"{made(client)}/recover", content=json.dumps(body).encode())
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, code)


def test_a_disabled_webhook_sends_nothing_again(client: Client) -> None:
    """409 that says what to do."""
    path = made(client)
    sent = client.post(f"{path}/ping").json()
    client.request("PATCH", path, content=b'{"enabled":false}')
    asked = [
        (f"{path}/ping", b""),
        (f"{path}/deliveries/{sent['id']}/redeliver", b""),
        (f"{path}/recover", b'{"since":"2026-11-01T00:00:00Z","until":"2026-11-02T00:00:00Z"}'),
    ]
    for where, content in asked:
        answer = client.post(where, content=content)
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        assert "enable it first" in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {"event_types": ["command.exploded"]},
        {"event_types": []},
        {"projects": []},
        {"payload": "fat"},
        {"description": "a\u200bb"},
        {"secret": "whsec_mine"},
        {"enabled": True},
    ],
    ids=str,
)
def test_a_wrong_field_is_named(client: Client, body: Any) -> None:
    """422, and nothing is stored."""
    answer = client.post("/v1/webhooks", content=json.dumps(HOOK | body).encode())
    assert answer.status_code == 422
    [field] = {e["field"].partition("[")[0] for e in answer.json()["errors"]}
    assert field in body
    assert client.get("/v1/webhooks").json()["items"] == []


def test_a_schema_is_where_an_event_says(api: Api) -> None:
    """Open to everybody; another name is 404."""
    client = api.client("reference")
    answer = client.get("/schemas/ai.orchard9.rdev.command.succeeded.v1.json")
    assert answer.headers["content-type"] == "application/schema+json"
    assert answer.json()["$id"].endswith("/schemas/ai.orchard9.rdev.command.succeeded.v1.json")
    for name in ("ai.orchard9.rdev.command.exploded.v1.json", "x-generated"):
        assert client.get(f"/schemas/{name}").status_code == 404
