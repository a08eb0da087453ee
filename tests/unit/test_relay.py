"""common/services/relay.py: events leave the house, and nothing waits for the broker."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import pytest

from common.domain.errors import Unavailable
from common.ports.outbox import OutgoingEvent
from common.services import relay as module
from common.services.relay import FAILURES_BEFORE_REST, Relay
from tests.unit.fakes import FakeOutbox, FakePublisher

EVENTS = [OutgoingEvent(UUID(int=n), "t", "s", {}) for n in range(1, 31)]
IDS = [event.id for event in EVENTS]


class World:
    def __init__(self) -> None:
        self.outbox = FakeOutbox(EVENTS)
        self.publisher = FakePublisher()
        self.relay = Relay(self.outbox, self.publisher)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.relay.close()


def test_rows_are_published_and_forgotten(world: World) -> None:
    """In the background; closing waits for what is on its way."""
    world.outbox.take_left = lambda _limit: []  # type: ignore[method-assign]
    world.relay.soon(IDS[0], None, IDS[1])
    world.relay.soon(IDS[2])
    world.relay.close()
    assert [e.id for e in world.publisher.published] == IDS[:3]
    assert world.outbox.forgotten == IDS[:3]


def test_nothing_to_publish_starts_nothing(world: World) -> None:
    """No row, no thread."""
    world.relay.soon(None)
    assert world.relay._later._thread is None
    world.relay.close()


def test_a_row_that_somebody_else_published_is_gone(world: World) -> None:
    """Only what is still there is sent."""
    world.outbox.rows = {}
    world.relay.soon(IDS[0])
    world.relay.close()
    assert world.publisher.published == []


def test_who_publishes_takes_leftovers_along(world: World) -> None:
    """After its own rows, and only when the broker took them."""
    all_gone, sent = threading.Event(), world.outbox.sent

    def counted(ids: Sequence[UUID]) -> None:
        sent(ids)
        if not world.outbox.rows:
            all_gone.set()

    world.outbox.sent = counted  # type: ignore[method-assign]
    world.relay.soon(IDS[5])
    assert all_gone.wait(20)
    assert world.publisher.published[0].id == IDS[5]
    assert {e.id for e in world.publisher.published} == set(IDS)
    assert world.outbox.rows == {}


def test_a_broker_that_is_away_keeps_rows_where_they_are(world: World) -> None:
    """They are published later, under the same ids."""
    world.publisher.broken = True
    world.relay.soon(IDS[0])
    world.relay.close()
    assert len(world.outbox.rows) == len(EVENTS)
    world.publisher.broken = False
    assert world.relay.leftovers() == len(EVENTS)
    assert world.outbox.rows == {}


def test_a_broker_that_does_not_answer_is_not_asked_for_every_row(world: World) -> None:
    """After five failures the others stay: fifty timeouts would outlast the tick."""
    world.publisher.broken = True
    assert world.relay.leftovers() == 0
    assert world.publisher.attempts == FAILURES_BEFORE_REST


def test_publishing_rests_after_five_failures(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For 10 s nothing is tried inline; then it is tried again."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    world.publisher.broken = True
    for event in IDS[:8]:
        world.relay.soon(event)
    world.relay.close()
    assert world.publisher.attempts == FAILURES_BEFORE_REST
    now[0] += 10.1
    world.publisher.broken = False
    world.relay.soon(IDS[0])
    world.relay.close()
    assert world.publisher.published[0].id == IDS[0]


def test_one_success_starts_the_count_anew(world: World) -> None:
    """Only failures without a break make it rest."""
    order = iter([False, False, True, False, False, True] * 5)
    publish = world.publisher.publish

    def shaky(event: OutgoingEvent) -> None:
        world.publisher.broken = not next(order)
        publish(event)

    world.publisher.publish = shaky  # type: ignore[method-assign]
    assert world.relay.leftovers() == 10
    assert world.publisher.attempts == 30


@pytest.mark.parametrize("error", [Unavailable("away"), RuntimeError("a bug")])
def test_the_thread_outlives_every_error(world: World, error: Exception) -> None:
    """Nobody would start another, so it goes on."""
    take, tried = world.outbox.take, threading.Event()

    def broken(ids: Sequence[UUID]) -> Any:
        world.outbox.take = take  # type: ignore[method-assign]
        tried.set()
        raise error

    world.outbox.take = broken  # type: ignore[method-assign]
    world.relay.soon(IDS[0])
    assert tried.wait(20)
    world.relay.soon(IDS[1])
    world.relay.close()
    assert IDS[1] in {e.id for e in world.publisher.published}


def test_closing_twice_is_closing_once(world: World) -> None:
    """And after closing it can be used again."""
    world.relay.soon(IDS[0])
    world.relay.close()
    world.relay.close()
    world.outbox.rows[IDS[1]] = EVENTS[1]
    world.relay.soon(IDS[1])
    world.relay.close()
    assert world.publisher.published[-1].id == IDS[1]


def test_what_nobody_acts_on_is_published_a_moment_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment over, it goes out like any other."""
    published = threading.Event()
    publish = world.publisher.publish

    def telling(event: OutgoingEvent) -> None:
        publish(event)
        published.set()

    monkeypatch.setattr(world.publisher, "publish", telling)
    monkeypatch.setattr(world.outbox, "take_left", lambda _limit: [])
    world.relay.presently(IDS[0])
    assert published.wait(30)
    world.relay.close()
    assert [e.id for e in world.publisher.published] == IDS[:1]
