"""The one table from errors to HTTP: statuses, titles and RFC 9457 bodies."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from common.domain import errors
from common.domain.events import dumps

_TYPE: Final = "https://rdev.orchard9.ai/problems/"

STATUSES: Final[dict[type[errors.RdevError], tuple[int, str]]] = {
    errors.InvalidRequest: (400, "The request cannot be read"),
    errors.Unauthorized: (401, "A valid API key is needed"),
    errors.Forbidden: (403, "Not allowed"),
    errors.NotFound: (404, "Not found"),
    errors.Expired: (404, "No longer kept"),
    errors.MethodNotAllowed: (405, "Method not allowed"),
    errors.Conflict: (409, "Not possible in this state"),
    errors.PreconditionFailed: (412, "It has changed"),
    errors.PayloadTooLarge: (413, "Too large"),
    errors.UriTooLong: (414, "The address is too long"),
    errors.UnsupportedMediaType: (415, "Unsupported media type"),
    errors.RangeNotSatisfiable: (416, "Beyond the end"),
    errors.InvalidField: (422, "A field is not valid"),
    errors.PreconditionRequired: (428, "Say what you are changing"),
    errors.RateLimited: (429, "Too many requests"),
    errors.ConcurrencyLimited: (429, "Too many commands at once"),
    errors.Unavailable: (503, "Not ready"),
    errors.SecretsUnreadable: (503, "A secret cannot be opened"),
    errors.ShuttingDown: (503, "Shutting down"),
    errors.RdevError: (500, "Internal error"),
}


def status_of(error: errors.RdevError) -> tuple[int, str]:
    """(status, title) of an error: of its class or the nearest base."""
    for cls in type(error).__mro__:
        if cls in STATUSES:
            return STATUSES[cls]
    return STATUSES[errors.RdevError]


def body_of(error: errors.RdevError, request_id: str) -> dict[str, Any]:
    """The problem object callers see."""
    status, title = status_of(error)
    body: dict[str, Any] = {
        "type": _TYPE + error.code.replace("_", "-"),
        "title": title,
        "status": status,
        "code": error.code,
        "detail": error.detail,
        "request_id": request_id,
    }
    if isinstance(error, errors.InvalidField):
        body["errors"] = [_field(e) for e in error.errors]
    return body


def _field(error: errors.FieldError) -> dict[str, Any]:
    field = {"field": error.field, "code": error.code, "message": error.message}
    return field if error.line is None else field | {"line": error.line}


def headers_of(error: errors.RdevError) -> dict[str, str]:
    """Headers a problem needs besides its body."""
    headers = {"cache-control": "no-store"}
    if isinstance(error, errors.Unauthorized):
        headers["www-authenticate"] = 'Bearer realm="rdev"'
    retry_after = getattr(error, "retry_after", None)
    if retry_after is not None:
        headers["retry-after"] = str(retry_after)
    return headers


def problem(
    error: errors.RdevError, request_id: str, headers: dict[str, str] | None = None
) -> Response:
    """The response that tells the caller about `error`."""
    return Response(
        dumps(body_of(error, request_id)),
        status_code=status_of(error)[0],
        headers=headers_of(error) | {"x-request-id": request_id} | (headers or {}),
        media_type="application/problem+json",
    )
