"""common/entrypoints/models/triggers.py: what a trigger may say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from common.domain.errors import InvalidField
from common.domain.keys import RateLimit
from common.domain.triggers import COMMAND_REQUESTED
from common.entrypoints import strict_json
from common.entrypoints.models.triggers import CreateTrigger, UpdateTrigger

SHELL = {"project": "demo", "kind": "shell", "script": "echo {{ data.x }}"}
BODY: dict[str, Any] = {"name": "x", "filter": {"exact": {"type": "t"}}, "command": SHELL}
CREATE, UPDATE = TypeAdapter(CreateTrigger), TypeAdapter(UpdateTrigger)


def create(**changes: Any) -> Any:
    body = {k: v for k, v in (BODY | changes).items() if v is not ...}
    return strict_json.model(CREATE, json.dumps(body).encode()).trigger()


def test_a_trigger_is_what_the_body_says() -> None:
    """With http and github, 60 an hour, and enabled, when it says nothing else."""
    made, secrets = create()
    assert (made.name, made.filter) == ("x", BODY["filter"])
    assert made.command == SHELL | {"env": {}}
    assert made.accept == {"http", "github"}
    assert (made.rate_limit, made.enabled, secrets) == (RateLimit(60, 3600), True, {})
    other, _ = create(
        accept=["broker", "broker"], enabled=False, rate_limit={"limit": 1, "window_s": 2}
    )
    assert (other.accept, other.enabled) == ({"broker"}, False)
    assert other.rate_limit == RateLimit(1, 2)


def test_secret_parts_are_taken_out_of_the_command() -> None:
    """Values of the environment and of MCP servers; their names stay, each with null."""
    made, secrets = create(command=SHELL | {"env": {"TOKEN": "s3cret"}})
    assert made.command["env"] == {"TOKEN": None}
    assert secrets == {"env": {"TOKEN": "s3cret"}}
    server = {"command": "x", "args": [], "env": {"KEY": "s3cret"}}
    options = {"mcp_servers": {"s": server}, "max_turns": 3}
    claude = {"project": "demo", "kind": "claude", "prompt": "Fix it", "options": options}
    made, secrets = create(command=claude)
    assert "s3cret" not in repr(made)
    assert made.command["options"]["max_turns"] == 3
    assert made.command["options"]["mcp_servers"]["s"]["env"] == {"KEY": None}
    assert secrets == {"mcp_servers": {"s": server}}


def test_a_request_is_what_a_command_from_data_waits_for() -> None:
    """Unless the filter says otherwise."""
    from_data = {"from": "data", "projects": ["b", "a", "a"], "kinds": ["git"]}
    made, _ = create(command=from_data, filter=...)
    assert made.filter == {"exact": {"type": COMMAND_REQUESTED}}
    assert made.command == {"from": "data", "projects": ["a", "b"], "kinds": ["git"]}
    made, _ = create(command=from_data)
    assert made.filter == BODY["filter"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"filter": ...}, "filter"),
        ({"filter": {"sql": "x"}}, "filter"),
        ({"command": SHELL | {"script": "echo '{{ data.x }}'"}}, "command.script"),
        ({"command": SHELL | {"script": "{{ data.x | upper }}"}}, "command.script"),
        ({"command": SHELL | {"run_at": "2030-01-01T00:00:00Z"}}, "command.run_at"),
        ({"command": SHELL | {"lease_token": 1}}, "command.lease_token"),
        ({"command": SHELL | {"env": {"PATH": "x"}}}, "command.env"),
        ({"command": SHELL | {"env": 7}}, "command.env"),
        ({"command": SHELL | {"project": "A B"}}, "command.project"),
        ({"command": {"kind": "shell", "script": "x"}}, "command.project"),
        ({"command": {"project": "demo", "kind": "git", "args": ["push", "--exec=x"]}},
         "command.args"),
        ({"command": {"from": "data"}}, "command.projects"),
        ({"command": {"from": "data", "projects": [], "kinds": ["git"]}}, "command.projects"),
        ({"command": {"from": "data", "projects": ["a"], "kinds": ["x"]}}, "command.kinds[0]"),
        ({"command": {"from": "x", "projects": ["a"], "kinds": ["git"]}}, "command.from"),
        ({"command": {"from": "data", "projects": ["a"], "kinds": ["git"], "script": "x"}},
         "command.script"),
    ],
)  # fmt: skip
def test_what_no_trigger_can_say_is_named(changes: dict[str, Any], field: str) -> None:
    """422 trigger_invalid, with the field in the body."""
    with pytest.raises(InvalidField) as caught:
        create(**changes)
    assert caught.value.code == "trigger_invalid"
    assert field in [e.field for e in caught.value.errors]


@pytest.mark.parametrize(
    "changes",
    [
        {"accept": []}, {"accept": ["x"]}, {"name": ""}, {"command": []}, {"filter": []},
        {"rate_limit": {"limit": 0, "window_s": 1}}, {"key_id": "x"}, {"secret": "x"},
        {"enabled": "yes"},
    ],
    ids=repr,
)  # fmt: skip
def test_other_fields_are_as_strict_as_everywhere(changes: dict[str, Any]) -> None:
    """Nobody sets an owner or a secret."""
    with pytest.raises(InvalidField):
        create(**changes)


def update(**changes: Any) -> Any:
    return strict_json.model(UPDATE, json.dumps(changes).encode()).changes()


def test_a_change_has_what_was_given() -> None:
    """And nothing else; secret parts come with a command only."""
    assert update() == ({}, {})
    assert update(enabled=False) == ({"enabled": False}, {})
    changes, secrets = update(command=SHELL | {"env": {"A": "b"}}, accept=["broker"])
    assert changes == {"command": SHELL | {"env": {"A": None}}, "accept": ["broker"]}
    assert secrets == {"env": {"A": "b"}}
    limit = {"limit": 1, "window_s": 2}
    assert update(name="n", rate_limit=limit) == ({"name": "n", "rate_limit": limit}, {})


@pytest.mark.parametrize(
    "changes",
    [{"filter": {}}, {"command": {}}, {"filter": {"x": 1}}, {"accept": []}, {"name": None}],
    ids=repr,
)
def test_a_change_is_as_strict_as_a_creation(changes: dict[str, Any]) -> None:
    """What could not be created cannot be changed to."""
    with pytest.raises(InvalidField):
        update(**changes)
