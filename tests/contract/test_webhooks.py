"""What every WebhookStore and DeliveryQueue does: who hears what, once, under a lease."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from common.domain.audit import AuditFilter
from common.domain.command import State
from common.domain.errors import Conflict, InvalidField
from common.domain.identifiers import KEY, WEBHOOK, new_id, show
from common.domain.keys import Caller
from common.domain.webhooks import Answer, Delivery, DeliveryState, Endpoint, Payload
from common.ports.commands import Idempotency
from common.ports.keys import NewText
from common.ports.upkeep import Retention
from common.ports.webhooks import LEASE_S, Claimed, DeliveryFilter, Made, Range
from tests.contract.conftest import CANCELLED, ORIGIN, World, now

SCOPES = frozenset({"webhooks:write", "commands:write"})
FINE, BROKEN = Answer(200, 3, head=b"ok"), Answer(500, 4, "it answered 500", b"\xff")


def key(world: World, **fields: Any) -> Caller:
    world.project()
    return world.key(**{"scopes": SCOPES} | fields)[1]


def hook(world: World, caller: Caller, **fields: Any) -> Endpoint:
    """A stored endpoint of a caller."""
    plain: dict[str, Any] = {"url": "https://example.com/", "payload": Payload.THIN}
    endpoint = Endpoint(new_id(), caller.key_id, created_at=now(), **plain | fields)
    return world.webhooks.create(endpoint, None, b"sealed", caller, ORIGIN, None).endpoint


def happens(world: World, caller: Caller, project: str = "demo") -> None:
    """A command ends: three events."""
    world.finish(world.running(caller, project))


def fanned(world: World, caller: Caller, **fields: Any) -> Endpoint:
    """An endpoint with deliveries of one command."""
    endpoint = hook(world, caller, **fields)
    happens(world, caller)
    world.deliveries.fan_out(100)
    return endpoint


def all_of(world: World, endpoint: Endpoint, **wanted: Any) -> list[Delivery]:
    return world.webhooks.deliveries(endpoint.id, DeliveryFilter(**wanted))


def types(world: World, endpoint: Endpoint, **wanted: Any) -> list[str]:
    return sorted(d.event_type for d in all_of(world, endpoint, **wanted))


def made(claimed: Claimed, answer: Answer = FINE, retry_in_s: float | None = None,
         rest_s: float = 0.0) -> Made:  # fmt: skip
    return Made(claimed, answer, 0.5, retry_in_s, rest_s)


# -- endpoints -------------------------------------------------------------------------------------


def test_an_endpoint_is_kept_as_it_was_given(world: World) -> None:
    """And found again, alone and in the list, newest first."""
    caller = key(world)
    first = hook(
        world,
        caller,
        description="mine",
        event_types=frozenset({"command.lost"}),
        projects=frozenset({"demo"}),
        payload=Payload.FULL,
        header_names=("X-A",),
    )
    second = hook(world, caller)
    assert world.webhooks.get(first.id) == first
    assert (first.key_id, first.description, first.header_names) == (
        caller.key_id,
        "mine",
        ("X-A",),
    )
    assert [e.id for e in world.webhooks.list(None, 10)] == [second.id, first.id]
    assert [e.id for e in world.webhooks.list(second.id, 10)] == [first.id]
    assert world.webhooks.get(new_id()) is None


def test_an_idempotency_key_makes_one_endpoint(world: World) -> None:
    """The same again answers the first, another request is refused."""
    caller = key(world)
    idem = Idempotency("POST /v1/webhooks", "a", b"1" * 32)
    wanted = Endpoint(new_id(), caller.key_id, "https://e.com/", Payload.THIN, now())
    again = replace(wanted, id=new_id())
    first = world.webhooks.create(wanted, None, b"s", caller, ORIGIN, idem)
    second = world.webhooks.create(again, None, b"t", caller, ORIGIN, idem)
    assert (first.replayed, second.replayed) == (False, True)
    assert second.endpoint == first.endpoint
    with pytest.raises(InvalidField):
        world.webhooks.create(
            again, None, b"t", caller, ORIGIN, replace(idem, request_hash=b"2" * 32)
        )
    world.webhooks.delete(wanted.id, caller, ORIGIN)
    with pytest.raises(Conflict):
        world.webhooks.create(again, None, b"t", caller, ORIGIN, idem)


def test_a_key_has_so_many_endpoints_and_no_more(world: World) -> None:
    """The 101st is refused; another key has its own."""
    caller = key(world)
    for _ in range(100):
        hook(world, caller)
    with pytest.raises(Conflict):
        hook(world, caller)
    hook(world, key(world))


def test_an_endpoint_changes_field_by_field(world: World) -> None:
    """What is not named stays; headers and their names change together."""
    caller = key(world)
    one = hook(world, caller, description="old", projects=frozenset({"demo"}))
    changes: dict[str, Any] = {
        "url": "https://other.com/",
        "event_types": frozenset({"command.lost"}),
        "projects": None,
        "header_names": ["X-A"],
    }
    assert world.webhooks.update(one.id, changes, b"headers", caller, ORIGIN)
    got = world.webhooks.get(one.id)
    assert got == replace(
        one,
        url="https://other.com/",
        event_types=frozenset({"command.lost"}),
        projects=None,
        header_names=("X-A",),
    )
    target = world.deliveries.target(one.id)
    assert target is not None and target.sealed_headers == b"headers"
    assert world.webhooks.update(one.id, {"description": ""}, None, caller, ORIGIN)
    target = world.deliveries.target(one.id)
    assert target is not None and target.sealed_headers == b"headers"
    assert not world.webhooks.update(new_id(), changes, None, caller, ORIGIN)


def test_a_rotated_secret_signs_beside_the_new_one_for_a_while(world: World) -> None:
    """Newest first; after the grace the old one is gone, and a replay makes none."""
    caller = key(world)
    one = hook(world, caller)
    idem = Idempotency("POST rotate", "a", b"1" * 32)
    rotate = world.webhooks.rotate
    assert rotate(one.id, b"new", 60, caller, ORIGIN, idem) == "ok"
    assert rotate(one.id, b"newer", 60, caller, ORIGIN, idem) == "replay"
    assert rotate(new_id(), b"x", 60, caller, ORIGIN, None) == "unknown"
    target = world.deliveries.target(one.id)
    assert target is not None and target.sealed_secrets == (b"new", b"sealed")
    world.pass_time(61)
    target = world.deliveries.target(one.id)
    assert target is not None and target.sealed_secrets == (b"new",)


def test_a_deleted_endpoint_is_gone_with_its_secrets(world: World) -> None:
    """Its deliveries are shown to nobody and sent nowhere."""
    caller = key(world)
    one = fanned(world, caller)
    assert world.webhooks.delete(one.id, caller, ORIGIN)
    assert not world.webhooks.delete(one.id, caller, ORIGIN)
    assert world.webhooks.get(one.id) is None
    assert world.webhooks.list(None, 10) == []
    assert world.deliveries.target(one.id) is None
    assert world.deliveries.due(0.0) == []
    assert world.deliveries.claim(one.id, 10) == []


# -- who hears what --------------------------------------------------------------------------------


def test_each_event_becomes_one_delivery_of_each_endpoint(world: World) -> None:
    """Without any event from the broker, and however often somebody looks."""
    caller = key(world)
    one, two = hook(world, caller), hook(world, caller, event_types=frozenset({"command.started"}))
    happens(world, caller)
    assert world.deliveries.fan_out(2) == 2
    assert world.deliveries.fan_out(100) == 1
    assert world.deliveries.fan_out(100) == 0
    heard = ["command.queued", "command.started", "command.succeeded"]
    assert types(world, one) == heard
    assert types(world, two) == ["command.started"]
    assert [d.state for d in all_of(world, one)] == [DeliveryState.PENDING] * 3


def test_an_event_says_whether_a_webhook_may_want_it(world: World) -> None:
    """So that without webhooks nobody is rung, and nothing is kept."""
    caller = key(world)
    world.submit(caller)
    hook(world, caller, event_types=frozenset({"command.queued"}))
    world.submit(caller)
    world.running(caller)
    world.pass_time(6)
    wanted = [(e.type.split(".")[-2], e.webhooks) for e in world.outbox.take_left(100)]
    assert wanted.count(("queued", True)) == 2
    assert wanted.count(("queued", False)) == 1
    assert ("started", False) in wanted
    assert world.deliveries.fan_out(100) == 2


@pytest.mark.parametrize(
    "without",
    [
        {"projects": frozenset({"other"})},
        {"scopes": frozenset({"commands:write"})},
        {"expires_at": now() + timedelta(seconds=30)},
    ],
    ids=["projects", "scope", "expired"],
)
def test_an_endpoint_hears_no_more_than_its_key_may_know(
    world: World, without: dict[str, Any]
) -> None:
    """The key is asked when the event is told, not when the endpoint was made."""
    world.project("other")
    one = hook(world, key(world, **without))
    world.pass_time(60)
    happens(world, key(world))
    world.deliveries.fan_out(100)
    assert types(world, one) == []


def test_an_endpoint_of_some_projects_hears_of_these_only(world: World) -> None:
    """Neither another project's commands nor what belongs to none."""
    world.project("other")
    caller = key(world)
    one = hook(world, caller, projects=frozenset({"other"}))
    happens(world, caller)
    happens(world, caller, "other")
    world.deliveries.fan_out(100)
    assert {d.project for d in all_of(world, one)} == {"other"}


def test_only_a_keys_admin_hears_of_keys(world: World) -> None:
    """Created and revoked, by id alone."""
    plain = hook(world, key(world))
    admin = hook(world, key(world, scopes=SCOPES | {"keys:admin"}))
    third = key(world)
    revoked = world.keys.revoke(third.key_id, CANCELLED, third, ORIGIN)
    world.deliveries.fan_out(100)
    assert types(world, plain) == []
    assert types(world, admin) == ["key.created", "key.revoked"]
    [last] = all_of(world, admin, types=["key.revoked"])
    assert last.event_id == revoked
    sent = world.webhooks.delivery(admin.id, last.id)
    assert sent is not None and sent.message.data == {"id": show(KEY, third.key_id)}


def test_endpoints_follow_their_keys(world: World) -> None:
    """To the new key when it is rotated; disabled when it is revoked."""
    caller = key(world)
    one = fanned(world, caller)
    new = NewText(new_id(), "rdev_x", b"h" * 32, now())
    world.keys.rotate(caller.key_id, new, 60, caller, ORIGIN, None)
    moved = world.webhooks.get(one.id)
    assert moved is not None and moved.key_id == new.id
    world.keys.revoke(new.id, CANCELLED, caller, ORIGIN)
    ended = world.webhooks.get(one.id)
    assert ended is not None and ended.disabled_reason == "key_revoked"
    assert {d.state for d in all_of(world, one)} == {DeliveryState.DEAD}
    assert world.deliveries.due(0.0) == []


def test_a_full_message_has_the_facts_of_its_moment(world: World) -> None:
    """No script, no argument, no environment; the started event knows no end."""
    caller = key(world)
    one = hook(world, caller, payload=Payload.FULL)
    world.finish(world.running(caller, spec={"script": "secret"}, labels={"a": "b"}))
    world.deliveries.fan_out(100)
    shown = {}
    for delivery in all_of(world, one):
        sent = world.webhooks.delivery(one.id, delivery.id)
        assert sent is not None and sent.payload is Payload.FULL
        shown[delivery.event_type] = sent.message.data | sent.message.facts
        assert b"secret" not in sent.message.body(Payload.FULL)
    ended, started = shown["command.succeeded"], shown["command.started"]
    assert set(ended) == {
        "id", "project", "kind", "state", "outcome", "key_id", "labels", "session_id", "priority",
        "retry_of", "created_at", "started_at", "finished_at",
    }  # fmt: skip
    assert (ended["labels"], ended["priority"]) == ({"a": "b"}, "normal")
    assert ended["finished_at"].endswith("Z")
    assert (started["state"], started["finished_at"]) == ("running", None)


# -- sending ---------------------------------------------------------------------------------------


def test_what_is_due_is_claimed_in_order_and_once(world: World) -> None:
    """Nobody else gets it before the lease is over; then it comes again with another token."""
    one = fanned(world, key(world))
    [due] = world.deliveries.due(90.0)
    assert (due.endpoint_id, due.failing) == (one.id, False)
    assert due.in_s <= 0
    first = world.deliveries.claim(one.id, 2)
    assert [c.message.type for c in first] == ["command.queued", "command.started"]
    rest = world.deliveries.claim(one.id, 10)
    assert [c.message.type for c in rest] == ["command.succeeded"]
    assert world.deliveries.claim(one.id, 10) == []
    world.pass_time(LEASE_S + 1)
    again = world.deliveries.claim(one.id, 10)
    assert [c.id for c in again] == [c.id for c in (*first, *rest)]
    assert all(c.token == 2 for c in again)


def test_a_delivered_one_is_done(world: World) -> None:
    """With its attempt, and the endpoint does well."""
    one = fanned(world, key(world))
    [claimed] = world.deliveries.claim(one.id, 1)
    assert world.deliveries.record(one.id, [made(claimed)]) is None
    [delivery] = all_of(world, one, states=["delivered"])
    assert (delivery.id, delivery.next_at) == (claimed.id, None)
    [attempt] = delivery.attempts
    assert (attempt.status, attempt.duration_ms, attempt.error) == (200, 3, None)
    sent = world.webhooks.delivery(one.id, claimed.id)
    assert sent is not None and sent.delivery.attempts[0].response == b"ok"
    assert claimed.id not in [c.id for c in world.deliveries.claim(one.id, 10)]


def test_a_failed_one_waits_for_its_time_and_the_last_one_is_dead(world: World) -> None:
    """Attempts are listed oldest first."""
    one = fanned(world, key(world), event_types=frozenset({"command.succeeded"}))
    [claimed] = world.deliveries.claim(one.id, 1)
    world.deliveries.record(one.id, [made(claimed, BROKEN, 60.0)])
    [delivery] = all_of(world, one, states=["failed"])
    assert delivery.next_at is not None
    failed = world.webhooks.get(one.id)
    assert failed is not None and failed.failing_since is not None
    assert world.deliveries.claim(one.id, 10) == []
    world.pass_time(61)
    [again] = world.deliveries.claim(one.id, 10)
    assert (again.id, again.tries) == (claimed.id, 1)
    world.deliveries.record(one.id, [made(again, Answer(None, 9, "no"), None)])
    [delivery] = all_of(world, one, states=["dead"])
    assert [(a.status, a.error) for a in delivery.attempts] == [
        (500, "it answered 500"),
        (None, "no"),
    ]


def test_a_resting_endpoint_is_left_alone(world: World) -> None:
    """Until the rest is over, then one delivery tries; success opens it for all."""
    one = fanned(world, key(world))
    claimed = world.deliveries.claim(one.id, 1)
    world.deliveries.record(one.id, [made(claimed[0], BROKEN, 5.0, rest_s=30.0)])
    assert world.deliveries.claim(one.id, 10) == []
    assert world.deliveries.due(0.0) == []
    [due] = world.deliveries.due(90.0)
    assert 20 < due.in_s <= 30
    assert due.failing
    world.pass_time(31)
    [probe] = world.deliveries.claim(one.id, 10)
    assert world.deliveries.claim(one.id, 10) == []
    target = world.deliveries.target(one.id)
    assert target is not None and target.failures == 1
    world.deliveries.record(one.id, [made(probe)])
    assert len(world.deliveries.claim(one.id, 10)) == 2


def test_a_stale_lease_changes_no_delivery(world: World) -> None:
    """The attempt was made, so it is written down; what became of it the new holder says."""
    one = fanned(world, key(world), event_types=frozenset({"command.succeeded"}))
    [old] = world.deliveries.claim(one.id, 1)
    world.pass_time(LEASE_S + 1)
    [new] = world.deliveries.claim(one.id, 1)
    world.deliveries.record(one.id, [made(old, BROKEN, None)])
    [delivery] = all_of(world, one)
    assert (delivery.state, len(delivery.attempts)) == (DeliveryState.PENDING, 1)
    world.deliveries.release([old])
    world.deliveries.record(one.id, [made(new)])
    [delivery] = all_of(world, one)
    assert (delivery.state, len(delivery.attempts)) == (DeliveryState.DELIVERED, 2)


def test_what_was_not_sent_is_given_back(world: World) -> None:
    """At once, to whoever comes next."""
    one = fanned(world, key(world))
    claimed = world.deliveries.claim(one.id, 10)
    world.deliveries.release(claimed[1:])
    assert [c.id for c in world.deliveries.claim(one.id, 10)] == [c.id for c in claimed[1:]]


def test_410_disables_at_once_and_five_days_of_failure_too(world: World) -> None:
    """Each says so with an event, once; a success in between begins the five days anew."""
    caller = key(world)
    gone = fanned(world, caller)
    [claimed] = world.deliveries.claim(gone.id, 1)
    event = world.deliveries.record(gone.id, [made(claimed, Answer(410, 1, "gone"), None)])
    assert [e.data for e in world.outbox.take([event] if event else [])] == [
        {"id": show(WEBHOOK, gone.id), "reason": "gone"}
    ]
    failing = fanned(world, caller)

    def fails(answer: Answer = BROKEN) -> Any:
        [one] = world.deliveries.claim(failing.id, 1)
        return world.deliveries.record(failing.id, [made(one, answer, 0.0)])

    assert fails() is None
    world.pass_time(4.9 * 86_400)
    assert fails(FINE) is None
    assert fails() is None
    world.pass_time(5.1 * 86_400)
    assert fails() is not None
    ended = world.webhooks.get(failing.id)
    assert ended is not None and ended.disabled_reason == "failing"


def test_an_enabled_endpoint_goes_on_with_what_waited(world: World) -> None:
    """Dead while it is disabled; a second disabling keeps the first reason."""
    caller = key(world)
    one = fanned(world, caller)
    world.webhooks.update(one.id, {"enabled": False}, None, caller, ORIGIN)
    assert {d.state for d in all_of(world, one)} == {DeliveryState.DEAD}
    assert world.deliveries.claim(one.id, 10) == []
    got = world.webhooks.get(one.id)
    assert got is not None and got.disabled_reason == "user"
    world.webhooks.update(one.id, {"enabled": True}, None, caller, ORIGIN)
    assert len(world.deliveries.claim(one.id, 10)) == 3
    got = world.webhooks.get(one.id)
    assert got is not None and got.disabled_at is None


# -- what owners do to deliveries ------------------------------------------------------------------


def test_a_ping_reaches_its_endpoint_alone(world: World) -> None:
    """Whatever types it wants; not while it is disabled."""
    caller = key(world)
    one, other = hook(world, caller, event_types=frozenset({"command.lost"})), hook(world, caller)
    sent = world.webhooks.ping(one.id, caller, ORIGIN)
    world.deliveries.fan_out(100)
    assert [d.id for d in all_of(world, one)] == [sent]
    assert all_of(world, other) == []
    [claimed] = world.deliveries.claim(one.id, 10)
    assert claimed.message.type == "webhook.ping"
    world.webhooks.update(one.id, {"enabled": False}, None, caller, ORIGIN)
    assert world.webhooks.ping(one.id, caller, ORIGIN) is None


def test_a_redelivery_is_the_same_delivery_again(world: World) -> None:
    """Due at once, with a whole schedule; never beside one that is on its way."""
    caller = key(world)
    one = fanned(world, caller, event_types=frozenset({"command.succeeded"}))
    [claimed] = world.deliveries.claim(one.id, 1)
    assert world.webhooks.redeliver(one.id, claimed.id, caller, ORIGIN)
    assert world.deliveries.claim(one.id, 1) == []
    world.deliveries.record(one.id, [made(claimed)])
    assert world.webhooks.redeliver(one.id, claimed.id, caller, ORIGIN)
    [again] = world.deliveries.claim(one.id, 1)
    assert (again.id, again.tries) == (claimed.id, 0)
    assert again.message == claimed.message
    assert not world.webhooks.redeliver(new_id(), claimed.id, caller, ORIGIN)


def test_a_range_is_recovered(world: World) -> None:
    """What failed, what died and what was missed while disabled; delivered ones when asked."""
    caller = key(world)
    begin = now() - timedelta(seconds=5)
    one = fanned(world, caller)
    first, second, _third = world.deliveries.claim(one.id, 10)
    world.deliveries.record(one.id, [made(first), made(second, BROKEN, None)])
    world.webhooks.update(one.id, {"enabled": False}, None, caller, ORIGIN)
    happens(world, caller)
    world.deliveries.fan_out(100)
    assert len(all_of(world, one)) == 3
    world.webhooks.update(one.id, {"enabled": True}, None, caller, ORIGIN)
    whole = Range(begin, now() + timedelta(seconds=5))
    nothing = replace(whole, until=begin)
    assert world.webhooks.recover(one.id, nothing, caller, ORIGIN) == 0
    assert world.webhooks.recover(one.id, whole, caller, ORIGIN) == 1 + 3
    assert len(all_of(world, one)) == 6
    claimed = world.deliveries.claim(one.id, 10)
    assert first.id not in [c.id for c in claimed]
    assert second.id in [c.id for c in claimed]
    everything = replace(whole, everything=True)
    assert world.webhooks.recover(one.id, everything, caller, ORIGIN) == 1


def test_deliveries_are_listed_by_state_type_and_time(world: World) -> None:
    """Newest first, below a cursor; another endpoint's are not shown."""
    caller = key(world)
    one = fanned(world, caller)
    newest, middle, oldest = all_of(world, one)
    assert [d.id for d in all_of(world, one, limit=1)] == [newest.id]
    assert [d.id for d in all_of(world, one, before=middle.id)] == [oldest.id]
    assert types(world, one, types=["command.started"]) == ["command.started"]
    assert all_of(world, one, states=["delivered", "dead"]) == []
    assert all_of(world, one, since=now() + timedelta(hours=1)) == []
    assert len(all_of(world, one, until=now() + timedelta(hours=1))) == 3
    assert world.webhooks.delivery(hook(world, caller).id, newest.id) is None
    assert world.webhooks.delivery(one.id, new_id()) is None


def test_retention_drops_events_with_their_deliveries(world: World) -> None:
    """Then endpoints that were deleted; what is younger stays."""
    caller = key(world)
    one = fanned(world, caller)
    world.pass_time(91 * 86_400)
    happens(world, caller)
    world.deliveries.fan_out(100)
    world.webhooks.delete(one.id, caller, ORIGIN)
    keep = Retention(commands_days=400)
    dropped = world.upkeep.drop_expired(keep)
    assert (dropped["webhook_events"], dropped["webhooks"]) == (3, 0)
    world.pass_time(91 * 86_400)
    dropped = world.upkeep.drop_expired(keep)
    assert (dropped["webhook_events"], dropped["webhooks"]) == (3, 1)


def test_every_change_is_in_the_audit_trail(world: World) -> None:
    """By name, and without address or secret."""
    caller = key(world)
    one = fanned(world, caller, url="https://hidden.example.com/")
    [delivery, *_] = all_of(world, one)
    world.webhooks.update(one.id, {"url": "https://hidden.example.org/"}, None, caller, ORIGIN)
    world.webhooks.rotate(one.id, b"s", 1, caller, ORIGIN, None)
    world.webhooks.ping(one.id, caller, ORIGIN)
    world.webhooks.redeliver(one.id, delivery.id, caller, ORIGIN)
    world.webhooks.recover(one.id, Range(now(), now()), caller, ORIGIN)
    world.webhooks.delete(one.id, caller, ORIGIN)
    rows = world.audit.list(AuditFilter(target=show(WEBHOOK, one.id)))
    verbs = ["created", "updated", "rotated", "pinged", "redelivered", "recovered", "deleted"]
    assert [r.action for r in reversed(rows)] == [f"webhook.{verb}" for verb in verbs]
    assert "hidden" not in repr(rows)


def test_a_command_that_is_cancelled_is_heard_too(world: World) -> None:
    """Also one that never ran."""
    caller = key(world)
    one = hook(world, caller)
    waiting = world.submit(caller).command
    world.commands.cancel(waiting.id, "graceful", "user", CANCELLED, ORIGIN, caller)
    world.deliveries.fan_out(100)
    assert types(world, one) == [f"command.{State.CANCELLED}", "command.queued"]
