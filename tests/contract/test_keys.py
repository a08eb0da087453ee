"""What every KeyStore does: authorising exactly, creating once, revoking at once."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from common.domain.command import State
from common.domain.errors import InvalidField
from common.domain.identifiers import new_id
from common.domain.keys import ApiKey, hash_of, new_key, prefix_of
from common.ports.commands import Idempotency
from common.ports.keys import CreatedKey, NewText
from tests.contract.conftest import CANCELLED, ORIGIN, WORKER, World, nobody, now, rate

SCOPE = ("commands:write",)


def status(
    world: World, text: str, *, scopes: tuple[str, ...] = SCOPE, ip: str | None = None
) -> str:
    return world.keys.authorise(hash_of(text), scopes, ip, counts=True).status


def made(**fields: object) -> tuple[str, ApiKey]:
    """A key that is not stored yet."""
    text = new_key()
    key = ApiKey(
        new_id(), "ci", prefix_of(text), frozenset({"keys:admin"}), None, (), None, None, now()
    )
    return text, replace(key, **fields)  # type: ignore[arg-type]


# -- authorising -----------------------------------------------------------------------------------


def test_a_grant_says_who_is_asking(world: World) -> None:
    """The caller has everything services check: scopes, projects, limits, addresses."""
    text, caller = world.key(
        projects=frozenset({"demo"}),
        allowed_ips=("192.0.2.0/24", "2001:db8::/32"),
        max_concurrent=3,
        rate_limit=rate(10),
    )
    grant = world.keys.authorise(hash_of(text), SCOPE, "192.0.2.9", counts=True)
    assert grant.status == "ok"
    assert grant.caller == caller
    assert grant.remaining == 9
    assert grant.reset_s is not None
    assert 59 < grant.reset_s <= 60


def test_an_unknown_key_is_nobody(world: World) -> None:
    """A well-formed key that was never stored."""
    grant = world.keys.authorise(hash_of(new_key()), SCOPE, None, counts=True)
    assert (grant.status, grant.caller) == ("unknown", None)


def test_any_of_the_scopes_is_enough(world: World) -> None:
    """The asked scopes are alternatives; none asked means none needed."""
    text, _ = world.key(scopes=frozenset({"projects:read"}))
    assert status(world, text, scopes=("audit:read", "projects:read")) == "ok"
    assert status(world, text, scopes=("audit:read",)) == "scope"
    assert status(world, text, scopes=()) == "ok"


def test_an_expired_key_is_refused_from_its_moment_on(world: World) -> None:
    """Before expires_at it works, after it does not."""
    text, _ = world.key(expires_at=now() + timedelta(hours=1))
    assert status(world, text) == "ok"
    world.pass_time(3601)
    assert status(world, text) == "expired"


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("10.1.2.3", "ok"),
        ("11.1.2.3", "ip"),
        ("2001:db8::1", "ok"),
        ("2001:db9::1", "ip"),
        ("fe80::1%eth0", "ip"),
        ("garbage", "ip"),
        ("", "ip"),
        (None, "ip"),
    ],
)
def test_addresses_bind_a_key(world: World, ip: str | None, expected: str) -> None:
    """Inside one of the networks, or refused; an unknown address is outside."""
    text, _ = world.key(allowed_ips=("10.0.0.0/8", "2001:db8::/32"))
    assert status(world, text, ip=ip) == expected


@pytest.mark.parametrize("ip", ["garbage", None, "1.2.3.4"])
def test_a_key_without_addresses_works_from_anywhere(world: World, ip: str | None) -> None:
    """Only keys that name networks care where a request comes from."""
    text, _ = world.key()
    assert status(world, text, ip=ip) == "ok"


def test_last_used_moves_at_most_once_a_minute(world: World) -> None:
    """Authorising does not rewrite the key each time."""
    text, caller = world.key()

    def used() -> object:
        key = world.keys.get(caller.key_id)
        assert key is not None
        return key.last_used_at

    assert used() is None
    status(world, text)
    first = used()
    assert first is not None
    status(world, text)
    assert used() == first
    world.pass_time(61)
    status(world, text)
    assert used() != first


# -- the window ------------------------------------------------------------------------------------


def test_the_window_holds_exactly_its_limit(world: World) -> None:
    """The 101st is refused, and the first after the window opens succeeds."""
    text, _ = world.key(rate_limit=rate(100))
    grants = [world.keys.authorise(hash_of(text), SCOPE, None, counts=True) for _ in range(102)]
    assert [g.status for g in grants] == ["ok"] * 100 + ["limited"] * 2
    assert [g.remaining for g in grants] == [*range(99, -1, -1), 0, 0]
    assert grants[-1].caller is not None
    assert 0 < (grants[-1].reset_s or 0) <= 60
    world.pass_time(61)
    assert status(world, text) == "ok"


def test_the_window_slides(world: World) -> None:
    """A grant counts for its own 60 s, not until some round minute."""
    text, _ = world.key(rate_limit=rate(2))
    assert status(world, text) == "ok"
    world.pass_time(40)
    assert status(world, text) == "ok"
    assert status(world, text) == "limited"
    world.pass_time(21)
    assert status(world, text) == "ok"
    assert status(world, text) == "limited"
    world.pass_time(40)
    assert status(world, text) == "ok"


def test_refusals_consume_nothing(world: World) -> None:
    """A wrong scope or address, a full window and a request that does not count use nothing up."""
    text, _ = world.key(rate_limit=rate(3), allowed_ips=("10.0.0.0/8",))
    for _ in range(5):
        assert status(world, text, ip="11.0.0.1") == "ip"
        assert status(world, text, scopes=("audit:read",), ip="10.0.0.1") == "scope"
        grant = world.keys.authorise(hash_of(text), SCOPE, "10.0.0.1", counts=False)
        assert (grant.status, grant.remaining) == ("ok", 3)
    assert [status(world, text, ip="10.0.0.1") for _ in range(4)] == ["ok"] * 3 + ["limited"]
    world.pass_time(61)
    assert [status(world, text, ip="10.0.0.1") for _ in range(4)] == ["ok"] * 3 + ["limited"]


def test_what_does_not_count_is_not_limited(world: World) -> None:
    """A resumed stream passes a full window."""
    text, _ = world.key(rate_limit=rate(1))
    assert status(world, text) == "ok"
    grant = world.keys.authorise(hash_of(text), SCOPE, None, counts=False)
    assert (grant.status, grant.remaining) == ("ok", 0)


def test_a_large_window_holds_no_more_than_its_limit(world: World) -> None:
    """Above 240 grants a window counts in buckets, and still never holds more than its limit."""
    text, _ = world.key(rate_limit=rate(300))
    grants = [world.keys.authorise(hash_of(text), SCOPE, None, counts=True) for _ in range(303)]
    assert [g.status for g in grants] == ["ok"] * 300 + ["limited"] * 3
    assert grants[0].remaining == 299
    world.pass_time(62)
    assert status(world, text) == "ok"


def test_sixteen_at_once_get_exactly_the_limit(world: World) -> None:
    """However many ask at once, the window gives out its limit and not one more."""
    text, _ = world.key(rate_limit=rate(50))
    answers: list[str] = []

    def ask() -> None:
        answers.extend(status(world, text) for _ in range(10))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers.count("ok") == 50
    assert answers.count("limited") == 110


# -- creating --------------------------------------------------------------------------------------


def test_a_created_key_reads_back(world: World) -> None:
    """What was stored is what is answered, by id and in the list."""
    _, caller = world.key()
    text, key = made(
        scopes=frozenset({"a", "null"}),
        projects=frozenset(),
        allowed_ips=("10.0.0.0/8",),
        rate_limit=rate(7, 13),
        max_concurrent=2,
        expires_at=now() + timedelta(days=1),
    )
    created = world.keys.create(key, hash_of(text), caller, ORIGIN, None)
    assert created.key == key
    assert not created.replayed
    assert world.keys.get(key.id) == key


def test_a_repeated_creation_is_the_same_key(world: World) -> None:
    """The second request with one Idempotency-Key makes no second key."""
    _, caller = world.key()
    once = Idempotency("POST /v1/keys", "k", b"hash")
    (text, key), (other_text, other) = made(), made()
    world.keys.create(key, hash_of(text), caller, ORIGIN, once)
    again = world.keys.create(other, hash_of(other_text), caller, ORIGIN, once)
    assert (again.key, again.replayed) == (key, True)
    assert world.keys.get(other.id) is None
    with pytest.raises(InvalidField) as refused:
        world.keys.create(
            other, hash_of(other_text), caller, ORIGIN, Idempotency("POST /v1/keys", "k", b"x")
        )
    assert refused.value.code == "idempotency_mismatch"


def test_keys_are_listed_newest_first_below_an_id(world: World) -> None:
    """Pages go on where the last ended, revoked keys included."""
    callers = [world.key()[1] for _ in range(4)]
    world.keys.revoke(callers[1].key_id, CANCELLED, callers[0], ORIGIN)
    first = [key.id for key in world.keys.list(None, 3)]
    rest = [key.id for key in world.keys.list(first[-1], 3)]
    assert first + rest == [caller.key_id for caller in reversed(callers)]


def test_the_admin_key_is_there_as_given_whatever_happened(world: World) -> None:
    """Ensuring it twice makes one key, and brings a revoked one back."""
    text, key = made()
    world.keys.ensure_admin(key, hash_of(text))
    first = world.keys.authorise(hash_of(text), ("keys:admin",), None, counts=True)
    assert first.status == "ok"
    assert first.caller is not None
    assert first.caller.unlimited
    world.keys.revoke(key.id, CANCELLED, first.caller, ORIGIN)
    _, later = made(scopes=frozenset({"keys:admin", "audit:read"}))
    world.keys.ensure_admin(later, hash_of(text))
    again = world.keys.authorise(hash_of(text), ("audit:read",), None, counts=True)
    assert again.status == "ok"
    assert again.caller is not None
    assert again.caller.key_id == key.id
    assert len(world.keys.list(None, 10)) == 1


# -- changing and rotating -------------------------------------------------------------------------


def test_a_change_touches_only_what_it_names(world: World) -> None:
    """Every field can change, null included; what is not named stays as it was."""
    _, caller = world.key(projects=frozenset({"demo"}), rate_limit=rate(5), max_concurrent=2)
    before = world.keys.get(caller.key_id)
    assert before is not None
    assert world.keys.update(caller.key_id, {"name": "new"}, caller, ORIGIN) == "ok"
    assert world.keys.get(caller.key_id) == replace(before, name="new")
    expires_at = now() + timedelta(hours=1)
    changes = {
        "scopes": ["audit:read", "commands:read"],
        "projects": None,
        "allowed_ips": ["10.0.0.0/8", "2001:db8::/32"],
        "rate_limit": {"limit": 7, "window_s": 70},
        "max_concurrent": None,
        "expires_at": expires_at.isoformat(),
    }
    assert world.keys.update(caller.key_id, changes, caller, ORIGIN) == "ok"
    assert world.keys.get(caller.key_id) == replace(
        before,
        name="new",
        scopes=frozenset({"audit:read", "commands:read"}),
        projects=None,
        allowed_ips=("10.0.0.0/8", "2001:db8::/32"),
        rate_limit=rate(7, 70),
        max_concurrent=None,
        expires_at=expires_at,
    )


def test_a_change_holds_from_the_next_request_on(world: World) -> None:
    """Scopes, addresses and limits are read anew by every request."""
    text, caller = world.key()
    assert status(world, text, ip="10.0.0.1") == "ok"
    world.keys.update(caller.key_id, {"allowed_ips": ["192.0.2.0/24"]}, caller, ORIGIN)
    assert status(world, text, ip="10.0.0.1") == "ip"
    world.keys.update(caller.key_id, {"scopes": ["audit:read"]}, caller, ORIGIN)
    assert status(world, text, ip="192.0.2.1") == "scope"


def test_what_is_revoked_or_unknown_does_not_change(world: World) -> None:
    """It says which of the two, and so does a rotation."""
    text, caller = world.key()
    world.keys.revoke(caller.key_id, CANCELLED, caller, ORIGIN)
    assert world.keys.update(caller.key_id, {"name": "x"}, caller, ORIGIN) == "revoked"
    assert world.keys.update(new_id(), {"name": "x"}, caller, ORIGIN) == "unknown"
    _, new = fresh()
    assert world.keys.rotate(caller.key_id, new, 60, caller, ORIGIN, None) == "revoked"
    assert world.keys.rotate(new_id(), new, 60, caller, ORIGIN, None) == "unknown"
    assert status(world, text) == "revoked"


def fresh() -> tuple[str, NewText]:
    """What a rotation needs of a new key."""
    text = new_key()
    return text, NewText(new_id(), prefix_of(text), hash_of(text), now())


def test_a_rotated_key_works_on_for_its_grace(world: World) -> None:
    """Then only the new one does, which has everything the old one had."""
    old_text, caller = world.key(projects=frozenset({"demo"}), rate_limit=rate(9))
    old = world.keys.get(caller.key_id)
    assert old is not None
    text, new = fresh()
    done = world.keys.rotate(caller.key_id, new, 60, caller, ORIGIN, None)
    assert isinstance(done, CreatedKey)
    same = replace(old, id=new.id, prefix=new.prefix, created_at=new.created_at)
    assert done.key == same
    rotated = world.keys.get(caller.key_id)
    assert rotated is not None
    assert rotated.replaced_by == new.id
    assert (status(world, old_text), status(world, text)) == ("ok", "ok")
    world.pass_time(61)
    assert (status(world, old_text), status(world, text)) == ("expired", "ok")


def test_a_rotation_never_lengthens_a_life(world: World) -> None:
    """The old key ends when it would have, and the new one too."""
    _, caller = world.key(expires_at=now() + timedelta(seconds=30))
    old = world.keys.get(caller.key_id)
    assert old is not None
    done = world.keys.rotate(caller.key_id, fresh()[1], 600, caller, ORIGIN, None)
    assert isinstance(done, CreatedKey)
    after = world.keys.get(caller.key_id)
    assert after is not None
    assert after.expires_at == old.expires_at == done.key.expires_at


def test_a_key_is_rotated_once(world: World) -> None:
    """The same request again answers the same key; another one is told of the first."""
    _, caller = world.key()
    once = Idempotency("POST /v1/keys/x/rotate", "k", b"h" * 32)
    first = world.keys.rotate(caller.key_id, fresh()[1], 60, caller, ORIGIN, once)
    again = world.keys.rotate(caller.key_id, fresh()[1], 60, caller, ORIGIN, once)
    assert isinstance(first, CreatedKey)
    assert isinstance(again, CreatedKey)
    assert (again.key.id, first.replayed, again.replayed) == (first.key.id, False, True)
    assert world.keys.rotate(caller.key_id, fresh()[1], 60, caller, ORIGIN, None) == "replaced"


def test_only_who_has_no_limits_hands_that_on(world: World) -> None:
    """A rotation of the admin's key by a lesser one is a key with the limits of its row."""
    admin_text, key = made()
    world.keys.ensure_admin(key, hash_of(admin_text))
    _, lesser = world.key(scopes=frozenset({"keys:admin"}))
    text, new = fresh()
    world.keys.rotate(key.id, new, 60, lesser, ORIGIN, None)
    grant = world.keys.authorise(hash_of(text), ("keys:admin",), None, counts=True)
    assert grant.caller is not None
    assert not grant.caller.unlimited


# -- revoking --------------------------------------------------------------------------------------


def test_a_revoked_key_ends_its_waiting_commands(world: World) -> None:
    """What waits or is scheduled is cancelled; what runs, and what others submitted, goes on."""
    world.project()
    (text, caller), (_, other) = world.key(), world.key()
    running = world.running(caller)
    waiting = [world.submit(caller).command.id for _ in range(3)]
    waiting.append(world.submit(caller, run_at=now() + timedelta(hours=1)).command.id)
    others = world.submit(other).command.id
    outcome = {"reason": "key_revoked"}
    assert world.keys.revoke(caller.key_id, outcome, other, ORIGIN)
    assert status(world, text) == "revoked"
    ended = world.commands.get_many(waiting)
    assert [(c.state, c.outcome) for c in ended] == [(State.CANCELLED, outcome)] * 4
    assert world.queue.held(running.command.id, running.token)
    claim = world.queue.claim("demo", WORKER)
    assert claim is not None
    assert claim.command.id == others


def test_revoking_twice_is_as_good_as_once(world: World) -> None:
    """The second revocation changes nothing; an unknown key is False."""
    _, caller = world.key()
    assert world.keys.revoke(caller.key_id, CANCELLED, caller, ORIGIN)
    first = world.keys.get(caller.key_id)
    assert world.keys.revoke(caller.key_id, CANCELLED, caller, ORIGIN)
    assert world.keys.get(caller.key_id) == first
    assert not world.keys.revoke(new_id(), CANCELLED, caller, ORIGIN)


def test_a_caller_is_its_key(world: World) -> None:
    """The world's helper makes the caller that authorising makes."""
    text, key = made()
    world.keys.create(key, hash_of(text), nobody(key), ORIGIN, None)
    grant = world.keys.authorise(hash_of(text), (), None, counts=False)
    assert grant.caller == nobody(key)
