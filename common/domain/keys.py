"""API keys: their text, checksum, hash, and what the holder of one may do.

`rdev_<8 id>_<32 base62><6 CRC32>`: the checksum lets a mistyped key be refused without asking the
database; 32 base62 characters are 190 bits, so one SHA-256 found by its unique index is a safe
store (OWASP ASVS 5.0, 6.5.2 asks for 112 bits).
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from common.domain.errors import Forbidden, NotFound
from common.domain.scopes import grants

_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SHAPE = re.compile(r"rdev_([0-9A-Za-z]{8})_([0-9A-Za-z]{32})([0-9A-Za-z]{6})")


def _random(length: int) -> str:
    return "".join(secrets.choice(_BASE62) for _ in range(length))


def _checksum(body: str) -> str:
    number, digits = zlib.crc32(body.encode("ascii")), ""
    for _ in range(6):
        number, rest = divmod(number, 62)
        digits = _BASE62[rest] + digits
    return digits


def new_key() -> str:
    """A fresh key text; the only copy there will ever be."""
    body = f"rdev_{_random(8)}_{_random(32)}"
    return body + _checksum(body)


def is_well_formed(text: str) -> bool:
    """Whether the shape and checksum are right; says nothing about the key being known."""
    return _SHAPE.fullmatch(text) is not None and _checksum(text[:-6]) == text[-6:]


def prefix_of(text: str) -> str:
    """The part that may be shown and logged: `rdev_<8 id>`."""
    return text[:13]


def hash_of(text: str) -> bytes:
    """SHA-256 of the whole text, 32 bytes."""
    return hashlib.sha256(text.encode("ascii")).digest()


@dataclass(frozen=True)
class RateLimit:
    """At most `limit` requests in any `window_s` seconds."""

    limit: int
    window_s: int


@dataclass(frozen=True)
class ApiKey:
    """A stored key, without its secret. `projects` None: all; `rate_limit` None: no limit."""

    id: UUID
    name: str
    prefix: str
    scopes: frozenset[str]
    projects: frozenset[str] | None
    allowed_ips: tuple[str, ...]
    rate_limit: RateLimit | None
    max_concurrent: int | None
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    replaced_by: UUID | None = None


@dataclass(frozen=True)
class Caller:
    """Who is asking: the identity every service checks against."""

    key_id: UUID
    name: str
    scopes: frozenset[str]
    projects: frozenset[str] | None
    max_concurrent: int | None = None
    rate_limit: RateLimit | None = None
    allowed_ips: tuple[str, ...] = ()
    expires_at: datetime | None = None
    unlimited: bool = field(default=False)

    def require(self, scope: str) -> None:
        """Raise `Forbidden` unless a scope of this key grants `scope`."""
        if not grants(self.scopes, scope):
            raise Forbidden(f"this key lacks the scope {scope}")

    def sees(self, project: str) -> bool:
        return self.projects is None or project in self.projects

    def sees_all(self, projects: frozenset[str] | None) -> bool:
        """Whether this key knows all of these; None is every project there is."""
        return self.projects is None or (projects is not None and projects <= self.projects)

    def narrowed(self, projects: frozenset[str] | None) -> frozenset[str] | None:
        """Those of these projects (None: of all) that this key knows; None is all."""
        if self.projects is None or projects is None:
            return self.projects if projects is None else projects
        return projects & self.projects

    def require_project(self, project: str) -> None:
        """Raise `NotFound` for a project this key may not know of."""
        if not self.sees(project):
            raise NotFound(f"there is no project {project!r}")
