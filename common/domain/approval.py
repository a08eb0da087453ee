"""A permission request of claude's, and the words in which it is asked and answered.

claude asks with a `control_request` line on stdout and waits for a `control_response` line on
stdin; with that protocol the prompt is a line too, and claude ends when its stdin does. (Captured:
tests/fixtures/claude-2.1.197/can_use_tool.jsonl; the answers were tried with 2.1.330.)
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypeGuard
from uuid import UUID

from common.domain.events import dumps, timestamp

MAX_INPUT: Final = 1024 * 1024  # claude's lines are read whole up to here
MAX_SHOWN: Final = 48 * 1024  # an input in an event; a larger one is told by `GET …/approvals`
_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,200}")
_LONGEST_NAME: Final = 200
_DENIED: Final = "The person who was asked denied this."
_EXPIRED: Final = "Nobody answered this request in time, so it is denied."


class ApprovalState(StrEnum):
    """pending → allowed | denied | expired. Expired is denied by nobody."""

    PENDING = "pending"
    ALLOWED = "allowed"
    DENIED = "denied"
    EXPIRED = "expired"


@dataclass(frozen=True)
class Asked:
    """What claude asks for. `input` is the tool's, as one line of JSON in ASCII."""

    request_id: str
    tool_use_id: str
    tool_name: str
    input: bytes


@dataclass(frozen=True)
class Approval:
    """A request as it is stored; `input` is gone when its command has ended."""

    command_id: UUID
    request_id: str
    tool_use_id: str
    tool_name: str
    input: bytes | None
    state: ApprovalState
    message: str | None
    key_id: UUID | None
    requested_at: datetime
    expires_at: datetime
    decided_at: datetime | None


@dataclass(frozen=True)
class Refused:
    """A request that nobody can be asked about, and what claude is told instead."""

    request_id: str
    reply: bytes


def read(line: dict[str, Any]) -> Asked | Refused | None:
    """What a `control_request` line asks for; None when it cannot even be answered."""
    request_id = _identifier(line.get("request_id"))
    if request_id is None:
        return None
    request = line.get("request")
    if not isinstance(request, dict):
        return _refused(request_id, "the request is too large to be shown to anybody")
    if request.get("subtype") != "can_use_tool":
        return _refused(request_id, "rdev answers permission requests only")
    tool_use_id, tool = _identifier(request.get("tool_use_id")), request.get("tool_name")
    shown = _as_json(request.get("input"))
    if tool_use_id is None or not _is_name(tool) or shown is None:
        return _refused(request_id, "the request is not one that can be shown to anybody")
    return Asked(request_id, tool_use_id, tool, shown)


def allow(request_id: str, tool_input: bytes) -> bytes:
    """claude may use the tool, with the input that was shown and no other."""
    return _answer(request_id, {"behavior": "allow", "updatedInput": json.loads(tool_input)})


def deny(request_id: str, message: str | None) -> bytes:
    """claude may not; the model reads why."""
    return _answer(request_id, {"behavior": "deny", "message": message or _DENIED})


def expire(request_id: str) -> bytes:
    """Nobody has said anything."""
    return _answer(request_id, {"behavior": "deny", "message": _EXPIRED})


def prompt_line(prompt: str) -> bytes:
    """A prompt as claude reads it where its stdin stays open."""
    return dumps({"type": "user", "message": {"role": "user", "content": prompt}}) + b"\n"


def is_id(text: str) -> bool:
    """Whether a tool use can have this id."""
    return _ID.fullmatch(text) is not None


def event(approval: Approval) -> dict[str, Any]:
    """The `approval` event. An input that would not fit into one is left out, and said so."""
    fits = approval.input is not None and len(approval.input) <= MAX_SHOWN
    return {
        "tool_use_id": approval.tool_use_id,
        "tool_name": approval.tool_name,
        "input": json.loads(approval.input) if approval.input is not None and fits else None,
        **({} if fits else {"truncated": True}),
        "state": str(approval.state),
        "message": approval.message,
        "expires_at": timestamp(approval.expires_at),
    }


def _refused(request_id: str, why: str) -> Refused:
    return Refused(
        request_id, _response({"subtype": "error", "request_id": request_id, "error": why})
    )


def _answer(request_id: str, answer: dict[str, Any]) -> bytes:
    return _response({"subtype": "success", "request_id": request_id, "response": answer})


def _response(response: dict[str, Any]) -> bytes:
    return dumps({"type": "control_response", "response": response}) + b"\n"


def _identifier(value: Any) -> str | None:
    return value if isinstance(value, str) and is_id(value) else None


def _is_name(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME and value.isprintable()


def _as_json(value: Any) -> bytes | None:
    """One line of ASCII JSON, or None for what is none, too deep or too long."""
    if not isinstance(value, dict):
        return None
    try:
        text = dumps(value)
    except (ValueError, RecursionError):
        return None
    return text if len(text) <= MAX_INPUT else None
