"""MCP servers of a claude command: what is shown of them, and what is secret.

A server's `env` (stdio) or `headers` (http, sse) hold its credentials. Their values are kept apart,
sealed until the command ends; wherever the command is shown, each of them is null.
"""

from __future__ import annotations

import json
from typing import Any, Final

Secrets = dict[str, dict[str, str]]  # server → name of the variable or header → value

# No variable can have this name, so it can travel among those that callers set: a runner of an
# earlier release then refuses the command instead of running it without its servers.
_CARRIER: Final = "mcp:secrets"
_HOLDERS: Final = ("env", "headers")


def shown(servers: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The servers with null in place of every secret value."""
    return {
        name: {
            field: dict.fromkeys(value) if field in _HOLDERS else value
            for field, value in server.items()
        }
        for name, server in servers.items()
    }


def secrets(servers: dict[str, dict[str, Any]]) -> Secrets:
    """The secret values of the servers that have any."""
    held = {name: _held(server) for name, server in servers.items()}
    return {name: values for name, values in held.items() if values}


def missing(servers: dict[str, dict[str, Any]], given: Secrets) -> list[str]:
    """`server.name` of every value that `servers`, as shown, need and `given` has not."""
    return [
        f"{server}.{name}"
        for server, shape in servers.items()
        for name in _held(shape)
        if name not in given.get(server, {})
    ]


def config(servers: dict[str, dict[str, Any]], given: Secrets) -> str:
    """The file for `claude --mcp-config`. Raises ValueError when a secret value is not there."""
    if lacking := missing(servers, given):
        raise ValueError(f"the values of {', '.join(lacking)} are not there")
    whole = {
        name: {
            field: {n: given[name][n] for n in value} if field in _HOLDERS else value
            for field, value in server.items()
        }
        for name, server in servers.items()
    }
    return json.dumps({"mcpServers": whole})


def unconnected(options: dict[str, Any], init: dict[str, Any] | None) -> list[str]:
    """`server (status)` of every server that is required and not connected; `init` is claude's.

    The servers of the options or, when there are none, whatever the workspace has configured.
    """
    if not options.get("require_mcp"):
        return []
    listed = (init or {}).get("mcp_servers")
    found = {
        str(server.get("name")): str(server.get("status"))
        for server in (listed if isinstance(listed, list) else [])
        if isinstance(server, dict)
    }
    wanted = options.get("mcp_servers") or [n for n, s in found.items() if s != "disabled"]
    states = {name: found.get(name, "absent") for name in wanted}
    return [f"{name} ({state})" for name, state in states.items() if state != "connected"]


def pack(env: dict[str, str], given: Secrets) -> bytes:
    """What a command keeps sealed, as bytes; empty when it has no secrets."""
    carried = {_CARRIER: json.dumps(given)} if given else {}
    return json.dumps(env | carried).encode() if env or given else b""


def unpack(data: bytes) -> tuple[dict[str, str], Secrets]:
    """The environment and the servers' secrets that `pack` was given."""
    env: dict[str, str] = json.loads(data) if data else {}
    carried = env.pop(_CARRIER, None)
    return env, json.loads(carried) if carried else {}


def _held(server: dict[str, Any]) -> dict[str, Any]:
    """The one map of a server that holds secrets."""
    return next((server[field] for field in _HOLDERS if server.get(field)), {})
