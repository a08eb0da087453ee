"""Webhooks: who is told what, the schedule of attempts, and what an answer means.

Standard Webhooks 1.0.0 (https://github.com/standard-webhooks/standard-webhooks): three headers, one
HMAC over id, timestamp and body, a secret that can be replaced. The schedule is that of its
appendix, with jitter, so that many receivers that were away together do not come back as one.
"""

from __future__ import annotations

import base64
import random
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from common.domain.announcements import bounded
from common.domain.events import dumps, timestamp

# Seconds between an attempt that failed and the next one.
SCHEDULE_S: Final = tuple(
    float(s) for s in (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
)
JITTER: Final = 0.2
TIMEOUT_S: Final = 15.0
HEAD_BYTES: Final = 20_000  # of an answer's body that are read and kept
FAILING_FOR: Final = timedelta(days=5)  # without a break; then the endpoint is disabled
GRACE_S: Final = 24 * 3600  # that the old secret still signs after a rotation
SECRET_BYTES: Final = 24  # 192 bits; the specification wants 24 to 64 bytes
REST_S: Final = (1.0, 60.0)  # first and longest pause of an endpoint that cannot take more now
MOST_RETRY_AFTER_S: Final = 3600.0  # an answer may ask for patience, not for ever
MOST_HEADERS: Final = 10

# What can be heard; `webhook.ping` only reaches the endpoint it was asked for.
EVENT_TYPES: Final = (
    "command.queued",
    "command.started",
    "command.succeeded",
    "command.failed",
    "command.cancelled",
    "command.timed_out",
    "command.lost",
    "project.discovered",
    "project.removed",
    "key.created",
    "key.revoked",
    "webhook.disabled",
)
PING: Final = "webhook.ping"
_THIN: Final = ("id", "project", "kind", "state", "reason")

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_HEADER_VALUE: Final = re.compile(r"[!-~]([ -~]{0,1022}[!-~])?")
# What the signature, the transfer and the guard depend on is not for others to set.
_RESERVED: Final = re.compile(
    r"(webhook|proxy|sec)-.*|host|content-.*|transfer-encoding|connection|keep-alive|te|trailer"
    r"|upgrade|expect|user-agent|accept-encoding|forwarded|x-forwarded-.*|via",
    re.IGNORECASE,
)


class Payload(StrEnum):
    """How much a delivery says: `thin` is ids and state, `full` all that is public of it."""

    THIN = "thin"
    FULL = "full"


class DeliveryState(StrEnum):
    """`failed` waits for its next attempt; `dead` has none left, or its endpoint is disabled."""

    PENDING = "pending"
    FAILED = "failed"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True)
class Endpoint:
    """A receiver. None for `event_types` or `projects` means all that its key may know of."""

    id: UUID
    key_id: UUID
    url: str
    payload: Payload
    created_at: datetime
    description: str = ""
    event_types: frozenset[str] | None = None
    projects: frozenset[str] | None = None
    header_names: tuple[str, ...] = ()
    disabled_at: datetime | None = None
    disabled_reason: str | None = None
    failing_since: datetime | None = None


@dataclass(frozen=True)
class Attempt:
    """One request that was made. `status` None: there was no answer, `error` says why."""

    at: datetime
    status: int | None
    duration_ms: int
    error: str | None
    response: bytes = b""


@dataclass(frozen=True)
class Delivery:
    """One event on its way to one endpoint."""

    id: UUID
    endpoint_id: UUID
    event_id: UUID
    event_type: str
    project: str | None
    state: DeliveryState
    created_at: datetime
    next_at: datetime | None
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True)
class Message:
    """An event as receivers are told of it. `facts` are what `full` adds to `data`."""

    id: UUID
    type: str
    at: datetime
    data: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The `webhook-id`: the same in every attempt, and that of the CloudEvent."""
        return f"evt_{self.id.hex}"

    def body(self, payload: Payload) -> bytes:
        """What is signed and sent; the same bytes in every attempt."""
        data = bounded(self.data | self.facts)
        if payload is Payload.THIN:
            data = {name: data[name] for name in _THIN if name in data}
        return dumps({"type": self.type, "timestamp": timestamp(self.at), "data": data})


@dataclass(frozen=True)
class Answer:
    """What came back from a receiver, or why nothing did."""

    status: int | None
    duration_ms: int
    error: str | None = None
    head: bytes = b""
    retry_after_s: float | None = None
    refused: bool = False  # by us: it may not be connected to

    @property
    def delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """The receiver wants no more, ever."""
        return self.status == 410

    @property
    def overloaded(self) -> bool:
        """It cannot take more now: not this delivery and not any other."""
        return self.status in (429, 502, 503, 504) or (self.status is None and not self.refused)


def new_secret() -> str:
    """A fresh secret in the specification's form; shown once."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def retry_in_s(tries: int, answer: Answer, chance: random.Random | None = None) -> float | None:
    """Seconds until the next attempt after `tries` failed ones; None: there is none any more."""
    if tries > len(SCHEDULE_S):
        return None
    pick = (chance or random).uniform(1 - JITTER, 1 + JITTER)
    asked = min(answer.retry_after_s or 0.0, MOST_RETRY_AFTER_S)
    return max(SCHEDULE_S[tries - 1] * pick, asked)


def rest_s(failures: int, answer: Answer) -> float:
    """Seconds that an endpoint is left alone after its `failures`-th failure in a row."""
    if not answer.overloaded:
        return 0.0
    asked = min(answer.retry_after_s or 0.0, MOST_RETRY_AFTER_S)
    return max(min(REST_S[1], REST_S[0] * 2.0 ** min(failures - 1, 16)), asked)


def header_problem(headers: Mapping[str, str]) -> str | None:
    """What is wrong with custom headers, or None."""
    if len(headers) > MOST_HEADERS:
        return f"at most {MOST_HEADERS} headers"
    if len({name.lower() for name in headers}) < len(headers):
        return "a header is there twice"
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            return f"{name[:64]!r} is no header name"
        if _RESERVED.fullmatch(name):
            return f"{name} is not for others to set"
        if not _HEADER_VALUE.fullmatch(value):
            return f"the value of {name} must be 1 to 1024 printable ASCII characters"
    return None
