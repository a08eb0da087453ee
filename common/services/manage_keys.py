"""Use case: create, show, change, rotate and revoke API keys.

No key makes, widens or gets hold of one that may do more than itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any, Final
from uuid import UUID

from common.domain import identifiers, keys
from common.domain.command import Reason
from common.domain.errors import Conflict, Forbidden, InvalidField, NotFound
from common.domain.keys import ApiKey, Caller, RateLimit
from common.domain.outcome import never_ran
from common.domain.scopes import ALL, grants
from common.ports.commands import Idempotency, Origin
from common.ports.keys import CreatedKey, KeyStore, NewText
from common.services.visible import visible

FARTHEST_EXPIRY: Final = timedelta(days=36_500)  # what every clock and calendar here can hold


class ManageKeys:
    def __init__(self, store: KeyStore, publish: Callable[[UUID | None], object]) -> None:
        self._store = store
        self._publish = publish

    def create(
        self, wanted: ApiKey, caller: Caller, origin: Origin, idempotency: Idempotency | None
    ) -> tuple[CreatedKey, str | None]:
        """The stored key and its text, which is shown now and never again (None on a replay).

        Raises InvalidField, and Forbidden for a key that would be wider than its maker.
        """
        _check_expiry(wanted.expires_at)
        _check_not_wider(wanted, caller)
        text = keys.new_key()
        key = ApiKey(**(wanted.__dict__ | {"prefix": keys.prefix_of(text)}))
        created = self._store.create(key, keys.hash_of(text), caller, origin, idempotency)
        self._publish(created.event)
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

    def many(self, before: UUID | None, limit: int, caller: Caller) -> list[ApiKey]:
        """The newest `limit` keys below `before` that the caller may see.

        A key for some projects manages keys for these only: else it could revoke the admin's.
        """
        return visible(self._store.list, caller, before, limit)

    def one(self, text: str, caller: Caller) -> ApiKey:
        """Raises NotFound, the same for a key of other projects as for none."""
        key = self._store.get(identifiers.parse(identifiers.KEY, text))
        if key is None or not caller.sees_all(key.projects):
            raise NotFound.named(text)
        return key

    def update(self, text: str, fields: dict[str, Any], caller: Caller, origin: Origin) -> ApiKey:
        """Change some fields (named as those of ApiKey) from the next request on.

        Raises InvalidField, Conflict for a revoked key, and Forbidden when the whole key, as it is
        then, would be wider than the caller.
        """
        _check_expiry(fields.get("expires_at"))
        key = self._live(text, caller)
        _check_not_wider(replace(key, **fields), caller)
        changes = {name: _as_json(value) for name, value in fields.items()}
        if changes:
            _refuse(self._store.update(key.id, changes, caller, origin), text)
        return self.one(text, caller)

    def rotate(
        self,
        text: str,
        grace_s: int,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None,
    ) -> tuple[CreatedKey, str | None]:
        """A key with the same rights and its text (None on a replay); the old one ends soon.

        Raises Conflict, and Forbidden for a key wider than the caller: the caller gets its text.
        """
        key = self.one(text, caller)
        _check_not_wider(key, caller)
        secret = keys.new_key()
        new = NewText(
            identifiers.new_id(),
            keys.prefix_of(secret),
            keys.hash_of(secret),
            datetime.now(UTC),
        )
        done = self._store.rotate(key.id, new, grace_s, caller, origin, idempotency)
        if isinstance(done, str):
            raise _refusal(done, text)
        self._publish(done.event)
        return done, None if done.replayed else secret

    def _live(self, text: str, caller: Caller) -> ApiKey:
        key = self.one(text, caller)
        if key.revoked_at is not None:
            raise _refusal("revoked", text)
        return key

    def revoke(self, text: str, caller: Caller, origin: Origin) -> None:
        """Invalid from the next request on; its waiting commands end, its running ones go on."""
        key = self.one(text, caller)
        event = self._store.revoke(key.id, never_ran(Reason.KEY_REVOKED), caller, origin)
        if event is None:
            raise NotFound.named(text)
        self._publish(event)


def _refuse(status: str, text: str) -> None:
    if status != "ok":
        raise _refusal(status, text)


def _refusal(status: str, text: str) -> Conflict | NotFound:
    if status == "revoked":
        return Conflict("this key is revoked")
    if status == "replaced":
        return Conflict("this key was rotated before; rotate the one that replaced it")
    return NotFound.named(text)


def _as_json(value: Any) -> Any:
    if isinstance(value, frozenset | tuple):
        return sorted(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, RateLimit):
        return {"limit": value.limit, "window_s": value.window_s}
    return value


def _check_expiry(at: datetime | None) -> None:
    if at is None:
        return
    now = datetime.now(UTC)
    if at <= now:
        raise InvalidField.one("expires_at", "in_the_past", "expires_at: lies in the past")
    if at > now + FARTHEST_EXPIRY:
        raise InvalidField.one("expires_at", "too_far", "expires_at: null is for ever")


def _check_not_wider(wanted: ApiKey, caller: Caller) -> None:
    more = sorted(s for s in wanted.scopes if not grants(caller.scopes, s))
    if more:
        raise Forbidden(f"this key cannot give scopes it lacks: {', '.join(more)}")
    if not caller.sees_all(wanted.projects):
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
            or rate.limit > caller.rate_limit.limit
            or rate.limit / rate.window_s > caller.rate_limit.limit / caller.rate_limit.window_s
        ):
            return True
    limit = caller.max_concurrent
    return limit is not None and (wanted.max_concurrent is None or wanted.max_concurrent > limit)
