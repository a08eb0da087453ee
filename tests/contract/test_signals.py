"""What every Signals does: wake who listens, also once at the beginning."""

from __future__ import annotations

import queue

import pytest

from common.ports.signals import CONTROL, OUTPUT
from tests.contract.conftest import OTHER_WORKER, World, ignore

PATIENCE_S = 30  # only a broken build waits this long
Heard = queue.SimpleQueue[tuple[str, str]]


def test_who_listens_hears_what_is_said_on_its_channels(world: World) -> None:
    """First an empty payload a channel, then each notification in order, and nothing of others."""
    heard: Heard = queue.SimpleQueue()
    listening = world.signals.listen((OUTPUT,), lambda *said: heard.put(said))
    assert heard.get(timeout=PATIENCE_S) == (OUTPUT, "")
    world.signals.notify(CONTROL, "not for us")
    for n in range(200):
        world.signals.notify(OUTPUT, str(n))
    assert [heard.get(timeout=PATIENCE_S) for _ in range(200)] == [
        (OUTPUT, str(n)) for n in range(200)
    ]
    listening.close()
    world.signals.notify(OUTPUT, "late")
    assert heard.empty()


def test_two_listeners_both_hear(world: World) -> None:
    """A notification is for everybody on the channel."""
    heard: list[Heard] = [queue.SimpleQueue(), queue.SimpleQueue()]
    listening = [
        world.signals.listen((CONTROL, OUTPUT), lambda *said, h=h: h.put(said))  # type: ignore[misc]
        for h in heard
    ]
    for h in heard:
        assert {h.get(timeout=PATIENCE_S) for _ in range(2)} == {(CONTROL, ""), (OUTPUT, "")}
    world.signals.notify(CONTROL, "x")
    assert [h.get(timeout=PATIENCE_S) for h in heard] == [(CONTROL, "x")] * 2
    for one in listening:
        one.close()


def test_a_failing_listener_goes_on_listening(world: World) -> None:
    """An exception in `heard` costs that call and no other."""
    heard: Heard = queue.SimpleQueue()

    def fail_once(channel: str, payload: str) -> None:
        heard.put((channel, payload))
        if not payload:
            raise RuntimeError("mistake")

    listening = world.signals.listen((OUTPUT,), fail_once)
    heard.get(timeout=PATIENCE_S)
    world.signals.notify(OUTPUT, "still here")
    assert heard.get(timeout=PATIENCE_S) == (OUTPUT, "still here")
    listening.close()


@pytest.mark.parametrize("worker", [1, -1, 2**63 - 1, -(2**63)])
def test_a_held_worker_is_alive_until_closed(world: World, worker: int) -> None:
    """Its commands are not adopted while it holds its lock, and are when it has gone."""
    world.project()
    _, caller = world.key()
    listening = world.signals.listen((), ignore)
    listening.hold(worker)
    world.submit(caller)
    assert world.queue.claim("demo", worker)
    assert world.queue.adopt(OTHER_WORKER, 1) == []
    listening.close()
    assert len(world.queue.adopt(OTHER_WORKER, 1)) == 1


def test_a_listener_may_close_itself(world: World) -> None:
    """close() from within `heard` ends the listening."""
    closed: Heard = queue.SimpleQueue()
    ready: queue.SimpleQueue[None] = queue.SimpleQueue()

    def close(channel: str, payload: str) -> None:
        ready.get(timeout=PATIENCE_S)
        listening.close()
        closed.put((channel, payload))

    listening = world.signals.listen((OUTPUT,), close)
    ready.put(None)
    assert closed.get(timeout=PATIENCE_S) == (OUTPUT, "")
