"""What a refusal over HTTP means to the person: which error, and what to do about it.

The server answers `application/problem+json` (RFC 9457) with a `code`; anything else was said by
somebody in between, and is reported as such.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from rdev.errors import CliError, NotAllowed, Refused, ServerFault, Unreachable, WrongUsage
from rdev.text import printable

_HINTS: Final[Mapping[str, str]] = {
    "unauthorized": "set RDEV_API_KEY, or run `rdev login`; `rdev doctor` checks the key",
    "forbidden": "the key lacks a scope or the project; `rdev whoami` shows which key this is",
    "ip_not_allowed": "the key is bound to other addresses",
    "concurrency_limited": "leave out `--if-busy reject` to wait in the queue",
    "session_busy": "use `--if-session-busy queue` to wait, or `--fork`",
}
_WAITING_STATUSES: Final = frozenset({429, 502, 503, 504})


def of_response(status: int, body: bytes, *, starting: bool) -> CliError:
    """The error for a response that is no success.

    `starting`: the request was to start a command, so a refusal means that it never ran.
    """
    problem = parse_problem(body)
    code = str(problem.get("code", "")) if problem else ""
    message = _sentence(status, problem)
    return _kind(status, starting=starting)(message, hint=_HINTS.get(code), problem=problem)


def _kind(status: int, *, starting: bool) -> type[CliError]:
    if status in (401, 403):
        return NotAllowed
    if status in _WAITING_STATUSES and status != 429:
        return Unreachable
    if status >= 500 or status < 400:
        return ServerFault
    return Refused if starting else WrongUsage


def _sentence(status: int, problem: dict[str, Any] | None) -> str:
    if problem is None:
        return f"the server answered HTTP {status} without saying why"
    text = printable(str(problem.get("detail") or problem.get("title") or f"HTTP {status}"))
    fields = [_field(error) for error in _list(problem.get("errors")) if isinstance(error, dict)]
    if fields:
        text = f"{text}: {'; '.join(fields)}" if len(fields) > 1 else fields[0]
    request = problem.get("request_id")
    return f"{text} ({printable(str(request))})" if request and status >= 500 else text


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _field(error: dict[str, Any]) -> str:
    if isinstance(error.get("line"), int):
        return printable(f"line {error['line']}: {error.get('message')}")
    return printable(f"{error.get('field', '?')}: {error.get('message') or error.get('code')}")


def parse_problem(body: bytes) -> dict[str, Any] | None:
    """The problem in `body`; None when it holds none, as from a proxy in between."""
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) and ("code" in value or "title" in value) else None


def may_be_repeated(status: int, body: bytes) -> bool:
    """Whether the server asks us to try the very same request again a little later."""
    problem = parse_problem(body)
    code = problem.get("code") if problem else None
    if status == 409:
        return code == "idempotency_in_flight"
    if status == 429:
        return code != "concurrency_limited"
    return status in _WAITING_STATUSES


def retry_after_s(header: str | None) -> float | None:
    """Seconds from a Retry-After header. rdev sends seconds; a date (from a proxy) is ignored."""
    if header is None or not (header.strip().isascii() and header.strip().isdigit()):
        return None
    return float(header.strip()[:9])
