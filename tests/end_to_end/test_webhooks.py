"""Webhooks over HTTP: what happened arrives signed, is retried soon, and can be sent again."""

from __future__ import annotations

from typing import Any

import httpx
from standardwebhooks import Webhook

from tests.harness.receiver import Came, receiver
from tests.harness.running import Rdev, until


def make(rdev: Rdev, url: str, **body: Any) -> dict[str, Any]:
    """A webhook, made over the API."""
    with rdev.client() as client:
        answer = client.post("/v1/webhooks", json={"url": url, "projects": ["demo"]} | body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def deliveries(client: httpx.Client, webhook: dict[str, Any], **query: str) -> list[dict[str, Any]]:
    answer = client.get(f"/v1/webhooks/{webhook['id']}/deliveries", params=query)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def test_a_command_arrives_signed_and_a_failure_is_tried_again_soon(rdev: Rdev) -> None:
    """Each event once verified, the one that met a 500 again under its id, by the sender itself."""
    first: list[str] = []

    def answer(came: Came) -> tuple[int, dict[str, str], bytes]:
        first.append(came.id)
        return (500, {}, b"not today") if len(first) == 1 else (204, {}, b"")

    with receiver(answer) as hook, rdev.client() as client:
        webhook = make(rdev, hook.url, payload="full", headers={"X-Team": "blue"})
        assert webhook["headers"] == {"X-Team": None}
        command = rdev.submit(script="echo secret-output", labels={"team": "blue"})
        ended = rdev.ended(command["id"])
        hook.wait(lambda came: len({c.id for c in came}) == 3 and len(came) >= 4)
        for came in hook.came:
            told = Webhook(webhook["secret"]).verify(came.body, came.headers)
            assert told["data"]["id"] == command["id"]
            assert came.headers["x-team"] == "blue"
            assert b"secret-output" not in came.body
        [last] = {c.body for c in hook.came if c.json["type"] == "command.succeeded"}
        assert b'"labels":{"team":"blue"}' in last
        assert ended["finished_at"].encode() in last
        retried = until(
            "the log says so",
            lambda: [
                d for d in deliveries(client, webhook, state="delivered") if d["attempts"][1:]
            ],
        )
        [delivery] = retried
        assert delivery["event_id"] == first[0]
        assert [a["status"] for a in delivery["attempts"]] == [500, 204]
        path = f"/v1/webhooks/{webhook['id']}/deliveries/{delivery['id']}"
        shown = client.get(path).json()
        assert shown["attempts"][0]["response"] == {"text": "not today"}
        count = len(hook.came)
        assert client.post(f"{path}/redeliver").status_code == 202
        hook.wait(lambda came: len(came) > count)
        assert hook.came[-1].id == delivery["event_id"]
        assert hook.came[-1].body == shown["body"].encode()
        assert client.delete(f"/v1/webhooks/{webhook['id']}").status_code == 204


def test_what_a_disabled_webhook_missed_can_be_recovered(rdev: Rdev) -> None:
    """410 disables at once; enabled again, a range brings what happened meanwhile."""
    status = [410]
    with receiver(lambda _: (status[0], {}, b"")) as hook, rdev.client() as client:
        webhook = make(rdev, hook.url, event_types=["command.succeeded"])
        path = f"/v1/webhooks/{webhook['id']}"
        rdev.ended(rdev.submit(script="true")["id"])
        until("it is disabled", lambda: client.get(path).json()["disabled_reason"] == "gone")
        assert client.post(f"{path}/ping").status_code == 409
        missed = rdev.submit(script="true")
        rdev.ended(missed["id"])
        status[0] = 200
        assert client.patch(path, json={"enabled": True}).json()["enabled"] is True
        recovered = client.post(f"{path}/recover", json={"since": webhook["created_at"]})
        assert recovered.status_code == 202
        assert recovered.json()["deliveries"] >= 1
        hook.wait(lambda came: missed["id"] in {c.json["data"]["id"] for c in came})
        assert client.post(f"{path}/ping").status_code == 202
        hook.wait(lambda came: came[-1].json["type"] == "webhook.ping")
        assert client.delete(path).status_code == 204
