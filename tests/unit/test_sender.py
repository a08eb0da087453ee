"""common/services/sender.py and fan_out.py: each endpoint on its own, at least once, to the end."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from common.adapters.memory.state import KeyRow, MemoryState
from common.adapters.memory.webhooks import MemoryDeliveryQueue, MemoryWebhookStore
from common.domain.errors import Unavailable
from common.domain.identifiers import new_id
from common.domain.keys import ApiKey, Caller
from common.domain.webhooks import Answer, Delivery, DeliveryState, Endpoint, Payload
from common.ports.commands import Origin
from common.ports.outbox import OutgoingEvent
from common.ports.webhooks import DeliveryFilter
from common.services import sender as module
from common.services.fan_out import FanOut
from common.services.sender import Sender
from tests.harness.running import until
from tests.unit import fakes

CALLER = Caller(fakes.KEY, "test", frozenset({"webhooks:write"}), None)
ORIGIN = Origin("req_1")


class World:
    def __init__(self, *answers: Answer) -> None:
        self.state = MemoryState()
        key = ApiKey(
            fakes.KEY, "test", "rdev_x", CALLER.scopes, None, (), None, None, created_at=fakes.AT
        )
        self.state.keys[fakes.KEY] = KeyRow(key, b"")
        self.store, self.queue = MemoryWebhookStore(self.state), MemoryDeliveryQueue(self.state)
        self.courier = fakes.FakeCourier(*answers)
        self.relay, self.bell = fakes.FakeRelay(), fakes.FakeSenderBell()
        self.sender = self.another()

    def another(self, queue: Any = None) -> Sender:
        return Sender(
            queue or self.queue,
            self.courier,
            fakes.FakeSealer(),
            self.relay,  # type: ignore[arg-type]
            self.bell,
        )

    def hook(self, url: str = "https://e.com/", sealed_headers: bytes | None = None) -> Endpoint:
        wanted = Endpoint(new_id(), fakes.KEY, url, Payload.THIN, fakes.AT)
        secret = b"sealed:whsec_a"
        made = self.store.create(wanted, sealed_headers, secret, CALLER, ORIGIN, None)
        return made.endpoint

    def happens(self, count: int = 1) -> None:
        """Projects are discovered, and deliveries made of that."""
        for n in range(count):
            data = {"project": f"p{n}"}
            type_ = "ai.orchard9.rdev.project.discovered.v1"
            self.state.publish(OutgoingEvent(new_id(), type_, f"projects/p{n}", data))
        FanOut(self.queue, self.bell)()

    def all(self, endpoint: Endpoint) -> list[Delivery]:
        return self.store.deliveries(endpoint.id, DeliveryFilter(limit=1000))

    def sent(self, endpoint: Endpoint, state: DeliveryState = DeliveryState.DELIVERED) -> None:
        """Wait until all deliveries of an endpoint are in a state."""
        until(f"all are {state}", lambda: {d.state for d in self.all(endpoint)} == {state})


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.sender.stop()


def test_what_is_due_is_sent_signed(world: World) -> None:
    """With the three headers of the specification, our own and those of the endpoint."""
    hook = world.hook(sealed_headers=b'sealed:{"X-A": "b"}')
    world.store.rotate(hook.id, b"sealed:whsec_b", 60, CALLER, ORIGIN, None)
    world.happens()
    world.sender.ring()
    world.sent(hook)
    [(url, headers, body)] = world.courier.posted
    [delivery] = world.all(hook)
    assert url == "https://e.com/"
    assert headers["webhook-id"] == f"evt_{delivery.event_id.hex}"
    assert headers["webhook-signature"] == "v1,whsec_b v1,whsec_a"
    assert headers["webhook-timestamp"].isdigit()
    assert (headers["X-A"], headers["Content-Type"]) == ("b", "application/json")
    assert json.loads(body)["data"] == {"project": "p0"}


def test_a_first_retry_comes_from_this_process(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody rings a second time: work due within 90 s stays here until then."""
    monkeypatch.setattr(module, "retry_in_s", lambda _tries, _answer: 0.1)
    world.courier.answers = [Answer(500, 1), Answer(500, 1)]
    hook = world.hook()
    world.happens()
    world.sender.ring()
    world.sent(hook)
    [delivery] = world.all(hook)
    assert [a.status for a in delivery.attempts] == [500, 500, 200]
    assert len({h["webhook-id"] for _, h, _ in world.courier.posted}) == 1
    assert len({b for _, _, b in world.courier.posted}) == 1


def test_a_dead_endpoint_holds_up_no_other(world: World) -> None:
    """While one request hangs, everything for others is delivered."""
    dead, fine = world.hook("https://dead.com/"), world.hook("https://fine.com/")
    hanging, release = threading.Event(), threading.Event()

    def during() -> None:
        if world.courier.posted[-1][0] == "https://dead.com/":
            hanging.set()
            release.wait(20)

    world.courier.during = during
    world.happens(20)
    world.sender.ring()
    assert hanging.wait(20)
    world.sent(fine)
    until("only the dead one is busy", lambda: world.sender.sending == [dead.id])
    release.set()
    world.sent(dead)


def test_an_overloaded_endpoint_is_left_alone(world: World) -> None:
    """One failure, and what was claimed with it is given back unsent."""
    world.courier.answers = [Answer(503, 1, retry_after_s=40.0)]
    hook = world.hook()
    world.happens(10)
    world.sender.ring()
    until("it was tried", lambda: any(d.attempts for d in world.all(hook)))
    until("it rests", lambda: not world.sender.sending)
    assert len(world.courier.posted) == 1
    assert all(r.lease_until is None for r in world.state.deliveries.values())
    [due] = world.queue.due(90.0)
    assert 30 < due.in_s <= 40


def test_gone_disables_and_says_so(world: World) -> None:
    """The event is published; nothing more is sent."""
    world.courier.answers = [Answer(410, 1)]
    hook = world.hook()
    world.happens(5)
    world.sender.ring()
    until("it is disabled", lambda: world.relay.asked)
    [event] = world.relay.asked
    assert world.state.outbox[event].event.type == "ai.orchard9.rdev.webhook.disabled.v1"
    got = world.store.get(hook.id)
    assert got is not None and got.disabled_reason == "gone"
    assert len(world.courier.posted) == 1


def test_killed_after_sending_it_is_sent_again_under_its_id(world: World) -> None:
    """Row 47: the record was lost with the process, so the lease runs out and another sends."""
    hook = world.hook()
    world.happens()

    class Dying(MemoryDeliveryQueue):
        def record(self, *_args: Any) -> UUID | None:
            raise SystemExit  # nothing after this instruction

    first = world.another(Dying(world.state))
    with pytest.raises(SystemExit):
        first._batch(hook.id)
    assert world.queue.due(0.0) == []
    for row in world.state.deliveries.values():  # 45 s later
        row.next_at = row.lease_until = world.state.clock()
    world.sender.ring()
    world.sent(hook)
    ids = [headers["webhook-id"] for _, headers, _ in world.courier.posted]
    assert len(ids) == 2 and len(set(ids)) == 1


def test_a_database_that_is_away_is_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever call fails, once: everything arrives, and nothing is recorded twice."""
    monkeypatch.setattr(module, "PAUSE_S", 0.01)
    hook = world.hook()
    for n in range(1, 9):
        world.happens()
        faults = fakes.Faults(n)
        sender = world.another(faults.wrap(world.queue, "due", "claim", "target", "record"))
        sender.ring()
        until("the fault fired or all is done", lambda f=faults: f.fired or not _open(world, hook))  # type: ignore[misc]
        for row in world.state.deliveries.values():
            if row.lease_until is not None:  # 45 s later
                row.next_at = row.lease_until = world.state.clock()
        sender.ring()
        world.sent(hook)
        sender.stop()


def _open(world: World, hook: Endpoint) -> list[Delivery]:
    return [d for d in world.all(hook) if d.state is not DeliveryState.DELIVERED]


def test_a_stopping_process_hands_the_rest_over(world: World) -> None:
    """The request under way ends, and the next instance is rung for what is left."""
    hook = world.hook()
    started = threading.Event()
    release = threading.Event()

    def during() -> None:
        started.set()
        release.wait(20)

    world.courier.during = during
    world.happens(10)
    world.sender.ring()
    assert started.wait(20)
    rings = world.bell.rings
    stopping = threading.Thread(target=world.sender.stop)
    stopping.start()
    release.set()
    stopping.join(20)
    assert world.bell.rings == rings + 1
    assert len([d for d in world.all(hook) if d.attempts]) == 1
    assert len(world.courier.posted) == 1


def test_a_deleted_endpoint_gets_nothing(world: World) -> None:
    """What was claimed is given back and shown to nobody."""
    hook = world.hook()
    world.happens()
    claimed = world.queue.claim
    world.queue.claim = lambda *a: (claimed(*a), world.store.delete(hook.id, CALLER, ORIGIN))[0]
    assert world.sender._batch(hook.id) is False
    assert world.courier.posted == []


def test_threads_are_kept_for_those_who_do_well(world: World) -> None:
    """Endpoints that failed last get half of them at most."""
    hooks = [world.hook(f"https://e{n}.com/") for n in range(module.FAILING_THREADS + 5)]
    for hook in hooks:
        world.state.webhooks[hook.id].failures = 1
    well = world.hook("https://well.com/")
    release = threading.Event()
    world.courier.during = lambda: release.wait(20)
    world.happens()
    world.sender.ring()
    until("they send", lambda: len(world.sender.sending) == module.FAILING_THREADS + 1)
    assert well.id in world.sender.sending
    release.set()
    for hook in (*hooks, well):
        world.sent(hook)


# -- fan out ---------------------------------------------------------------------------------------


def test_nothing_left_rings_nobody(world: World) -> None:
    """A forged or doubled event finds nothing."""
    assert FanOut(world.queue, world.bell)() == 0
    assert world.bell.rings == 0


def test_the_tick_makes_what_lost_events_left_and_rings_for_what_is_due(world: World) -> None:
    """Once for both; not for an endpoint that has nothing due."""
    hook = world.hook()
    out = FanOut(world.queue, world.bell)
    out.repair()
    assert world.bell.rings == 0
    world.happens(0)
    event = OutgoingEvent(new_id(), "ai.orchard9.rdev.project.removed.v1", "s", {"project": "p"})
    world.state.publish(event)
    out.repair()
    assert (len(world.all(hook)), world.bell.rings) == (1, 1)
    out.repair()
    assert (len(world.all(hook)), world.bell.rings) == (1, 2)


def test_a_broken_look_is_not_the_end_of_looking(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in one round, an answer in the next."""
    monkeypatch.setattr(module, "PAUSE_S", 0.01)
    hook = world.hook()
    world.happens()
    faults = fakes.Faults(1, error=RuntimeError("a bug"))
    sender = world.another(faults.wrap(world.queue, "due"))
    sender.ring()
    world.sent(hook)
    sender.stop()


def test_a_stop_without_a_database_leaves_it_to_the_tick(world: World) -> None:
    """Nothing is raised into the drain."""
    faults = fakes.Faults(1, error=Unavailable)
    world.another(faults.wrap(world.queue, "due")).stop()
    assert world.bell.rings == 0
