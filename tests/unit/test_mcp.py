"""common/domain/mcp.py: what is shown of MCP servers, and what is secret."""

from __future__ import annotations

import json
from typing import Any

import pytest

from common.domain import mcp

SERVERS: dict[str, dict[str, Any]] = {
    "files": {
        "type": "stdio",
        "command": "mcp-files",
        "args": ["/data"],
        "env": {"TOKEN": "s3cret"},
    },
    "hub": {"type": "http", "url": "https://hub.example", "headers": {"Authorization": "Bearer x"}},
    "open": {"type": "sse", "url": "https://open.example", "headers": {}},
}
SECRETS = {"files": {"TOKEN": "s3cret"}, "hub": {"Authorization": "Bearer x"}}


def test_secret_values_are_shown_as_null() -> None:
    """Their names stay, so that a reader knows what a retry needs."""
    shown = mcp.shown(SERVERS)
    assert shown["files"]["env"] == {"TOKEN": None}
    assert shown["hub"] == SERVERS["hub"] | {"headers": {"Authorization": None}}
    assert shown["open"] == SERVERS["open"]
    assert "s3cret" not in json.dumps(shown)


def test_shown_and_secret_make_the_configuration_again() -> None:
    """What claude reads is what the caller sent."""
    assert mcp.secrets(SERVERS) == SECRETS
    assert json.loads(mcp.config(mcp.shown(SERVERS), SECRETS)) == {"mcpServers": SERVERS}


def test_a_value_that_is_not_there_is_named() -> None:
    """By its server and its name."""
    shown = mcp.shown(SERVERS)
    assert mcp.missing(shown, {"files": {"TOKEN": "x"}}) == ["hub.Authorization"]
    assert mcp.missing(shown, SECRETS) == []
    with pytest.raises(ValueError, match=r"hub\.Authorization"):
        mcp.config(shown, {"files": {"TOKEN": "x"}})


INIT = {
    "mcp_servers": [{"name": "files", "status": "connected"}, {"name": "hub", "status": "failed"}]
}


@pytest.mark.parametrize(
    ("wanted", "init", "expected"),
    [
        ({"files": {}}, INIT, []),
        ({"files": {}, "hub": {}}, INIT, ["hub (failed)"]),
        ({"open": {}}, INIT, ["open (absent)"]),
        (None, INIT, ["hub (failed)"]),
        (None, {"mcp_servers": [{"name": "a", "status": "disabled"}]}, []),
        (None, {"mcp_servers": [{"name": "a", "status": "pending"}]}, ["a (pending)"]),
        (None, {"mcp_servers": []}, []),
        ({"files": {}}, {"mcp_servers": "odd"}, ["files (absent)"]),
        ({"files": {}}, None, ["files (absent)"]),
    ],
)
def test_required_servers_must_be_connected(
    wanted: dict[str, Any] | None, init: dict[str, Any] | None, expected: list[str]
) -> None:
    """Those of the command, or all that the workspace has; only when it asks for them."""
    options = {"mcp_servers": wanted} if wanted else {}
    assert mcp.unconnected(options | {"require_mcp": True}, init) == expected
    assert mcp.unconnected(options, init) == []


@pytest.mark.parametrize("env", [{}, {"A": "1"}])
@pytest.mark.parametrize("secrets", [{}, SECRETS])
def test_what_is_packed_is_unpacked(env: dict[str, str], secrets: mcp.Secrets) -> None:
    """Nothing at all packs into nothing, which needs no seal."""
    packed = mcp.pack(env, secrets)
    assert mcp.unpack(packed) == (env, secrets)
    assert bool(packed) == bool(env or secrets)


def test_what_an_earlier_release_sealed_is_read() -> None:
    """It sealed the environment alone."""
    assert mcp.unpack(b'{"TOKEN":"x"}') == ({"TOKEN": "x"}, {})
