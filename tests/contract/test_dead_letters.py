"""What every DeadLetters does: kept once whatever it holds, listed by what it was, replayed."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from common.domain.audit import AuditFilter
from common.domain.identifiers import LETTER, new_id, show
from common.ports.dead_letters import DeadLetter, LetterFilter
from common.ports.upkeep import Retention
from tests.contract.conftest import ORIGIN, World

DAY_S = 86_400


def letter(**fields: Any) -> DeadLetter:
    plain: dict[str, Any] = {
        "id": uuid.uuid4(),
        "event_id": "1",
        "source": "/s",
        "type": "t",
        "subject": None,
        "reason": "no_trigger",
        "detail": "why",
        "attributes": {"id": "1"},
        "data": b"{}",
        "size": 2,
    }
    return DeadLetter(**plain | fields)


def test_it_comes_back_as_it_was(world: World) -> None:
    """With the moment it was buried at."""
    kept = letter(channel="github", trigger_id=new_id(), project="demo")
    world.dead_letters.bury(kept)
    found = world.dead_letters.get(kept.id)
    assert found is not None
    assert found.created_at is not None
    assert found == replace(kept, created_at=found.created_at)
    assert world.dead_letters.get(new_id()) is None


def test_it_is_kept_once_whatever_it_holds(world: World) -> None:
    """NUL, lone surrogates and bytes that are no text do not keep it from being recorded."""
    poison = letter(
        event_id=None, type="ty\ud800pe", subject="a\0b", detail="\udfff",
        attributes={"k\0": "v"}, data=b"\xff\0",
    )  # fmt: skip
    world.dead_letters.bury(poison)
    world.dead_letters.bury(poison)
    world.pass_time(31 * DAY_S)
    assert world.upkeep.drop_expired(Retention())["dead_letters"] == 1


def test_the_newest_reason_stands_over_what_it_was(world: World) -> None:
    """A second event under the same id changes why it lies there, and nothing that is replayed."""
    first = letter()
    world.dead_letters.bury(first)
    world.dead_letters.bury(replace(first, reason="refused", detail="x", data=b"forged"))
    found = world.dead_letters.get(first.id)
    assert found is not None
    assert (found.reason, found.detail, found.data) == ("refused", "x", b"{}")


def test_they_are_listed_newest_first(world: World) -> None:
    """Below one of them; below one that is gone there is nothing."""
    made = [letter() for _ in range(4)]
    for one in made:
        world.dead_letters.bury(one)
        world.pass_time(1)
    ids = [one.id for one in reversed(made)]
    assert [x.id for x in world.dead_letters.list(LetterFilter(limit=2))] == ids[:2]
    assert [x.id for x in world.dead_letters.list(LetterFilter(before=ids[1]))] == ids[2:]
    assert world.dead_letters.list(LetterFilter(before=new_id())) == []


def test_they_are_found_by_what_they_were(world: World) -> None:
    """Project, reason, type, source, and whether somebody replayed them."""
    _, caller = world.key()
    plain = letter()
    other = letter(project="demo", reason="stale", type="u", source="/o")
    for one in (plain, other):
        world.dead_letters.bury(one)

    def found(**wanted: Any) -> list[uuid.UUID]:
        return [x.id for x in world.dead_letters.list(LetterFilter(**wanted))]

    assert found(projects=frozenset({"demo"})) == [other.id]
    assert found(projects=frozenset()) == []
    assert found(reason="stale") == found(type="u") == found(source="/o") == [other.id]
    assert found(replayed=True) == []
    world.dead_letters.replayed(other.id, "submitted", caller, ORIGIN)
    assert (found(replayed=True), found(replayed=False)) == ([other.id], [plain.id])


def test_a_replay_is_in_the_audit_trail(world: World) -> None:
    """Who did it, and what came of it."""
    _, caller = world.key()
    one = letter(project="demo")
    world.dead_letters.bury(one)
    assert world.dead_letters.replayed(one.id, "submitted", caller, ORIGIN)
    assert not world.dead_letters.replayed(new_id(), "submitted", caller, ORIGIN)
    [row] = world.audit.list(AuditFilter(action="dead_letter.replayed", limit=5))
    assert (row.key_id, row.target, row.project) == (
        caller.key_id, show(LETTER, one.id), "demo",
    )  # fmt: skip


def test_the_newest_so_many_are_kept(world: World) -> None:
    """Anybody may cause some, so there is a most, however new they are."""
    made = [letter() for _ in range(4)]
    for one in made:
        world.dead_letters.bury(one)
        world.pass_time(1)
    assert world.upkeep.drop_expired(Retention(most_refused=3))["dead_letters"] == 1
    assert [x.id for x in world.dead_letters.list(LetterFilter())] == [x.id for x in made[:0:-1]]
    assert world.upkeep.drop_expired(Retention(most_refused=3))["dead_letters"] == 0
