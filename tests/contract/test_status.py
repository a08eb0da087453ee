"""What every SystemStatus does: numbers from the rows alone."""

from __future__ import annotations

from common.domain.command import Priority
from common.domain.identifiers import new_id
from common.ports.dead_letters import DeadLetter
from tests.contract.conftest import ORIGIN, World


def test_the_store_answers_and_knows_its_schema(world: World) -> None:
    """ping raises nothing; the schema is the one this code was written for."""
    world.status.ping()
    version, min_compatible = world.status.schema_version()
    assert version == world.status.code_version
    assert min_compatible <= version
    assert world.status.dependencies() == []


def test_an_empty_store_has_zeros(world: World) -> None:
    """No command, no event: every gauge is there and is 0."""
    numbers = world.status.numbers()
    assert numbers.commands == {}
    assert numbers.queue_depth == {"urgent": 0, "high": 0, "normal": 0, "low": 0}
    assert numbers.oldest_age_s == 0
    assert (numbers.outbox_pending, numbers.outbox_oldest_age_s) == (0, 0)


def test_numbers_count_what_is_there(world: World) -> None:
    """Commands by kind and state, the queue by priority, the oldest of both."""
    world.project()
    _, caller = world.key()
    world.finish(world.running(caller))
    world.submit(caller, priority=Priority.LOW)
    world.pass_time(100)
    world.submit(caller)
    numbers = world.status.numbers()
    assert numbers.commands == {("shell", "succeeded"): 1, ("shell", "queued"): 2}
    assert numbers.queue_depth == {"urgent": 0, "high": 0, "normal": 1, "low": 1}
    assert 100 <= numbers.oldest_age_s < 200
    assert numbers.dead_letters == {}
    assert numbers.outbox_pending == 7  # the key too
    assert 100 <= numbers.outbox_oldest_age_s < 200


def test_dead_letters_are_counted_until_they_are_replayed(world: World) -> None:
    """By reason."""
    _, caller = world.key()
    letters = [
        DeadLetter(new_id(), "1", "/s", "t", None, reason, "", {}, b"")
        for reason in ("stale", "stale", "no_trigger")
    ]
    for letter in letters:
        world.dead_letters.bury(letter)
    world.dead_letters.replayed(letters[0].id, "submitted", caller, ORIGIN)
    assert world.status.numbers().dead_letters == {"stale": 1, "no_trigger": 1}
