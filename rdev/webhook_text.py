"""Webhooks and deliveries for people."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any, Final

from rdev.text import age, parse_time, printable

WEBHOOKS: Final = ("ID", "STATE", "PAYLOAD", "PROJECTS", "EVENTS", "URL")
DELIVERIES: Final = ("ID", "STATE", "EVENT", "PROJECT", "AGE", "TRIES", "NEXT", "LAST")
NO_WEBHOOK: Final = "no webhook; `rdev webhooks create https://…` makes one"
NO_DELIVERY: Final = "no delivery; `rdev webhooks ping ID` sends one to try"


def webhook_row(item: dict[str, Any]) -> tuple[str, ...]:
    """One webhook in a table."""
    return (
        str(item.get("id")),
        _state(item),
        str(item.get("payload")),
        _words(item.get("projects")),
        _words(item.get("event_types")),
        printable(str(item.get("url"))),
    )


def webhook(item: dict[str, Any]) -> Iterator[str]:
    """One webhook, field by field."""
    facts = {
        "id": item.get("id"),
        "url": item.get("url"),
        "state": _state(item),
        "events": _words(item.get("event_types")),
        "projects": _words(item.get("projects")),
        "payload": item.get("payload"),
        "headers": " ".join(item.get("headers") or {}) or "-",
        "description": item.get("description") or "-",
        "key": item.get("key_id"),
        "created at": item.get("created_at"),
        "failing since": item.get("failing_since") or "-",
    }
    for name, value in facts.items():
        yield f"{name.ljust(13)}  {printable(str(value))}"


def delivery(item: dict[str, Any]) -> Iterator[str]:
    """One delivery with all its attempts."""
    shown_next = item.get("next_attempt_at")
    yield (
        f"{item.get('id')}  {item.get('event_type')}  {item.get('state')}"
        + (f", next attempt at {shown_next}" if shown_next else "")
    )
    for attempt in item.get("attempts") or []:
        yield f"  {attempt.get('at')}  {_told(attempt)} in {attempt.get('duration_ms')} ms"
        answer = attempt.get("response") or {}
        text = printable(str(answer.get("text") or ""))[:200]
        if text:
            yield f"    {text}"


def delivery_row(item: dict[str, Any], now: dt.datetime) -> tuple[str, ...]:
    """One delivery in a table."""
    attempts = item.get("attempts") or []
    return (
        str(item.get("id")),
        str(item.get("state")),
        str(item.get("event_type")),
        printable(str(item.get("project") or "-")),
        age(parse_time(item.get("created_at")), now),
        str(len(attempts)),
        _in(parse_time(item.get("next_attempt_at")), now),
        _told(attempts[-1]) if attempts else "-",
    )


def _in(then: dt.datetime | None, now: dt.datetime) -> str:
    if then is None:
        return "-"
    return "now" if then <= now else age(now, then)


def _told(attempt: dict[str, Any]) -> str:
    status, error = attempt.get("status"), attempt.get("error")
    if status is None:
        return printable(str(error or "no answer"))
    return str(status)


def _state(item: Any) -> str:
    if not item.get("enabled"):
        return f"disabled ({item.get('disabled_reason')})"
    return "failing" if item.get("failing_since") else "enabled"


def _words(values: Any) -> str:
    return printable(" ".join(map(str, values))) if values is not None else "all"
