"""What every EventReader does: pages, news of many commands, a project's stream."""

from __future__ import annotations

from uuid import UUID

import pytest

from common.domain.command import Kind
from common.domain.events import AGENT, Event, NewEvent
from common.domain.identifiers import new_id
from common.ports.events import Position
from common.ports.queue import Claim
from tests.contract.conftest import World, output


def write(world: World, claim: Claim, *texts: bytes) -> None:
    """Append output, each text an event, where the stored output ends."""
    at = world.queue.held(claim.command.id, claim.token).offsets["merged"]
    for text in texts:
        world.queue.append(claim.command.id, claim.token, [output(text, at)])
        at += len(text)


def ids(events: list[Event]) -> list[tuple[UUID, int]]:
    return [(event.command_id, event.seq) for event in events]


def follow(
    world: World, position: Position, *, output: bool = True, limit: int = 100
) -> tuple[list[Event], Position]:
    """Everything new, page by page, and where the last page ended."""
    events: list[Event] = []
    while True:
        page = world.events.project_news("demo", position, output=output, limit=limit)
        events += page.events
        position = page.position
        if not page.more:
            return events, position


# -- one command -----------------------------------------------------------------------------------


def test_a_page_begins_after_a_seq(world: World) -> None:
    """Resuming at any event gives exactly the rest."""
    world.project()
    _, caller = world.key()
    claim = world.running(caller)
    write(world, claim, b"a", b"b", b"c")
    world.finish(claim)
    whole = world.events.page(claim.command.id, 0, 10_000)
    assert [e.seq for e in whole.events] == [1, 2, 3, 4, 5, 6]
    assert (whole.first, whole.last) == (1, 6)
    for after in range(8):
        page = world.events.page(claim.command.id, after, 10_000)
        assert page.events == whole.events[after:]
        assert page.last == 6


def test_a_page_ends_near_its_size(world: World) -> None:
    """About max_bytes, at least one event, and the next page goes on."""
    world.project()
    _, caller = world.key()
    claim = world.running(caller)
    write(world, claim, *[b"x" * 100] * 10)
    page = world.events.page(claim.command.id, 2, 250)
    assert [e.seq for e in page.events] == [3, 4, 5]
    assert [e.seq for e in world.events.page(claim.command.id, 2, 1).events] == [3]
    assert page.last == 12


def test_an_unknown_command_has_an_empty_page(world: World) -> None:
    """No events, none stored, none given."""
    page = world.events.page(new_id(), 0, 1000)
    assert (page.events, page.first, page.last) == ([], None, 0)


# -- many commands ---------------------------------------------------------------------------------


def test_news_of_many_commands_come_in_one_answer(world: World) -> None:
    """Each command from its own head on, ordered by command and seq."""
    world.project(limit=10)
    _, caller = world.key()
    claims = [world.running(caller) for _ in range(3)]
    for claim in claims:
        write(world, claim, b"a", b"b")
    heads = [(claims[2].command.id, 3), (claims[0].command.id, 2), (claims[1].command.id, 4)]
    found = world.events.news([*heads, (new_id(), 0)], 1_000_000)
    first, third = claims[0].command.id, claims[2].command.id
    assert ids(found) == [(first, 3), (first, 4), (third, 4)]
    assert world.events.news([], 1000) == []


def test_a_loud_command_does_not_silence_others(world: World) -> None:
    """Every command gets its share of a round, whatever the others say."""
    world.project()
    _, caller = world.key()
    loud, quiet = world.running(caller), world.running(caller)
    for at in range(10):
        world.queue.append(loud.command.id, loud.token, [output(b"x" * 60_000, at * 60_000)])
    write(world, quiet, b"hello")
    found = world.events.news([(loud.command.id, 2), (quiet.command.id, 2)], 100_000)
    assert found[-1].data == b"hello"
    assert 1 < len(found) < 6


def test_final_rows_stand_behind_end_events(world: World) -> None:
    """commands() answers what is known of the ids it is given."""
    world.project()
    _, caller = world.key()
    claim = world.running(caller)
    world.finish(claim)
    found = world.events.commands([claim.command.id, new_id()])
    assert list(found) == [claim.command.id]
    assert found[claim.command.id].ended
    assert world.events.commands([]) == {}


# -- a project -------------------------------------------------------------------------------------


def test_a_projects_stream_begins_now(world: World) -> None:
    """What happened before is not news, what happens after is, in other projects is not."""
    world.project()
    world.project("other")
    _, caller = world.key()
    claim = world.running(caller)
    position = world.events.project_now("demo")
    assert follow(world, position)[0] == []
    write(world, claim, b"a")
    world.submit(caller, "other")
    new = world.submit(caller).command.id
    events, position = follow(world, position)
    assert sorted(ids(events)) == sorted([(claim.command.id, 3), (new, 1)])
    assert follow(world, position)[0] == []


def test_output_is_left_out_unless_asked_for(world: World) -> None:
    """Without output only states and their like come; the position passes the rest by."""
    world.project()
    _, caller = world.key()
    position = world.events.project_now("demo")
    claim = world.running(caller, kind=Kind.CLAUDE, spec={"prompt": "x"})
    line = NewEvent(AGENT, b'{"type":"say"}\n', "stdout", 0)
    world.queue.append(claim.command.id, claim.token, [line, NewEvent("warning", b"{}")])
    world.finish(claim)
    quiet, after = follow(world, position, output=False)
    assert [e.type for e in quiet] == ["state", "state", "warning", "end"]
    assert [e.seq for e in follow(world, position)[0]] == [1, 2, 3, 4, 5]
    assert follow(world, after)[0] == []


def test_pages_of_any_size_give_every_event_once_and_in_order(world: World) -> None:
    """Whatever the page size, the union is everything, without repeats, each command in order."""
    world.project(limit=10)
    _, caller = world.key()
    start = world.events.project_now("demo")
    claims = [world.running(caller) for _ in range(4)]
    for round_ in range(5):
        for claim in claims:
            write(world, claim, b"%d" % round_)
    batch = [output(b"z", n) for n in range(5, 12)]
    world.queue.append(claims[0].command.id, claims[0].token, batch)
    for claim in claims:
        world.finish(claim)
    expected = sorted(
        (claim.command.id, event.seq)
        for claim in claims
        for event in world.events.page(claim.command.id, 0, 10**6).events
    )
    for limit in (1, 2, 3, 7, 1000):
        events, _ = follow(world, start, limit=limit)
        assert sorted(ids(events)) == expected
        for claim in claims:
            own = [seq for id_, seq in ids(events) if id_ == claim.command.id]
            assert own == sorted(own)


def test_a_position_can_be_used_again(world: World) -> None:
    """A client that lost a page asks from its last position and gets the same again."""
    world.project()
    _, caller = world.key()
    position = world.events.project_now("demo")
    claim = world.running(caller)
    write(world, claim, b"a", b"b")
    once = world.events.project_news("demo", position, output=True, limit=3)
    twice = world.events.project_news("demo", position, output=True, limit=3)
    assert once.events == twice.events


@pytest.mark.row(16)
def test_a_position_that_names_another_projects_command_shows_none_of_it(world: World) -> None:
    """Whatever a client has put into its Last-Event-ID: the project is what it reads."""
    world.project()
    world.project("other")
    _, caller = world.key()
    start = world.events.project_now("demo")
    foreign = world.submit(caller, "other").command
    own = world.submit(caller).command
    for seen in ({}, {foreign.id: 0}, {foreign.id: 0, own.id: 0}):
        forged = Position(start.horizon, seen)
        page = world.events.project_news("demo", forged, output=True, limit=100)
        assert {event.command_id for event in page.events} == {own.id}
