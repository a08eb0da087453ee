"""The journey of an event: from whoever sends it, through a trigger, to a command that has run."""

from __future__ import annotations

import json
from typing import Any

from cloudevents.conversion import to_binary
from cloudevents.http import CloudEvent

from tests.harness.running import Rdev

REQUESTED = "ai.orchard9.rdev.command.requested.v1"


def make_trigger(rdev: Rdev, command: dict[str, Any], **more: Any) -> dict[str, Any]:
    body = {"name": "journey", "command": {"project": "demo"} | command} | more
    with rdev.client() as client:
        answer = client.post("/v1/triggers", json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def test_an_event_runs_a_command_with_its_data(rdev: Rdev) -> None:
    """Sent twice with the CloudEvents SDK and a key for events only, it runs once."""
    made = make_trigger(
        rdev,
        {"kind": "shell", "script": "printf '%s|' {{ data.ref }} {{ source }}"},
        filter={"exact": {"type": "com.example.pushed"}},
    )
    with rdev.client() as client:
        wanted = {"name": "sender", "scopes": ["events:write"]}
        key = client.post("/v1/keys", json=wanted).json()["key"]
    event = CloudEvent({"type": "com.example.pushed", "source": "/ci"}, {"ref": "it's $(id)"})
    headers, body = to_binary(event, data_marshaller=lambda data: json.dumps(data).encode())
    headers["content-type"] = "application/json"
    with rdev.client(key) as client:
        answers = [client.post("/v1/events", headers=headers, content=body) for _ in range(2)]
    assert [a.status_code for a in answers] == [202, 202], answers[0].text
    first, second = (a.json()["events"][0] for a in answers)
    assert (first["outcome"], second["outcome"]) == ("submitted", "duplicate")
    command = first["triggers"][0]["command_id"]
    assert second["triggers"][0]["command_id"] == command
    assert rdev.ended(command)["labels"] == {"rdev/trigger": made["id"]}
    assert rdev.output_of(command) == b"it's $(id)|/ci|"
