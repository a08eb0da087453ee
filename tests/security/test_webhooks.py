"""The attack table, rows 12, 55 to 63: webhooks (rows 56, 57, 59 also in test_courier.py)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from common.adapters.http import courier
from common.domain.command import State
from common.domain.webhooks import Payload
from common.services.fan_out import FanOut
from tests.security.conftest import House
from tests.security.test_attacks import dumped, refused, submitted
from tests.unit import fakes

HOOK = {"url": "https://93.184.215.14/hook"}


def make(house: House, key: str, **body: Any) -> dict[str, Any]:
    answer = house.client("webhooks", key).post("/v1/webhooks", content=dumped(HOOK | body))
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def test_row_12_another_projects_webhook_was_never_there(house: House) -> None:
    """Each operation answers as for one that does not exist; nothing changes."""
    theirs = make(house, house.key(), projects=["other"])
    everybodys = make(house, house.key())
    client = house.client("webhooks", house.key(projects={"demo"}))
    before = repr(house.state.webhooks)
    nobody = "whk_" + "0" * 32
    delivery = "dlv_" + "0" * 32
    asked = [
        ("GET", "", b""),
        ("PATCH", "", b'{"enabled":false}'),
        ("DELETE", "", b""),
        ("POST", "/rotate", b"{}"),
        ("POST", "/ping", b""),
        ("GET", "/deliveries", b""),
        ("GET", f"/deliveries/{delivery}", b""),
        ("POST", f"/deliveries/{delivery}/redeliver", b""),
        ("POST", "/recover", b'{"since":"2026-01-01T00:00:00Z"}'),
    ]
    for method, path, content in asked:
        told = []
        for id_ in (theirs["id"], everybodys["id"], nobody):
            answer = client.request(method, f"/v1/webhooks/{id_}{path}", content=content)
            told.append(refused(answer, 404, "not_found")["detail"].replace(id_, "X"))
        assert len(set(told)) == 1
    assert client.get("/v1/webhooks").json()["items"] == []
    assert repr(house.state.webhooks) == before


def test_row_12_another_webhooks_delivery_is_not_found_under_ones_own(house: House) -> None:
    """The id of the delivery alone opens nothing."""
    admin = house.key()
    theirs = make(house, admin, projects=["other"])
    mine = make(house, admin, projects=["demo"])
    client = house.client("webhooks", admin)
    sent = client.post(f"/v1/webhooks/{theirs['id']}/ping").json()["id"]
    path = f"/v1/webhooks/{mine['id']}/deliveries/{sent}"
    refused(client.get(path), 404, "not_found")
    refused(client.post(f"{path}/redeliver"), 404, "not_found")


@pytest.mark.parametrize("projects", [None, ["other"], ["demo", "other"]])
def test_row_15_a_webhook_cannot_widen_its_keys_projects(house: House, projects: Any) -> None:
    """Named ones are refused; without any it gets those of its key."""
    key = house.key("webhooks:write", projects={"demo"})
    client = house.client("webhooks", key)
    answer = client.post("/v1/webhooks", content=dumped(HOOK | {"projects": projects}))
    if projects is None:
        assert answer.json()["projects"] == ["demo"]
        path = f"/v1/webhooks/{answer.json()['id']}"
        wider = client.request("PATCH", path, content=b'{"projects":["other"]}')
        refused(wider, 403, "forbidden")
    else:
        refused(answer, 403, "forbidden")


def test_only_a_keys_admin_listens_to_keys(house: House) -> None:
    """403, created or changed."""
    client = house.client("webhooks", house.key("webhooks:write"))
    wanted = {"event_types": ["key.created"]}
    refused(client.post("/v1/webhooks", content=dumped(HOOK | wanted)), 403, "forbidden")
    path = f"/v1/webhooks/{client.post('/v1/webhooks', content=dumped(HOOK)).json()['id']}"
    refused(client.request("PATCH", path, content=dumped(wanted)), 403, "forbidden")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
     "0.0.0.0", "[::1]", "[::]", "[fc00::1]", "[fe80::1]", "[64:ff9b::1]", "[::ffff:8.8.8.8]",
     "[::ffff:7f00:1]", "[2002:7f00:1::]", "2130706433", "0x7f000001", "017700000001", "127.1",
     "localhost", "localhost.", "metadata", "metadata.google.internal", "224.0.0.1",
     "192.88.99.1", "[3fff::1]", "[5f00::1]", "[::127.0.0.1]", "[64:ff9b:1::1]"],
)  # fmt: skip
def test_row_55_the_inside_is_refused_at_creation(house: House, host: str) -> None:
    """With a code of its own; a change to it is refused, too."""
    client = house.client("webhooks", house.key())
    url = {"url": f"https://{host}/"}
    answer = client.post("/v1/webhooks", content=dumped(url))
    body = refused(answer, 422, answer.json()["code"])
    assert [e["field"] for e in body["errors"]] == ["url"]
    assert "webhook_address_refused" in {body["code"], body["errors"][0]["code"]}
    path = f"/v1/webhooks/{make(house, house.key())['id']}"
    assert client.request("PATCH", path, content=dumped(url)).status_code == 422


def test_row_56_a_name_that_resolves_inside_is_refused(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One such address among good ones is enough."""
    answers = {"good.example.com": ["1.1.1.1"], "bad.example.com": ["1.1.1.1", "10.0.0.1"]}
    monkeypatch.setattr(courier, "resolve", lambda host, _port: answers[host])
    client = house.client("webhooks", house.key())
    good = client.post("/v1/webhooks", content=b'{"url":"https://good.example.com/"}')
    assert good.status_code == 201
    bad = client.post("/v1/webhooks", content=b'{"url":"https://bad.example.com/"}')
    refused(bad, 422, "webhook_address_refused")


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "gopher://1.1.1.1/", "ftp://1.1.1.1/", "https://user:pass@1.1.1.1/",
     "https://1.1.1.1@10.0.0.1/", "https://1.1.1.1:22/", "https://1.1.1.1:6379/", "http://1.1.1.1/",
     "https://1.1.1.1/a\r\nHost: x", "https://1.1.1.1/\u200b", "", "//1.1.1.1/", "https:1.1.1.1"],
)  # fmt: skip
def test_row_58_only_plain_https_goes_out(house: House, url: str) -> None:
    """Schemes, users, ports: 422 that names the field."""
    client = house.client("webhooks", house.key())
    answer = client.post("/v1/webhooks", content=dumped({"url": url}))
    assert answer.status_code == 422, answer.text
    assert [e["field"] for e in answer.json()["errors"]] == ["url"]
    assert house.state.webhooks == {}


def test_an_operator_opens_a_range(make_house: Any) -> None:
    """That one, by http and on any port."""
    house: House = make_house(RDEV_WEBHOOK_ALLOW="127.0.0.0/8")
    assert make(house, house.key(), url="http://127.0.0.1:9000/x")
    client = house.client("webhooks", house.key())
    other = client.post("/v1/webhooks", content=b'{"url":"http://10.0.0.1:9000/"}')
    refused(other, 422, "webhook_address_refused")


def test_row_60_a_secret_is_shown_once_and_sealed(house: House) -> None:
    """In the answers that make one; neither listed, nor stored in the clear, nor replayed."""
    client = house.client("webhooks", house.key())
    content = dumped(HOOK | {"headers": {"Authorization": "Bearer canary"}})
    headers = {"idempotency-key": "a"}
    made = client.post("/v1/webhooks", content=content, headers=headers).json()
    again = client.post("/v1/webhooks", content=content, headers=headers)
    assert (again.json()["id"], again.json()["secret"]) == (made["id"], None)
    assert again.headers["idempotency-replayed"] == "true"
    path = f"/v1/webhooks/{made['id']}"
    rotated = client.post(f"{path}/rotate").json()["secret"]
    shown = client.get(path).text + client.get("/v1/webhooks").text
    assert '"headers":{"Authorization":null}' in shown
    for secret in (made["secret"], rotated):
        assert secret.startswith("whsec_")
        assert secret not in shown
    [row] = house.state.webhooks.values()
    assert [sealed.startswith(b"sealed:") for sealed, _ in row.secrets] == [True, True]
    assert row.sealed_headers == b'sealed:{"Authorization": "Bearer canary"}'
    assert "canary" not in shown + repr(house.state.audit)


@pytest.mark.parametrize(
    "headers",
    [{"X": "a\r\nY: b"}, {"X": "a\nb"}, {"X\r\nY": "a"}, {"X": "\u0000"}, {"X:": "a"},
     {"webhook-signature": "v1,x"}, {"Host": "x"}, {"X": "é"}],
    ids=repr,
)  # fmt: skip
def test_row_61_a_header_cannot_end_itself(house: House, headers: dict[str, str]) -> None:
    """CR, LF, NUL and the names we need are refused, and nothing is stored."""
    client = house.client("webhooks", house.key())
    answer = client.post("/v1/webhooks", content=dumped(HOOK | {"headers": headers}))
    assert answer.status_code in (400, 422)
    assert house.state.webhooks == {}


@pytest.mark.row(62, 63)
@pytest.mark.parametrize(
    "claim",
    [
        {"type": "ai.orchard9.rdev.command.succeeded.v1", "state": "succeeded"},
        {"type": "ai.orchard9.rdev.command.lost.v1", "state": "lost"},
    ],
    ids=lambda claim: str(claim["state"]),
)
def test_a_spoofed_event_changes_no_row(house: House, claim: dict[str, str]) -> None:
    """A completion that anybody claims changes no command and makes no delivery."""
    key = house.key()
    make(house, key)
    command = submitted(house, key).json()
    FanOut(house.app.delivery_queue, house.app.sender_bell)()
    before = repr((house.state.commands, house.state.deliveries, house.state.heard))
    data = {"id": command["id"], "project": "demo", "kind": "shell", "state": claim["state"]}
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "evt_" + "0" * 32,
        "ce-source": "/rdev",
        "ce-type": claim["type"],
        "ce-webhooks": "wanted",
        "content-type": "application/json",
    }
    for function in ("on_command_finished", "on_webhook_due"):
        house.app.__dict__["sender"] = fakes.FakeSenderBell()
        answer = house.client(function).post("/", content=dumped(data), headers=headers)
        assert (answer.status_code, answer.content) == (202, b"")
    assert repr((house.state.commands, house.state.deliveries, house.state.heard)) == before
    [row] = house.state.by_id()
    assert row.command.state is State.QUEUED


def test_a_full_payload_says_nothing_secret(house: House) -> None:
    """Script, environment and prompt stay here."""
    key = house.key()
    hook = make(house, key, payload="full")
    submitted(house, key, script="echo canary", env={"TOKEN": "canary"})
    FanOut(house.app.delivery_queue, house.app.sender_bell)()
    client = house.client("webhooks", key)
    [delivery] = client.get(f"/v1/webhooks/{hook['id']}/deliveries").json()["items"]
    shown = client.get(f"/v1/webhooks/{hook['id']}/deliveries/{delivery['id']}").json()
    assert "canary" not in shown["body"]
    assert json.loads(shown["body"])["data"]["labels"] == {}
    [row] = house.state.webhooks.values()
    assert row.endpoint.payload is Payload.FULL
