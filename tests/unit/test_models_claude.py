"""common/entrypoints/models/claude.py: which options of claude a command may carry."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from common.domain.errors import InvalidField
from common.entrypoints import strict_json
from common.entrypoints.models.commands import CreateCommand, RetryBody

COMMAND: TypeAdapter[Any] = TypeAdapter(CreateCommand)
OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def made(**options: Any) -> Any:
    body = {"project": "demo", "kind": "claude", "prompt": "x", "options": options}
    return strict_json.model(COMMAND, json.dumps(body).encode()).command("demo")


def refused(**options: Any) -> tuple[str, str]:
    with pytest.raises(InvalidField) as caught:
        made(**options)
    return caught.value.errors[0].field, caught.value.errors[0].message


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"not": schema}
    return schema


def test_every_option_arrives() -> None:
    """As it was sent, and nothing beside it."""
    options = {
        "model": "opus",
        "fallback_model": "sonnet,haiku",
        "effort": "xhigh",
        "permission_mode": "dontAsk",
        "allowed_tools": ["Read", "Bash(git:*)"],
        "disallowed_tools": ["WebFetch"],
        "append_system_prompt": "- be short",
        "max_turns": 3,
        "max_budget_usd": 0.5,
        "partial_messages": True,
        "json_schema": OBJECT,
        "require_mcp": True,
    }
    assert made(**options).spec["options"] == options


def test_secrets_of_servers_are_no_part_of_what_is_shown() -> None:
    """They are kept apart from the command from the first moment on."""
    servers = {
        "files": {"command": "mcp-files", "env": {"TOKEN": "s3cret"}},
        "hub": {"type": "sse", "url": "https://hub.example/x?y=1", "headers": {"X-Key": "s3cret"}},
    }
    new = made(mcp_servers=servers)
    shown = new.spec["options"]["mcp_servers"]
    assert shown["files"] == {
        "type": "stdio",
        "command": "mcp-files",
        "args": [],
        "env": {"TOKEN": None},
    }
    assert new.mcp_secrets == {"files": {"TOKEN": "s3cret"}, "hub": {"X-Key": "s3cret"}}
    assert "s3cret" not in repr(new.spec)


WRONG: list[tuple[str, Any, str]] = [
    ("effort", "bogus", ""),  # claude would warn on stderr and go on without it
    ("max_turns", 0, ""),
    ("max_turns", "3", ""),  # claude takes any text here, silently
    ("max_turns", True, ""),
    ("max_budget_usd", 0, ""),
    ("max_budget_usd", -1, ""),
    ("permission_mode", "yolo", ""),
    ("model", "--settings", ""),
    ("fallback_model", "a,,b", ""),
    ("allowed_tools", ["Bash(a,b)"], ""),
    ("append_system_prompt", "", ""),
    ("append_system_prompt", "é" * 70_000, "bytes"),
    ("json_schema", {"type": "nonsense"}, "see type"),
    ("json_schema", {"properties": {"a": {"minimum": "x"}}}, "see properties/a/minimum"),
    ("json_schema", {"$schema": "https://json-schema.org/draft/2020-12/schema"}, "draft-07"),
    ("json_schema", {"properties": {"a": {"$ref": "http://127.0.0.1/x"}}}, "$ref"),
    ("json_schema", {"anyOf": [{"$ref": "other.json"}]}, "$ref"),
    ("json_schema", {"description": "x" * 70_000}, "bytes"),
    ("json_schema", nested(40), "levels"),
    ("json_schema", [], ""),
]


@pytest.mark.parametrize(("option", "value", "says"), WRONG)
def test_what_claude_would_refuse_or_ignore_is_refused(option: str, value: Any, says: str) -> None:
    """Before it queues, with the field."""
    field, message = refused(**{option: value})
    assert field.removesuffix("[0]") == f"options.{option}"
    assert says in message


@pytest.mark.parametrize("schema", [OBJECT, {}, nested(20), {"$ref": "#/definitions/a"}])
def test_a_schema_of_draft_7_is_taken(schema: dict[str, Any]) -> None:
    """Whatever it asks for."""
    assert made(json_schema=schema).spec["options"]["json_schema"] == schema


WRONG_SERVERS: list[tuple[str, Any, str]] = [
    ("a b", {"command": "x"}, "a b"),
    ("computer-use", {"command": "x"}, "computer-use"),
    ("a", {}, "a.command"),
    ("a", {"command": "x", "url": "http://x"}, "a.url"),
    ("a", {"type": "ws", "url": "ws://x"}, "a"),
    ("a", {"type": 7}, "a"),
    ("a", "x", "a"),
    ("a", {"type": "http"}, "a.url"),
    ("a", {"type": "http", "url": "file:///etc/passwd"}, "a.url"),
    ("a", {"type": "http", "url": "https://u:p@hub.example"}, "a.url"),
    ("a", {"type": "http", "url": "https://"}, "a.url"),
    ("a", {"type": "http", "url": "https://[x"}, "a.url"),
    ("a", {"type": "sse", "url": "https://x", "headers": {"A b": "x"}}, "a.headers"),
    ("a", {"type": "sse", "url": "https://x", "headers": {"A": "x\r\nB: y"}}, "a.headers"),
    ("a", {"command": "x", "env": {"A=B": "x"}}, "a.env"),
    ("a", {"command": "x", "env": {"A": "s3cret" * 6000}}, "a.env"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "server", "field"), WRONG_SERVERS)
def test_a_server_that_is_none_is_refused(name: str, server: Any, field: str) -> None:
    """By its place, and without a word of what is secret."""
    found, message = refused(mcp_servers={name: server})
    assert found.removesuffix(".[key]") == f"options.mcp_servers.{field}"
    assert "s3cret" not in message
    assert "u:p" not in message


def test_there_are_not_more_servers_than_one_can_oversee() -> None:
    """32."""
    field, _ = refused(mcp_servers={f"s{n}": {"command": "x"} for n in range(33)})
    assert field == "options.mcp_servers"


def test_a_retry_brings_the_secrets_of_servers() -> None:
    """Variables or headers, by server."""
    body = {"mcp_servers": {"a": {"env": {"T": "1"}}, "b": {"headers": {"X": "2"}}}}
    again = strict_json.model(TypeAdapter(RetryBody), json.dumps(body).encode())
    assert again.mcp_secrets() == {"a": {"T": "1"}, "b": {"X": "2"}}
