"""The journey of an event: from whoever sends it, through a trigger, to a command that has run."""

from __future__ import annotations

import json
from typing import Any

import httpx
from cloudevents.conversion import to_binary
from cloudevents.http import CloudEvent

from common.services.receive_github import signature_of
from tests.harness.running import Rdev, until

REQUESTED = "ai.orchard9.rdev.command.requested.v1"


def make_trigger(rdev: Rdev, command: dict[str, Any], **more: Any) -> dict[str, Any]:
    body = {"name": "journey", "command": {"project": "demo"} | command} | more
    with rdev.client() as client:
        answer = client.post("/v1/triggers", json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def binary(event: CloudEvent) -> tuple[dict[str, str], bytes]:
    """As the SDK sends it; it leaves the content type to its callers."""
    headers, body = to_binary(event, data_marshaller=lambda data: json.dumps(data).encode())
    return {**headers, "content-type": "application/json"}, body


def test_an_event_runs_a_command_with_its_data(rdev: Rdev) -> None:
    """Sent twice with the CloudEvents SDK and a key for events only, it runs once."""
    made = make_trigger(
        rdev,
        {
            "kind": "shell",
            "script": "printf '%s|' {{ data.ref }} {{ source }} \"$SECRET\"",
            "env": {"SECRET": "{{ data.ref }}!"},
        },
        filter={"exact": {"type": "com.example.pushed"}},
    )
    with rdev.client() as client:
        wanted = {"name": "sender", "scopes": ["events:write"]}
        key = client.post("/v1/keys", json=wanted).json()["key"]
    event = CloudEvent({"type": "com.example.pushed", "source": "/ci"}, {"ref": "it's $(id)"})
    headers, body = binary(event)
    with rdev.client(key) as client:
        answers = [client.post("/v1/events", headers=headers, content=body) for _ in range(2)]
    assert [a.status_code for a in answers] == [202, 202], answers[0].text
    first, second = (a.json()["events"][0] for a in answers)
    assert (first["outcome"], second["outcome"]) == ("submitted", "duplicate")
    command = first["triggers"][0]["command_id"]
    assert second["triggers"][0]["command_id"] == command
    assert rdev.ended(command)["labels"] == {"rdev/trigger": made["id"]}
    assert rdev.output_of(command) == b"it's $(id)|/ci|it's $(id)!|"


def test_a_push_at_github_runs_a_command(rdev: Rdev) -> None:
    """Signed with the secret of the creation; delivered again, it runs once; forged, never."""
    made = make_trigger(
        rdev,
        {"kind": "shell", "argv": ["echo", "{{ data.after }}"]},
        filter={"prefix": {"source": "https://github.com/acme/"}},
    )
    push = {
        "ref": "refs/heads/main",
        "after": "7f0d1",
        "repository": {"html_url": "https://github.com/acme/site"},
    }
    body = json.dumps(push).encode()
    headers = {
        "content-type": "application/json",
        "x-github-event": "push",
        "x-github-delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "x-hub-signature-256": signature_of(made["secret"].encode(), body),
    }
    with httpx.Client(base_url=rdev.url, timeout=60, trust_env=False) as github:
        first, again, forged = (
            github.post(made["links"]["github"], content=content, headers=headers)
            for content in (body, body, body.replace(b"7f0d1", b"00000"))
        )
    assert forged.status_code == 401
    results = [answer.json()["events"][0] for answer in (first, again)]
    assert [result["outcome"] for result in results] == ["submitted", "duplicate"]
    command = results[0]["triggers"][0]["command_id"]
    rdev.ended(command)
    assert rdev.output_of(command) == b"7f0d1\n"


def commands_of(rdev: Rdev, trigger: dict[str, Any]) -> list[str]:
    with rdev.client() as client:
        asked = {"label": f"rdev/trigger={trigger['id']}", "limit": "200"}
        return [c["id"] for c in client.get("/v1/commands", params=asked).json()["items"]]


def test_the_broker_starts_only_what_a_trigger_allows_and_once(rdev: Rdev) -> None:
    """Ten events, each six times and in disorder, with poison between them: ten commands."""
    made = _requests(rdev)
    wanted = {"project": "demo", "kind": "shell", "script": "true"}
    events = [
        binary(CloudEvent({"type": REQUESTED, "source": "/outside", "id": str(n)}, wanted))
        for n in range(10)
    ]
    foreign = binary(
        CloudEvent({"type": REQUESTED, "source": "/outside", "id": "x"}, wanted | {"kind": "git"})
    )
    poison = (foreign[0] | {"ce-id": "poison"}, b"not json")
    order = [*events, poison, *events[::-1], foreign] * 3
    with httpx.Client(timeout=60, trust_env=False) as client:
        for headers, body in order:
            answer = client.post(f"{rdev.internal_url}/broker", headers=headers, content=body)
            assert answer.status_code == 202
    made_commands = until(
        "ten commands", lambda: len(found := commands_of(rdev, made)) == 10 and found
    )
    for command in made_commands:
        assert rdev.ended(command)["state"] == "succeeded"
    with rdev.client() as client:
        letters = client.get("/v1/events/dead-letters?source=/outside").json()["items"]
        assert sorted(x["reason"] for x in letters) == ["no_trigger", "unreadable"]
        assert 'rdev_dead_letters{reason="unreadable"} 1' in client.get("/metrics").text
    assert len(commands_of(rdev, made)) == 10


def _requests(rdev: Rdev) -> dict[str, Any]:
    command = {"from": "data", "projects": ["demo"], "kinds": ["shell"]}
    body = {"name": "requests", "command": command, "accept": ["broker"]}
    with rdev.client() as client:
        made: dict[str, Any] = client.post("/v1/triggers", json=body).json()
    return made
