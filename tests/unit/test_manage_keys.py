"""common/services/manage_keys.py: no key makes one that may do more than itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from common.domain import identifiers, keys
from common.domain.errors import Conflict, Forbidden, InvalidField, NotFound
from common.domain.keys import ApiKey, Caller, RateLimit
from common.domain.scopes import ALL
from common.ports.commands import Idempotency, Origin
from common.ports.keys import CreatedKey, NewText
from common.services.manage_keys import ManageKeys
from tests.unit.fakes import AT, KEY

ORIGIN = Origin("req_1")
NOW = datetime.now(UTC)
ADMIN = Caller(KEY, "admin", frozenset(ALL), None, unlimited=True)
NARROW = Caller(
    KEY,
    "narrow",
    frozenset({"keys:admin", "commands:write:git"}),
    frozenset({"demo"}),
    max_concurrent=5,
    rate_limit=RateLimit(100, 60),
    allowed_ips=("10.0.0.0/8", "2001:db8::/32"),
    expires_at=NOW + timedelta(days=1),
)
FITS = ApiKey(
    identifiers.new_id(),
    "ci",
    "",
    frozenset({"commands:write:git"}),
    frozenset({"demo"}),
    ("10.1.0.0/16",),
    RateLimit(100, 60),
    5,
    AT,
    expires_at=NOW + timedelta(hours=1),
)


EVENT = UUID(int=9)


class Store:
    def __init__(self) -> None:
        self.rows: dict[UUID, ApiKey] = {}
        self.hashes: list[bytes] = []
        self.replays: ApiKey | None = None
        self.outcomes: list[dict[str, Any]] = []
        self.changes: list[dict[str, Any]] = []
        self.answer = "ok"

    def create(
        self, key: ApiKey, key_hash: bytes, caller: Caller, origin: Origin, idem: Idempotency | None
    ) -> CreatedKey:
        if self.replays:
            return CreatedKey(self.replays, replayed=True)
        self.rows[key.id] = key
        self.hashes.append(key_hash)
        return CreatedKey(key, replayed=False)

    def ensure_admin(self, key: ApiKey, key_hash: bytes) -> None:
        self.rows[key.id] = key
        self.hashes.append(key_hash)

    def get(self, key_id: UUID) -> ApiKey | None:
        return self.rows.get(key_id)

    def list(self, before: UUID | None, limit: int) -> list[ApiKey]:
        newest = sorted(self.rows.values(), key=lambda k: k.id, reverse=True)
        return [k for k in newest if before is None or k.id < before][:limit]

    def update(self, key_id: UUID, changes: dict[str, Any], caller: Caller, origin: Origin) -> str:
        self.changes.append(changes)
        return self.answer

    def rotate(
        self,
        key_id: UUID,
        new: NewText,
        grace_s: int,
        caller: Caller,
        origin: Origin,
        idem: Idempotency | None,
    ) -> CreatedKey | str:
        if self.answer != "ok":
            return self.answer
        self.hashes.append(new.hash)
        return CreatedKey(replace(self.rows[key_id], id=new.id, prefix=new.prefix), replayed=False)

    def revoke(
        self, key_id: UUID, outcome: dict[str, Any], caller: Caller, origin: Origin
    ) -> UUID | None:
        self.outcomes.append(outcome)
        return EVENT if key_id in self.rows else None


@pytest.fixture
def store() -> Store:
    return Store()


def manage(store: Store) -> ManageKeys:
    return ManageKeys(store, lambda _event: None)  # type: ignore[arg-type]


def show(key: ApiKey) -> str:
    return identifiers.show(identifiers.KEY, key.id)


def test_a_key_is_shown_once_and_stored_as_its_hash(store: Store) -> None:
    """The text belongs to the hash and prefix, and is nowhere else."""
    created, text = manage(store).create(FITS, ADMIN, ORIGIN, None)
    assert text is not None
    assert keys.is_well_formed(text)
    assert store.hashes == [keys.hash_of(text)]
    assert created.key.prefix == keys.prefix_of(text)
    assert text not in repr(store.rows)


def test_a_replay_shows_no_secret(store: Store) -> None:
    """The first answer was the only one with the text."""
    store.replays = FITS
    created, text = manage(store).create(FITS, ADMIN, ORIGIN, Idempotency("r", "k", b"h"))
    assert (created.replayed, text) == (True, None)


def test_what_is_no_wider_is_made(store: Store) -> None:
    """Scopes, projects, addresses, expiry and limits within the maker's own."""
    manage(store).create(FITS, NARROW, ORIGIN, None)
    assert FITS.id in store.rows


@pytest.mark.parametrize(
    "wider",
    [
        {"scopes": frozenset({"commands:write"})},
        {"scopes": frozenset({"commands:write:git", "audit:read"})},
        {"projects": None},
        {"projects": frozenset({"demo", "other"})},
        {"allowed_ips": ()},
        {"allowed_ips": ("0.0.0.0/0",)},
        {"allowed_ips": ("10.0.0.0/8", "11.0.0.0/8")},
        {"allowed_ips": ("2001:db9::/32",)},
        {"allowed_ips": ("::/0",)},
        {"expires_at": None},
        {"expires_at": NOW + timedelta(days=2)},
        {"rate_limit": None},
        {"rate_limit": RateLimit(101, 60)},
        {"rate_limit": RateLimit(100, 59)},
        {"rate_limit": RateLimit(6000, 3600)},
        {"max_concurrent": None},
        {"max_concurrent": 6},
    ],
    ids=lambda wider: next(iter(wider)),
)
def test_what_is_wider_in_any_way_is_forbidden(store: Store, wider: dict[str, Any]) -> None:
    """Each limit of the maker binds what it makes."""
    with pytest.raises(Forbidden):
        manage(store).create(replace(FITS, **wider), NARROW, ORIGIN, None)
    assert store.rows == {}


@pytest.mark.parametrize(
    "narrower",
    [
        {"allowed_ips": ("2001:db8:1::/48", "10.0.0.1/32")},
        {"rate_limit": RateLimit(10, 60)},
        {"max_concurrent": 1},
        {"projects": frozenset()},
    ],
    ids=repr,
)
def test_what_is_narrower_is_made(store: Store, narrower: dict[str, Any]) -> None:
    """Less is always allowed."""
    manage(store).create(replace(FITS, **narrower), NARROW, ORIGIN, None)
    assert len(store.rows) == 1


@pytest.mark.parametrize(
    "wider", [{"scopes": frozenset({"audit:read"})}, {"allowed_ips": ()}, {"expires_at": None}]
)
def test_a_key_is_not_changed_to_what_could_not_be_made(
    store: Store, wider: dict[str, Any]
) -> None:
    """The whole key, as it would be, is held to the limits of who changes it."""
    manage(store).create(FITS, ADMIN, ORIGIN, None)
    with pytest.raises(Forbidden):
        manage(store).update(show(FITS), wider, NARROW, ORIGIN)
    assert store.changes == []
    manage(store).update(show(FITS), {"max_concurrent": 1}, NARROW, ORIGIN)
    assert store.changes == [{"max_concurrent": 1}]


def test_changes_are_told_as_the_api_writes_them(store: Store) -> None:
    """Sets as sorted lists, moments as ISO text; nothing to change is nothing done."""
    manage(store).create(FITS, ADMIN, ORIGIN, None)
    at = NOW + timedelta(hours=2)
    fields = {"scopes": frozenset({"b", "a"}), "rate_limit": RateLimit(1, 2), "expires_at": at}
    manage(store).update(show(FITS), fields | {"scopes": FITS.scopes}, ADMIN, ORIGIN)
    manage(store).update(show(FITS), {}, ADMIN, ORIGIN)
    [told] = store.changes
    assert told == {
        "scopes": ["commands:write:git"],
        "rate_limit": {"limit": 1, "window_s": 2},
        "expires_at": at.isoformat(),
    }


def test_a_wider_key_is_not_rotated_into_ones_own_hands(store: Store) -> None:
    """The answer holds a secret: a key that may not be made may not be had either."""
    manage(store).create(replace(FITS, scopes=frozenset({"audit:read"})), ADMIN, ORIGIN, None)
    hashes = list(store.hashes)
    with pytest.raises(Forbidden):
        manage(store).rotate(show(FITS), 60, NARROW, ORIGIN, None)
    assert store.hashes == hashes


def test_a_rotation_shows_the_new_text_once(store: Store) -> None:
    """It belongs to the hash that was stored."""
    manage(store).create(FITS, ADMIN, ORIGIN, None)
    made, text = manage(store).rotate(show(FITS), 60, NARROW, ORIGIN, None)
    assert text is not None
    assert store.hashes[-1] == keys.hash_of(text)
    assert made.key.prefix == keys.prefix_of(text)


@pytest.mark.parametrize(
    ("answer", "error"), [("revoked", Conflict), ("replaced", Conflict), ("unknown", NotFound)]
)
def test_what_cannot_be_changed_or_rotated_says_why(
    store: Store, answer: str, error: type[Exception]
) -> None:
    """409 for what is over, 404 for what never was."""
    manage(store).create(FITS, ADMIN, ORIGIN, None)
    store.answer = answer
    with pytest.raises(error):
        manage(store).rotate(show(FITS), 60, ADMIN, ORIGIN, None)
    with pytest.raises(error):
        manage(store).update(show(FITS), {"name": "x"}, ADMIN, ORIGIN)


def test_a_revoked_key_stays_as_it_is(store: Store) -> None:
    """A change would look as if it could be used."""
    manage(store).create(replace(FITS, revoked_at=NOW), ADMIN, ORIGIN, None)
    with pytest.raises(Conflict):
        manage(store).update(show(FITS), {"name": "x"}, ADMIN, ORIGIN)
    assert store.changes == []


def test_an_unlimited_key_gives_any_limits(store: Store) -> None:
    """The admin's key has none of its own."""
    free = replace(FITS, rate_limit=None, max_concurrent=None, projects=None, expires_at=None)
    manage(store).create(free, ADMIN, ORIGIN, None)
    assert len(store.rows) == 1


@pytest.mark.parametrize(
    ("at", "code"),
    [(AT, "in_the_past"), (datetime(9999, 12, 31, 23, 59, tzinfo=UTC), "too_far")],
)
def test_an_expiry_lies_ahead_and_within_a_century(store: Store, at: datetime, code: str) -> None:
    """Before now the key would be valid never; beyond a century null says it better."""
    with pytest.raises(InvalidField) as caught:
        manage(store).create(replace(FITS, expires_at=at), ADMIN, ORIGIN, None)
    assert [(e.field, e.code) for e in caught.value.errors] == [("expires_at", code)]
    assert store.rows == {}


def test_the_admin_key_has_every_scope_and_no_limit(store: Store) -> None:
    """The laptop's own key."""
    text = keys.new_key()
    manage(store).ensure_admin(text)
    [key] = store.rows.values()
    assert (key.scopes, key.projects, key.rate_limit) == (frozenset(ALL), None, None)
    assert store.hashes == [keys.hash_of(text)]


def test_a_key_is_found_by_its_id(store: Store) -> None:
    """Another id is not found, whatever it looks like."""
    manage(store).create(FITS, ADMIN, ORIGIN, None)
    assert manage(store).one(show(FITS), ADMIN).name == "ci"
    for text in ("nonsense", "key_" + "0" * 32, "cmd_" + FITS.id.hex):
        with pytest.raises(NotFound):
            manage(store).one(text, ADMIN)


def test_revoking_ends_what_waits_with_its_reason(store: Store) -> None:
    """Its waiting commands are cancelled because the key was revoked."""
    manage(store).create(FITS, ADMIN, ORIGIN, None)
    manage(store).revoke(show(FITS), ADMIN, ORIGIN)
    assert store.outcomes[0]["reason"] == "key_revoked"


def test_revoking_what_is_not_there_is_not_found(store: Store) -> None:
    """As for a key that never was."""
    with pytest.raises(NotFound):
        manage(store).revoke("key_" + "0" * 32, ADMIN, ORIGIN)


@pytest.mark.parametrize("projects", [None, frozenset({"other"}), frozenset({"demo", "other"})])
def test_a_key_for_some_projects_does_not_see_keys_for_others(
    store: Store, projects: frozenset[str] | None
) -> None:
    """It can neither list, show nor revoke them: else it could revoke the admin's key."""
    manage(store).create(replace(FITS, projects=projects), ADMIN, ORIGIN, None)
    with pytest.raises(NotFound):
        manage(store).one(show(FITS), NARROW)
    with pytest.raises(NotFound):
        manage(store).revoke(show(FITS), NARROW, ORIGIN)
    assert store.outcomes == []
    assert manage(store).many(None, 10, NARROW) == []


def test_lists_are_full_pages_whatever_is_hidden_in_between(store: Store) -> None:
    """Newest first; what may not be seen is skipped and costs no place."""
    made = []
    for n in range(30):
        projects = frozenset({"demo"}) if n % 3 == 0 else None
        key = replace(FITS, id=identifiers.new_id(), projects=projects)
        made.append(key)
        manage(store).create(key, ADMIN, ORIGIN, None)
    mine = [k.id for k in reversed(made) if k.projects]
    assert [k.id for k in manage(store).many(None, 6, NARROW)] == mine[:6]
    assert [k.id for k in manage(store).many(mine[5], 6, NARROW)] == mine[6:]
    assert [k.id for k in manage(store).many(None, 7, ADMIN)] == [k.id for k in reversed(made)][:7]
