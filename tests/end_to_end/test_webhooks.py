"""Webhooks over HTTP: what happened arrives signed, is retried soon, and can be sent again."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from rdev.main import main
from tests.harness.receiver import Came, receiver
from tests.harness.running import ROOT, Rdev, until

Captured = pytest.CaptureFixture[str]


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


def test_the_guides_receiver_takes_what_is_sent(rdev: Rdev, tmp_path: Path) -> None:
    """As it stands on the page: it prints each event once, and refuses what is forged."""
    page = (ROOT / "docs/guides/webhooks.md").read_text("utf-8")
    [code] = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    webhook = make(rdev, url, event_types=["command.succeeded"])
    told = tmp_path / "told"
    with told.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | {"WEBHOOK_SECRET": webhook["secret"], "PORT": str(port)},
            stdout=out,
            stderr=subprocess.DEVNULL,
        )
    try:
        until("it listens", lambda: _asked(url) == 400)
        command = rdev.submit(script="true")
        until("it was told", lambda: command["id"] in told.read_text())
        assert told.read_text() == f"command.succeeded {command['id']}\n"
        with rdev.client() as client:
            until("it is delivered", lambda: deliveries(client, webhook, state="delivered"))
            client.delete(f"/v1/webhooks/{webhook['id']}")
    finally:
        process.kill()
        process.wait()


def _asked(url: str) -> int | None:
    """What a receiver says to a forged request."""
    forged = {"webhook-id": "evt_1", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"}
    try:
        return httpx.post(url, headers=forged, content=b"{}", trust_env=False).status_code
    except httpx.TransportError:
        return None


class Cli:
    """`rdev` in this process, against a running rdev."""

    def __init__(self, rdev: Rdev, monkeypatch: pytest.MonkeyPatch, captured: Captured) -> None:
        monkeypatch.setenv("RDEV_URL", rdev.url)
        monkeypatch.setenv("RDEV_API_KEY", rdev.key)
        self._captured = captured

    def __call__(self, *argv: str, code: int = 0) -> str:
        """What it prints; its errors when it is to fail."""
        said = main(["webhooks", *argv])
        out, err = self._captured.readouterr()
        assert said == code, out + err
        return out if code == 0 else out + err


def test_the_command_line_does_all_of_it(
    rdev: Rdev, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    """From create to rm; ids by their beginning."""
    status = [200]
    cli = Cli(rdev, monkeypatch, capfd)
    monkeypatch.setenv("X-Token", "hidden")
    with receiver(lambda _: (status[0], {}, b"said")) as hook:
        args = ("--event", "command.succeeded", "--project", "demo", "--header", "X-Token")
        secret = cli("create", hook.url, *args).strip()
        assert secret.startswith("whsec_")
        [id_] = [
            i["id"] for i in json.loads(cli("ls", "-o", "json"))["items"] if i["url"] == hook.url
        ]
        assert id_ in cli("ls", "-q").split()
        assert hook.url in cli("ls")
        assert "X-Token" in cli("show", id_[:20])
        assert "hidden" not in cli("show", id_, "-o", "json")
        assert "200" in cli("ping", id_)
        assert hook.came[-1].headers["x-token"] == "hidden"
        command = rdev.submit(script="true")
        hook.wait(lambda came: command["id"] in {c.json["data"]["id"] for c in came})
        until(
            "the log has it",
            lambda: "command.succeeded" in cli("deliveries", id_, "--state", "delivered"),
        )
        listed = cli(
            "deliveries", id_, "-o", "jsonl", "--event", "command.succeeded", "--since", "1h"
        )
        [delivery] = [json.loads(line)["id"] for line in listed.splitlines()]
        assert "said" in cli("deliveries", id_, delivery)
        count = len(hook.came)
        assert "delivered" in cli("redeliver", id_, delivery)
        assert len(hook.came) == count + 1
        status[0] = 500
        assert "500" in cli("redeliver", id_, delivery, code=1)
        status[0] = 200
        told = cli("recover", id_, "--since", "1h", "--include-delivered")
        assert re.fullmatch(r"\d+ deliver(y|ies) on the way\n", told)
        assert cli("rotate", id_, "--grace", "1h").startswith("whsec_")
        shown = cli("update", id_, "--all-events", "--payload", "full", "--no-headers", "--disable")
        assert "disabled (user)" in shown
        assert "enable it first" in cli("ping", id_, code=64)
        assert "nothing to change" in cli("update", id_, code=64)
        assert "one thing or the other" in cli("update", id_, "--enable", "--disable", code=64)
        assert "no moment" in cli("recover", id_, "--since", "yesterday", code=64)
        assert "enabled" in cli("update", id_, "--enable", "--project", "demo")
        assert cli("rm", id_) == f"{id_} deleted\n"
        assert "there is no" in cli("show", id_, code=64)
