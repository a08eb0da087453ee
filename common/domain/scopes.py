"""The closed list of scopes a key can hold, and what a wide one implies."""

from __future__ import annotations

from typing import Final

ALL: Final = (
    "projects:read",
    "commands:read",
    "commands:write",
    "commands:write:claude",
    "commands:write:shell",
    "commands:write:git",
    "claude-config:read",
    "claude-config:write",
    "approvals:write",
    "queue:admin",
    "webhooks:write",
    "triggers:write",
    "triggers:broker",
    "events:write",
    "usage:read",
    "audit:read",
    "keys:admin",
)


def grants(held: frozenset[str], wanted: str) -> bool:
    """Whether `held` allows `wanted`: the scope itself or a prefix of it (`commands:write`)."""
    return wanted in held or any(wanted.startswith(f"{scope}:") for scope in held)
