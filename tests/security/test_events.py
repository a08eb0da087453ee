"""Events from strangers (rows 18, 45, 62 and 63): what they say is never what rdev knows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from common.domain.command import State
from common.domain.triggers import COMMAND_REQUESTED
from common.services.receive_github import signature_of
from tests.security.conftest import House

STRUCTURED = {"content-type": "application/cloudevents+json"}
FROM_DATA = {"from": "data", "projects": ["demo"], "kinds": ["shell"]}
SHELL = {"project": "demo", "kind": "shell", "script": "true"}


def event(type_: str, data: Any, **more: Any) -> bytes:
    plain = {"specversion": "1.0", "id": "1", "source": "/evil", "type": type_, "data": data}
    return json.dumps(plain | more).encode()


def trigger(house: House, **more: Any) -> dict[str, Any]:
    body = {"name": "t", "command": FROM_DATA} | more
    answer = house.client("triggers", house.key()).post(
        "/v1/triggers", content=json.dumps(body).encode()
    )
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def submitted(house: House) -> Any:
    answer = house.client("commands", house.key()).post(
        "/v1/commands", content=json.dumps(SHELL).encode()
    )
    [row] = house.state.by_id()
    assert answer.status_code == 202
    return row


# -- row 18: a batch with one foreign item ---------------------------------------------------------


@pytest.mark.row(18)
@pytest.mark.parametrize("foreign", ["other", "nowhere"])
def test_a_batch_with_one_foreign_event_is_refused_whole(house: House, foreign: str) -> None:
    """Nothing of it runs, and another's project reads like one that never was."""
    trigger(house, command=FROM_DATA | {"projects": ["demo", "other"]})
    sender = house.client("events", house.key("events:write", projects={"demo"}))
    batch = [json.loads(event(COMMAND_REQUESTED, SHELL, id=str(n))) for n in range(3)]
    batch[1]["data"] = SHELL | {"project": foreign}
    kind = {"content-type": "application/cloudevents-batch+json"}
    answer = sender.post("/v1/events", content=json.dumps(batch).encode(), headers=kind)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert answer.json()["detail"] == f"event 1: there is no project '{foreign}'"
    assert (house.state.commands, house.state.seen, house.state.dead_letters) == ({}, {}, {})


# -- row 45: shell metacharacters ------------------------------------------------------------------


@pytest.mark.row(45)
def test_a_value_from_an_event_is_one_argument(house: House) -> None:
    """It reaches the command as it was sent, in quotes of ours where a shell reads it."""
    evil = "'; touch canary; $(touch canary) `touch canary` \n touch canary #"
    command = {"project": "demo", "kind": "shell", "script": "echo {{ data.x }}"}
    trigger(house, command=command, filter={"exact": {"type": "t"}})
    sender = house.client("events", house.key("events:write"))
    sender.post("/v1/events", content=event("t", {"x": evil}), headers=STRUCTURED)
    [row] = house.state.by_id()
    assert row.command.spec["script"] == "echo '" + evil.replace("'", "'\\''") + "'"


# -- rows 62 and 63: events of strangers -----------------------------------------------------------

OWN_TYPES = [
    f"ai.orchard9.rdev.command.{what}.v1"
    for what in ("queued", "started", "succeeded", "failed", "cancelled", "timed_out", "lost")
]
DOORBELLS = ["on_command_requested", "on_dead_letter"]


@pytest.mark.row(62)
@pytest.mark.parametrize("type_", [*OWN_TYPES, COMMAND_REQUESTED, "x"])
@pytest.mark.parametrize("function", DOORBELLS)
def test_a_strangers_event_at_a_private_function_starts_nothing(
    house: House, function: str, type_: str
) -> None:
    """Whatever it says to be, and from whom: without a trigger that takes it, it is a record."""
    trigger(house, accept=["http", "github"])
    private = house.client(function)
    for source in ("/evil", "/rdev", "https://github.com"):
        body = event(type_, SHELL, source=source)
        answer = private.post("/", content=body, headers=STRUCTURED)
        assert (answer.status_code, answer.content) == (202, b"")
    assert house.state.commands == {}


@pytest.mark.row(62)
def test_a_stranger_gets_only_what_anyone_in_the_cluster_may_start(house: House) -> None:
    """A trigger for the broker has one project and one owner; the event chooses neither."""
    made = trigger(house, accept=["broker"])
    private = house.client("on_command_requested")
    wishes: list[dict[str, Any]] = [
        {"project": "other"}, {"kind": "claude", "prompt": "x"}, {"key_id": "key_1"},
        {"state": "succeeded"}, {"env": {"LD_PRELOAD": "x"}}, {"priority": "root"},
    ]  # fmt: skip
    for number, wish in enumerate(wishes):
        body = event(COMMAND_REQUESTED, SHELL | wish, id=f"bad{number}")
        assert private.post("/", content=body, headers=STRUCTURED).status_code == 202
    assert house.state.commands == {}
    assert len(house.state.dead_letters) == len(wishes)
    private.post("/", content=event(COMMAND_REQUESTED, SHELL), headers=STRUCTURED)
    [row] = house.state.by_id()
    assert f"key_{row.command.key_id.hex}" == made["key_id"]


@pytest.mark.row(62)
def test_a_delivery_signed_for_another_trigger_is_refused(house: House) -> None:
    """Each has a secret of its own."""
    command = {"project": "demo", "kind": "shell", "script": "true"}
    one, two = (trigger(house, command=command, filter={"prefix": {"type": "com."}}) for _ in "12")
    body = b'{"ref":"x"}'
    headers = {
        "x-github-event": "push", "x-github-delivery": "1", "content-type": "application/json",
        "x-hub-signature-256": signature_of(one["secret"].encode(), body),
    }  # fmt: skip
    github = house.client("events")
    assert github.post(two["links"]["github"], content=body, headers=headers).status_code == 401
    assert github.post(one["links"]["github"], content=body, headers=headers).status_code == 202
    assert len(house.state.commands) == 1


@pytest.mark.row(63)
@pytest.mark.parametrize("function", DOORBELLS)
@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled", "lost"])
def test_a_forged_end_ends_nothing(house: House, function: str, state: str) -> None:
    """The row says what a command is; an event only says look."""
    row = submitted(house)
    before = (row.command, list(row.events), dict(house.state.outbox))
    told = {"id": f"cmd_{row.command.id.hex}", "project": "demo", "kind": "shell", "state": state}
    body = event(f"ai.orchard9.rdev.command.{state}.v1", told, source="/rdev")
    assert house.client(function).post("/", content=body, headers=STRUCTURED).status_code == 202
    assert (row.command, list(row.events), dict(house.state.outbox)) == before
    assert row.command.state is State.QUEUED
