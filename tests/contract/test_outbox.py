"""What every Outbox does: hand out unsent events, each to one taker at a time."""

from __future__ import annotations

import threading
from uuid import UUID

from common.domain.identifiers import new_id
from tests.contract.conftest import World

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def doorbells(world: World, count: int) -> list[UUID]:
    """Events that are waiting: one for each of `count` new commands."""
    world.project()
    _, caller = world.key()
    world.pass_time(6)
    world.outbox.sent([event.id for event in world.outbox.take_left(1000)])
    made = [world.submit(caller, traceparent=TRACE).doorbell for _ in range(count)]
    return [event for event in made if event is not None]


def test_rows_are_taken_by_id_until_they_are_sent(world: World) -> None:
    """Taking changes nothing, sending forgets, and unknown ids are passed over."""
    one, two = doorbells(world, 2)
    assert [e.id for e in world.outbox.take([two, one, new_id()])] == [one, two]
    world.outbox.sent([one, new_id()])
    assert [e.id for e in world.outbox.take([one, two])] == [two]
    world.outbox.sent([])


def test_an_event_keeps_the_trace_of_its_command(world: World) -> None:
    """traceparent travels with the event."""
    (event,) = world.outbox.take(doorbells(world, 1))
    assert event.traceparent == TRACE


def test_leftovers_are_what_nobody_published_in_time(world: World) -> None:
    """Only after 5 s, the oldest first, and to one taker for the next 5 s."""
    first = doorbells(world, 2)
    assert world.outbox.take_left(10) == []
    world.pass_time(6)
    assert [e.id for e in world.outbox.take_left(1)] == first[:1]
    assert [e.id for e in world.outbox.take_left(10)] == first[1:]
    assert world.outbox.take_left(10) == []
    world.pass_time(6)
    assert [e.id for e in world.outbox.take_left(10)] == first


def test_two_takers_share_the_leftovers(world: World) -> None:
    """At once, no event goes to both."""
    waiting = doorbells(world, 20)
    world.pass_time(6)
    taken: list[UUID] = []
    start = threading.Barrier(4)

    def take() -> None:
        start.wait()
        while events := world.outbox.take_left(3):
            taken.extend(event.id for event in events)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(waiting)
