"""Port: API keys and the one call that authorises a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from common.domain.keys import ApiKey, Caller
from common.ports.commands import Idempotency, Origin


@dataclass(frozen=True)
class Grant:
    """An authorisation's answer. `status`: ok, unknown, revoked, expired, ip, scope or limited."""

    status: str
    caller: Caller | None
    remaining: int | None = None
    reset_s: float | None = None


@dataclass(frozen=True)
class CreatedKey:
    """A stored key; `replayed` when an earlier request with the same Idempotency-Key made it.

    `event`: the outbox id of its CloudEvent, when this request left one.
    """

    key: ApiKey
    replayed: bool
    event: UUID | None = None


@dataclass(frozen=True)
class NewText:
    """What a rotation changes of a key: everything else stays."""

    id: UUID
    prefix: str
    hash: bytes
    created_at: datetime


class KeyStore(Protocol):
    def authorise(
        self, key_hash: bytes, scopes: Sequence[str], ip: str | None, *, counts: bool
    ) -> Grant:
        """Key, address, any of `scopes` and rate in one round trip; a refusal consumes nothing."""
        ...

    def create(
        self,
        key: ApiKey,
        key_hash: bytes,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None,
    ) -> CreatedKey: ...

    def ensure_admin(self, key: ApiKey, key_hash: bytes) -> None:
        """Make sure the laptop's admin key exists, unlimited, exactly as given."""
        ...

    def get(self, key_id: UUID) -> ApiKey | None: ...

    def list(self, before: UUID | None, limit: int) -> list[ApiKey]:
        """Newest first, revoked ones included."""
        ...

    def update(self, key_id: UUID, changes: dict[str, Any], caller: Caller, origin: Origin) -> str:
        """Change the fields given, named and shaped as the API does: ok, revoked or unknown."""
        ...

    def rotate(
        self,
        key_id: UUID,
        new: NewText,
        grace_s: int,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None,
    ) -> CreatedKey | str:
        """The key that takes its place; else why not: revoked, replaced (before) or unknown.

        The old one expires after `grace_s` seconds, or when it would have anyway.
        """
        ...

    def revoke(
        self, key_id: UUID, outcome: dict[str, Any], caller: Caller, origin: Origin
    ) -> UUID | None:
        """Revoke, end its waiting commands with `outcome`, disable its webhooks.

        Answers the outbox id of its CloudEvent (there is none when it was revoked before); None
        when there is no such key.
        """
        ...
