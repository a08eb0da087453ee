"""Every error rdev says to a caller, as one tree; `entrypoints/problem.py` gives each its status.

RdevError
├── InvalidRequest        cannot be parsed: JSON, encoding, header
├── InvalidField          parsed, but a value is wrong; carries the fields
├── Unauthorized          no key, or not a valid one
├── Forbidden             a valid key that may not do this
├── NotFound              is not there, or not for this key
│   └── Expired           was there; its retention is over
├── MethodNotAllowed
├── Conflict              the resource is in a state that does not allow it
├── PreconditionFailed    it is not (any more) what If-Match says
├── PreconditionRequired  a change needs If-Match
├── PayloadTooLarge
├── UriTooLong
├── UnsupportedMediaType
├── RangeNotSatisfiable
├── RateLimited           the key's window is full
├── ConcurrencyLimited    the project or key has no free slot and the caller would not wait
└── Unavailable           our own trouble: ask again after `retry_after` seconds
    └── ShuttingDown
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True)
class FieldError:
    """One wrong value: `field` is its path in the body or query (`scopes[0]`).

    With a `line`, counted from 1, it is a key of the frontmatter in `content`.
    """

    field: str
    code: str
    message: str
    line: int | None = None


class RdevError(Exception):
    """Base of all errors meant for the caller; `detail` is the sentence they read."""

    code = "internal"
    who: UUID | None = None  # the key that was refused, where one was known

    def __init__(self, detail: str, *, code: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        if code is not None:
            self.code = code


class InvalidRequest(RdevError):
    code = "invalid_request"


class InvalidField(RdevError):
    """At least one field is wrong; `errors` says which and why."""

    code = "invalid_field"

    def __init__(
        self, errors: list[FieldError], *, detail: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(detail or "; ".join(e.message for e in errors), code=code)
        self.errors = errors

    @classmethod
    def one(cls, field: str, code: str, message: str) -> InvalidField:
        return cls([FieldError(field, code, message)])


class Unauthorized(RdevError):
    code = "unauthorized"


class Forbidden(RdevError):
    code = "forbidden"


class NotFound(RdevError):
    code = "not_found"

    @classmethod
    def named(cls, text: str) -> NotFound:
        """For what a caller named by its id; the same whether it is foreign or never was."""
        return cls(f"there is no {text[:80]!r}")


class Expired(NotFound):
    code = "expired"


class MethodNotAllowed(RdevError):
    code = "method_not_allowed"


class Conflict(RdevError):
    code = "conflict"


class PreconditionFailed(RdevError):
    code = "precondition_failed"


class PreconditionRequired(RdevError):
    code = "precondition_required"


class PayloadTooLarge(RdevError):
    code = "payload_too_large"


class UriTooLong(RdevError):
    code = "uri_too_long"


class UnsupportedMediaType(RdevError):
    code = "unsupported_media_type"


class RangeNotSatisfiable(RdevError):
    code = "range_not_satisfiable"


class RateLimited(RdevError):
    """The window is full; it opens in `retry_after` seconds."""

    code = "rate_limited"

    def __init__(self, detail: str, *, limit: int, window_s: int, retry_after: int) -> None:
        super().__init__(detail)
        self.limit = limit
        self.window_s = window_s
        self.retry_after = retry_after


class ConcurrencyLimited(RdevError):
    code = "concurrency_limited"
    retry_after = 1


class Unavailable(RdevError):
    """Our own trouble, never the caller's: nothing was changed, ask again."""

    code = "not_ready"

    def __init__(self, detail: str, *, code: str | None = None, retry_after: int = 2) -> None:
        super().__init__(detail, code=code)
        self.retry_after = retry_after


class SecretsUnreadable(Unavailable):
    """No key of this process opens what was sealed: one is missing, or not here yet."""

    code = "secrets_unreadable"


class ShuttingDown(Unavailable):
    code = "shutting_down"
