"""Use case: who is asking, and may they? One prepared database call a request."""

from __future__ import annotations

from collections.abc import Sequence

from common.domain import keys
from common.domain.errors import Forbidden, RateLimited, RdevError, Unauthorized
from common.ports.commands import Origin
from common.ports.keys import Grant, KeyStore
from common.services import telemetry

_DENIED = (
    "this key is not valid"  # one text for unknown, revoked and expired: nothing to learn from it
)


def acceptable(scopes: Sequence[str]) -> list[str]:
    """The scopes of which one suffices: each wanted one and every wider one above it."""
    wide: list[str] = []
    for scope in scopes:
        parts = scope.split(":")
        wide += [":".join(parts[:n]) for n in range(2, len(parts) + 1)]
    return sorted(set(wide))


class Authorise:
    """Turn a key text into a Caller, or say why not."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store

    def __call__(
        self, token: str, scopes: Sequence[str], origin: Origin, *, counts: bool = True
    ) -> Grant:
        """Raises Unauthorized, Forbidden or RateLimited. A bad checksum never asks the database."""
        if not keys.is_well_formed(token):
            self._deny("malformed")
            raise Unauthorized(_DENIED)
        grant = self._store.authorise(keys.hash_of(token), scopes, origin.client_ip, counts=counts)
        if grant.status == "ok":
            return grant
        self._deny(grant.status)
        error = self._refusal(grant, scopes)
        error.who = grant.caller.key_id if grant.caller else None
        raise error

    def _refusal(self, grant: Grant, scopes: Sequence[str]) -> RdevError:
        if grant.status == "ip":
            return Forbidden("this key may not be used from this address", code="ip_not_allowed")
        if grant.status == "scope":
            return Forbidden(f"this key lacks the scope {' or '.join(scopes)}")
        if grant.status == "limited":
            return self._limited(grant)
        return Unauthorized(_DENIED)

    @staticmethod
    def _deny(reason: str) -> None:
        telemetry.auth_denied.add(1, {"reason": reason})

    @staticmethod
    def _limited(grant: Grant) -> RateLimited:
        limit = grant.caller.rate_limit if grant.caller else None
        telemetry.ratelimit_rejected.add(1)
        if limit is None:
            raise AssertionError("limited without a limit")
        return RateLimited(
            f"at most {limit.limit} requests in {limit.window_s} s",
            limit=limit.limit,
            window_s=limit.window_s,
            retry_after=max(1, round((grant.reset_s or 0) + 0.5)),
        )
