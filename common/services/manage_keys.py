"""Use case: create, show and revoke API keys. None makes one that may do more than itself."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_network
from uuid import UUID

from common.domain import identifiers, keys
from common.domain.command import Reason
from common.domain.errors import FieldError, Forbidden, InvalidField, NotFound
from common.domain.keys import ApiKey, Caller, RateLimit
from common.domain.outcome import never_ran
from common.domain.scopes import ALL, grants
from common.ports.commands import Idempotency, Origin
from common.ports.keys import CreatedKey, KeyStore

DEFAULT_RATE = RateLimit(100, 60)


class ManageKeys:
    def __init__(self, store: KeyStore) -> None:
        self._store = store

    def create(
        self, wanted: ApiKey, caller: Caller, origin: Origin, idempotency: Idempotency | None
    ) -> tuple[CreatedKey, str | None]:
        """The stored key and its text, which is shown now and never again (None on a replay).

        Raises InvalidField, and Forbidden for a key that would be wider than its maker.
        """
        _check_scopes(wanted)
        _check_not_wider(wanted, caller)
        text = keys.new_key()
        key = ApiKey(**(wanted.__dict__ | {"prefix": keys.prefix_of(text)}))
        created = self._store.create(key, keys.hash_of(text), caller, origin, idempotency)
        return created, None if created.replayed else text

    def ensure_admin(self, text: str) -> None:
        """Make the laptop's admin key valid: every scope, no limits."""
        key = ApiKey(
            id=identifiers.new_id(),
            name="admin",
            prefix=keys.prefix_of(text),
            scopes=frozenset(ALL),
            projects=None,
            allowed_ips=(),
            rate_limit=None,
            max_concurrent=None,
            created_at=datetime.now(UTC),
        )
        self._store.ensure_admin(key, keys.hash_of(text))

    def many(self, before: UUID | None, limit: int) -> list[ApiKey]:
        return self._store.list(before, limit)

    def one(self, text: str) -> ApiKey:
        key = self._store.get(identifiers.parse(identifiers.KEY, text))
        if key is None:
            raise NotFound(f"there is no {text[:80]!r}")
        return key

    def revoke(self, text: str, caller: Caller, origin: Origin) -> None:
        """Invalid from the next request on; its waiting commands end, its running ones go on."""
        key_id = identifiers.parse(identifiers.KEY, text)
        if not self._store.revoke(key_id, never_ran(Reason.KEY_REVOKED), caller, origin):
            raise NotFound(f"there is no {text[:80]!r}")


def _check_scopes(wanted: ApiKey) -> None:
    unknown = sorted(wanted.scopes - set(ALL))
    if unknown:
        raise InvalidField(
            [
                FieldError("scopes", "unknown_scope", f"scopes: there is no {s[:60]!r}")
                for s in unknown
            ]
        )


def _check_not_wider(wanted: ApiKey, caller: Caller) -> None:
    more = sorted(s for s in wanted.scopes if not grants(caller.scopes, s))
    if more:
        raise Forbidden(f"this key cannot give scopes it lacks: {', '.join(more)}")
    if caller.projects is not None and (
        wanted.projects is None or not wanted.projects <= caller.projects
    ):
        raise Forbidden("this key cannot give projects it does not see")
    if caller.allowed_ips and not _inside(wanted.allowed_ips, caller.allowed_ips):
        raise Forbidden("this key cannot give addresses outside its own allowed_ips")
    if caller.expires_at is not None and (
        wanted.expires_at is None or wanted.expires_at > caller.expires_at
    ):
        raise Forbidden("this key cannot give a key that outlives it")
    if not caller.unlimited and _looser(wanted, caller):
        raise Forbidden("this key cannot give limits above its own")


def _inside(inner: tuple[str, ...], outer: tuple[str, ...]) -> bool:
    networks = [ip_network(n) for n in outer]
    return bool(inner) and all(
        any(
            ip_network(i).version == n.version and ip_network(i).subnet_of(n)  # type: ignore[arg-type]
            for n in networks
        )
        for i in inner
    )


def _looser(wanted: ApiKey, caller: Caller) -> bool:
    if caller.rate_limit is not None:
        rate = wanted.rate_limit
        if (
            rate is None
            or rate.limit / rate.window_s > caller.rate_limit.limit / caller.rate_limit.window_s
        ):
            return True
    limit = caller.max_concurrent
    return limit is not None and (wanted.max_concurrent is None or wanted.max_concurrent > limit)
