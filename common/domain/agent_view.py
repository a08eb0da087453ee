"""What one of claude's lines says, in a few typed items: enough for a log or a screen.

Made from the line whenever it is shown, and never stored. Texts are clipped: the line itself stands
beside the view. A type that is not known here has no items; it passes through all the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

MAX_TEXT: Final = 1000  # characters of one text
MAX_WORD: Final = 200  # of a name, an id
MAX_VIEW: Final = 16 * 1024  # bytes of JSON; escapes may swell a text by twelve
MAX_ITEMS: Final = 8  # claude prints one content block a line; this bounds what it may do one day
Item = dict[str, Any]


def view(line: dict[str, Any]) -> list[Item]:
    """The items of a line; whatever its shape, this has an answer."""
    make = _VIEWS.get(_text(line.get("type")))
    items = [item for _, item in zip(range(MAX_ITEMS), make(line), strict=False)] if make else []
    parent = line.get("parent_tool_use_id")
    if isinstance(parent, str):  # said by a subagent
        items = [item | {"parent": _word(parent)} for item in items]
    while items and len(json.dumps(items)) > MAX_VIEW:
        items.pop()
    return items


def _system(line: Item) -> Iterator[Item]:
    if line.get("subtype") == "init":
        yield {
            "kind": "init",
            "session_id": _word(line.get("session_id")),
            "model": _word(line.get("model")),
            "permission_mode": _word(line.get("permissionMode")),
            "mcp_servers": [
                {"name": _word(server.get("name")), "status": _word(server.get("status"))}
                for server in _objects(line.get("mcp_servers"))[:32]
            ],
        }
    elif line.get("subtype") == "api_retry":
        yield {
            "kind": "retry",
            "attempt": _number(line.get("attempt")),
            "max_retries": _number(line.get("max_retries")),
            "delay_ms": _number(line.get("retry_delay_ms")),
            "status": _number(line.get("error_status")),
            "error": _word(line.get("error")),
        }


def _message(line: Item) -> Iterator[Item]:
    message = line.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        yield _said("text", content)
    for block in _objects(content):
        kind = block.get("type")
        if kind == "text":
            yield _said("text", block.get("text"))
        elif kind == "thinking":
            yield _said("thinking", block.get("thinking"))
        elif kind == "tool_use":
            named = {"id": _word(block.get("id")), "name": _word(block.get("name"))}
            yield {"kind": "tool_call", **named, "input": _json(block.get("input"))}
        elif kind == "tool_result":
            yield {
                "kind": "tool_result",
                "id": _word(block.get("tool_use_id")),
                "is_error": bool(block.get("is_error")),
                "text": _clip(_result_text(block)),
            }


def _result_text(block: Item) -> str:
    content = block.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(
        _text(part.get("text")) or f"[{_text(part.get('type'))}]" for part in _objects(content)
    )


def _delta(line: Item) -> Iterator[Item]:
    event = line.get("event")
    delta = event.get("delta") if isinstance(event, dict) else None
    if isinstance(delta, dict):
        for field, of in (("text", "text"), ("thinking", "thinking"), ("partial_json", "input")):
            if isinstance(delta.get(field), str):
                yield {"kind": "delta", "of": of, "text": _clip(delta[field])}


def _result(line: Item) -> Iterator[Item]:
    errors = line.get("errors")
    said = line.get("result") if isinstance(line.get("result"), str) else None
    if said is None and isinstance(errors, list):
        said = "\n".join(_text(error) for error in errors[:MAX_ITEMS])
    yield {
        "kind": "result",
        "subtype": _word(line.get("subtype")),
        "is_error": bool(line.get("is_error")),
        "num_turns": _number(line.get("num_turns")),
        "denials": len(_objects(line.get("permission_denials"))),
        "text": _clip(said or ""),
    }


_VIEWS: Final[dict[str, Callable[[Item], Iterator[Item]]]] = {
    "system": _system,
    "assistant": _message,
    "user": _message,
    "stream_event": _delta,
    "result": _result,
}


def _said(kind: str, text: Any) -> Item:
    return {"kind": kind, "text": _clip(_text(text))}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _word(value: Any) -> str | None:
    return _clip(value, MAX_WORD) if isinstance(value, str) else None


def _number(value: Any) -> int | float | None:
    """A number that claude would say; bool is none, and an endless integer takes too much room."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and abs(value) < 2**53 else None


def _objects(value: Any) -> list[Item]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _json(value: Any) -> str:
    """A tool's input as JSON text, clipped."""
    try:
        return _clip(json.dumps(value, separators=(",", ":"), ensure_ascii=False))
    except (ValueError, RecursionError):
        return ""


def _clip(text: str, most: int = MAX_TEXT) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
