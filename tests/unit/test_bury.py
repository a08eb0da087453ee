"""common/services/bury.py: dead letters."""

from __future__ import annotations

import pytest

from common.ports.dead_letters import DeadLetter
from common.services.bury import MAX_DATA, Bury, letter

ATTRIBUTES = {
    "id": "evt_1",
    "source": "/rdev",
    "type": "t",
    "subject": "s",
    "knativeerrorcode": "500",
    "knativeerrordest": "http://x",
}


def test_a_letter_says_what_it_was_and_why() -> None:
    """Attributes, reason and the first 64 KiB of the body."""
    dead = letter(ATTRIBUTES, b"x" * (MAX_DATA + 1))
    assert (dead.event_id, dead.source, dead.type, dead.subject) == ("evt_1", "/rdev", "t", "s")
    assert (dead.reason, dead.detail) == ("delivery_500", "http://x")
    assert dead.attributes == ATTRIBUTES
    assert len(dead.data) == MAX_DATA


def test_the_same_event_twice_is_one_letter() -> None:
    """Its id follows from source and id, not from the delivery."""
    again = letter(ATTRIBUTES | {"knativeerrorcode": "404"}, b"other")
    assert again.id == letter(ATTRIBUTES, b"").id


@pytest.mark.parametrize("name", ["id", "source"])
def test_another_event_is_another_letter(name: str) -> None:
    """Ids are unique within their source only."""
    assert letter(ATTRIBUTES | {name: "other"}, b"").id != letter(ATTRIBUTES, b"").id


def test_events_without_an_id_are_told_apart_by_their_content() -> None:
    """Poison has no id: two different ones are two rows, the same twice is one."""
    assert letter({}, b"one").id != letter({}, b"two").id
    assert letter({}, b"one").id == letter({}, b"one").id
    assert letter({}, b"").reason == "delivery_failed"


def test_burying_writes_the_row() -> None:
    """Once per letter; the same id is the store's business."""
    rows: list[DeadLetter] = []

    class Upkeep:
        def bury(self, dead: DeadLetter) -> None:
            rows.append(dead)

    dead = letter(ATTRIBUTES, b"")
    Bury(Upkeep())(dead)  # type: ignore[arg-type]
    assert rows == [dead]
