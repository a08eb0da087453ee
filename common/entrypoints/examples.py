"""Example bodies for openapi.json, one of each shape; tests hold them to the real answers."""

from __future__ import annotations

from typing import Any, Final

_ID: Final = "cmd_0190f3c2a4b87c0e9a5d1f2e3c4b5a69"

CREATE_SHELL: Final[dict[str, Any]] = {"project": "demo", "kind": "shell", "script": "echo hello"}
CREATE_KEY: Final[dict[str, Any]] = {
    "name": "ci",
    "scopes": ["commands:write", "commands:read"],
    "projects": ["demo"],
    "allowed_ips": ["10.0.0.0/8"],
}
COMMAND: Final[dict[str, Any]] = {
    "id": _ID,
    "project": "demo",
    "kind": "shell",
    "state": "queued",
    "priority": "normal",
    "queue_position": 1,
    "created_at": "2026-01-01T00:00:00.000Z",
    "started_at": None,
    "finished_at": None,
    "run_at": None,
    "key_id": "key_0190f3c2a4b87c0e9a5d1f2e3c4b5a60",
    "session_id": None,
    "retry_of": None,
    "labels": {},
    "spec": {
        "script": "echo hello",
        "streams": "merged",
        "cwd": ".",
        "timeouts": {"queue_s": 3600, "run_s": 3600, "idle_s": None},
        "env": {},
    },
    "outcome": None,
    "links": {
        "self": f"/v1/commands/{_ID}",
        "stream": f"/v1/streams/commands/{_ID}",
        "output": f"/v1/commands/{_ID}/output",
        "cancel": f"/v1/commands/{_ID}/cancel",
    },
}
PROJECT: Final[dict[str, Any]] = {
    "name": "demo",
    "description": "",
    "phase": "ready",
    "workspace": "/workspace",
    "allowed_commands": None,
    "max_concurrent_commands": 5,
    "running": 0,
    "queued": 0,
    "paused": False,
    "issues": [],
}
KEY: Final[dict[str, Any]] = {
    "id": "key_0190f3c2a4b87c0e9a5d1f2e3c4b5a60",
    "name": "ci",
    "prefix": "rdev_a1B2c3D4",
    "scopes": ["commands:read", "commands:write"],
    "projects": ["demo"],
    "allowed_ips": ["10.0.0.0/8"],
    "expires_at": None,
    "rate_limit": {"limit": 100, "window_s": 60},
    "max_concurrent": None,
    "created_at": "2026-01-01T00:00:00.000Z",
    "revoked_at": None,
    "last_used_at": None,
    "replaced_by": None,
}


APPROVAL: Final[dict[str, Any]] = {
    "tool_use_id": "toolu_01A09q90qw90lq917835lq9",
    "tool_name": "Bash",
    "input": {"command": "make deploy"},
    "state": "pending",
    "message": None,
    "key_id": None,
    "requested_at": "2026-01-01T00:00:00.000Z",
    "expires_at": "2026-01-01T00:15:00.000Z",
    "decided_at": None,
}
SESSION: Final[dict[str, Any]] = {
    "id": "0190f3c2-a4b8-7c0e-9a5d-1f2e3c4b5a69",
    "project": "demo",
    "state": "free",
    "busy_with": None,
    "waiting": 0,
    "forked_from": None,
    "model": "claude-opus-5-5",
    "commands": 3,
    "turns": 12,
    "cost_usd": 0.25,
    "first_command": _ID,
    "last_command": "cmd_0190f3c2a4b87c0e9a5d1f2e3c4b5a70",
    "started_at": "2026-01-01T00:00:00.000Z",
    "last_used_at": "2026-01-01T01:00:00.000Z",
}
_NONE: Final = {"queued": 0, "running": 0, "oldest_s": None}
QUEUE: Final[dict[str, Any]] = {
    "project": "demo",
    "paused_at": None,
    "queued": 2,
    "running": 1,
    "oldest_s": 12.5,
    "by_priority": {
        "urgent": _NONE,
        "high": {"queued": 2, "running": 1, "oldest_s": 12.5},
        "normal": _NONE,
        "low": _NONE,
    },
}
USAGE: Final[dict[str, Any]] = {
    "project": "demo",
    "key_id": None,
    "model": None,
    "day": "2026-01-01",
    "commands": 7,
    "seconds": 123.4,
    "cost_usd": 0.25,
    "input_tokens": 1000,
    "output_tokens": 200,
    "cache_read_tokens": 0,
    "cache_creation_tokens": 0,
}
AUDIT: Final[dict[str, Any]] = {
    "id": "aud_00000000000000000000000000000007",
    "at": "2026-01-01T00:00:00.000Z",
    "key_id": "key_0190f3c2a4b87c0e9a5d1f2e3c4b5a60",
    "action": "command.created",
    "target": _ID,
    "project": "demo",
    "detail": {"kind": "shell", "priority": 3},
    "request_id": "req_0190f3c2a4b87c0e9a5d1f2e3c4b5a70",
    "client_ip": "192.0.2.1",
    "peer_ip": "10.0.0.1",
}
VERDICT: Final[dict[str, Any]] = {
    "ok": True,
    "checked": 1234,
    "head": {
        "seq": 1234,
        "hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    },
    "broken": None,
}

CREATE_TRIGGER: Final[dict[str, Any]] = {
    "name": "review pushes",
    "filter": {
        "all": [
            {"exact": {"type": "com.github.push"}},
            {"exact": {"subject": "refs/heads/main"}},
        ]
    },
    "command": {
        "project": "demo",
        "kind": "claude",
        "prompt": "Review {{ data.head_commit.id }}",
    },
}
_TRIGGER_ID: Final = "trg_0190f3c2a4b87c0e9a5d1f2e3c4b5a61"
TRIGGER: Final[dict[str, Any]] = {
    "id": _TRIGGER_ID,
    **CREATE_TRIGGER,
    "command": CREATE_TRIGGER["command"] | {"env": {}},
    "key_id": "key_0190f3c2a4b87c0e9a5d1f2e3c4b5a60",
    "accept": ["http", "github"],
    "enabled": True,
    "rate_limit": {"limit": 60, "window_s": 3600},
    "created_at": "2026-01-01T00:00:00.000Z",
    "updated_at": "2026-01-01T00:00:00.000Z",
    "links": {
        "self": f"/v1/triggers/{_TRIGGER_ID}",
        "matches": f"/v1/triggers/{_TRIGGER_ID}/matches",
        "github": f"/v1/events/github/{_TRIGGER_ID}",
    },
}
EVENT: Final[dict[str, Any]] = {
    "specversion": "1.0",
    "id": "1",
    "source": "/ci",
    "type": "com.example.build.failed",
    "data": {"ref": "main"},
}
MATCH: Final[dict[str, Any]] = {
    "id": "mat_00000000000000000000000000000007",
    "at": "2026-01-01T00:00:00.000Z",
    "event_id": "1",
    "source": "/ci",
    "type": "com.example.build.failed",
    "outcome": "submitted",
    "command_id": _ID,
    "reason": None,
    "detail": "",
}
DRY_RUN: Final[dict[str, Any]] = {
    "matches": True,
    "command": {
        "project": "demo",
        "kind": "shell",
        "priority": "normal",
        "labels": {"rdev/trigger": _TRIGGER_ID},
        "spec": {"script": "echo 'main'"},
    },
    "reason": None,
    "detail": "",
}
_RECEIVED: Final[dict[str, Any]] = {
    "id": "1",
    "source": "/ci",
    "outcome": "submitted",
    "triggers": [
        {
            "trigger_id": _TRIGGER_ID,
            "outcome": "submitted",
            "duplicate": False,
            "command_id": _ID,
            "reason": None,
        }
    ],
}
RECEIVED: Final[dict[str, Any]] = {"events": [_RECEIVED]}
LETTER: Final[dict[str, Any]] = {
    "id": "dlt_0190f3c2a4b87c0e9a5d1f2e3c4b5a62",
    "created_at": "2026-01-01T00:00:00.000Z",
    "reason": "no_trigger",
    "detail": "no trigger is for it",
    "channel": "http",
    "project": None,
    "trigger_id": None,
    "event_id": "1",
    "source": "/ci",
    "type": "com.example.build.failed",
    "subject": None,
    "size": 14,
    "replayable": True,
    "replayed_at": None,
}
WHOLE_LETTER: Final[dict[str, Any]] = {
    **LETTER,
    "attributes": {"specversion": "1.0", "id": "1", "source": "/ci"},
    "data": {"ref": "main"},
    "data_base64": None,
}
REPLAYED: Final[dict[str, Any]] = {
    "outcome": "submitted",
    "event": _RECEIVED,
    "letter": LETTER | {"replayed_at": "2026-01-01T00:00:01.000Z"},
}


CREATE_WEBHOOK: Final[dict[str, Any]] = {
    "url": "https://example.com/hooks/rdev",
    "event_types": ["command.succeeded", "command.failed"],
    "projects": ["demo"],
    "payload": "thin",
}
WEBHOOK: Final[dict[str, Any]] = {
    "id": "whk_0190f3c2a4b87c0e9a5d1f2e3c4b5a80",
    "url": "https://example.com/hooks/rdev",
    "description": "",
    "event_types": ["command.failed", "command.succeeded"],
    "projects": ["demo"],
    "payload": "thin",
    "headers": {},
    "enabled": True,
    "disabled_at": None,
    "disabled_reason": None,
    "failing_since": None,
    "key_id": "key_0190f3c2a4b87c0e9a5d1f2e3c4b5a60",
    "created_at": "2026-01-01T00:00:00.000Z",
}
DELIVERY: Final[dict[str, Any]] = {
    "id": "dlv_0190f3c2a4b87c0e9a5d1f2e3c4b5a81",
    "webhook_id": "whk_0190f3c2a4b87c0e9a5d1f2e3c4b5a80",
    "event_id": "evt_0190f3c2a4b87c0e9a5d1f2e3c4b5a82",
    "event_type": "command.succeeded",
    "project": "demo",
    "state": "failed",
    "created_at": "2026-01-01T00:00:00.000Z",
    "next_attempt_at": "2026-01-01T00:00:05.000Z",
    "attempts": [
        {
            "at": "2026-01-01T00:00:00.000Z",
            "status": 500,
            "duration_ms": 12,
            "error": "it answered 500",
        }
    ],
}
SENT: Final[dict[str, Any]] = DELIVERY | {
    "attempts": [DELIVERY["attempts"][0] | {"response": {"text": "oops"}}],
    "body": (
        '{"type":"command.succeeded","timestamp":"2026-01-01T00:00:00.000Z",'
        f'"data":{{"id":"{_ID}","project":"demo","kind":"shell","state":"succeeded"}}}}'
    ),
}


def page_of(example: dict[str, Any]) -> dict[str, Any]:
    """One page with one item."""
    return {"items": [example], "next_cursor": None}
