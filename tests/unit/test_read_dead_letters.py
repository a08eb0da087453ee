"""common/services/read_dead_letters.py: who sees them, and what a replay does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from common.domain import identifiers
from common.domain.errors import Conflict, NotFound
from common.domain.identifiers import EVENT, LETTER, new_id, show
from common.domain.triggers import Channel, Inbound
from common.entrypoints.models.commands import new_command
from common.ports.dead_letters import DeadLetter
from common.ports.outbox import OutgoingEvent
from common.services.bury import inbound_letter, letter
from common.services.read_dead_letters import ReadDeadLetters, Replayed
from tests.unit.desk import FROM_DATA, ORIGIN, SCRIPT, Desk


class Office:
    def __init__(self) -> None:
        self.desk = Desk()
        self.published: list[OutgoingEvent] = []
        self.dead = ReadDeadLetters(
            self.desk.letters, self.desk.triggers, lambda: self.desk.receive, lambda: self
        )

    def publish(self, event: OutgoingEvent) -> None:
        self.published.append(event)

    def close(self) -> None:
        pass

    def kept(self, dead: DeadLetter) -> str:
        self.desk.letters.bury(dead)
        return show(LETTER, dead.id)

    def replay(self, name: str, **more: Any) -> Replayed:
        caller = more.get("caller", self.desk.owner)
        return self.dead.replay(name, new_command, caller, ORIGIN)


@pytest.fixture
def office() -> Office:
    return Office()


EVENT_ = {"id": "1", "source": "/ci", "type": "t", "time": "2020-01-01T00:00:00Z"}


def outside(channel: Channel = Channel.HTTP, **more: Any) -> DeadLetter:
    event = Inbound(channel, EVENT_, {"a": "x"}, b'{"a":"x"}')
    return inbound_letter(event, "no_trigger", **more)


def test_a_replay_takes_the_event_once_more(office: Office) -> None:
    """Where nothing was for it there is a trigger now; its age no longer counts."""
    name = office.kept(outside())
    assert office.replay(name).outcome == "no_trigger"
    office.desk.trigger()
    done = office.replay(name)
    assert (done.outcome, done.letter.replayed_at is not None) == ("submitted", True)
    assert office.desk.made[0].spec["script"] == "echo 'x'"
    assert office.replay(name).outcome == "duplicate"
    assert len(office.desk.made) == 1


def test_a_replay_goes_the_way_the_event_came(office: Office) -> None:
    """What came from the broker reaches what takes events of the broker, and nothing else."""
    name = office.kept(outside(Channel.BROKER))
    office.desk.trigger(accept=frozenset({"http"}))
    assert office.replay(name).outcome == "no_trigger"
    office.desk.trigger(accept=frozenset({"broker"}))
    assert office.replay(name).outcome == "submitted"


def test_a_delivery_of_github_is_replayed_at_its_trigger(office: Office) -> None:
    """Not at others; when that one is gone there is nothing to replay."""
    mine, _ = office.desk.trigger(), office.desk.trigger()
    name = office.kept(outside(Channel.GITHUB, trigger=mine.id))
    done = office.replay(name)
    assert done.received is not None
    assert [r.match.trigger_id for r in done.received.results] == [mine.id]
    office.desk.triggers.delete(mine.id, None, office.desk.owner, ORIGIN)
    with pytest.raises(Conflict) as caught:
        office.replay(name)
    assert caught.value.code == "not_replayable"


def test_a_replayer_reaches_only_what_its_key_sees(office: Office) -> None:
    """A replay is an event of the replayer's."""
    office.desk.trigger(SCRIPT | {"project": "other"})
    name = office.kept(replace(outside(), project="demo"))
    mine = office.desk.key("triggers:write", projects=frozenset({"demo"}))
    assert office.replay(name, caller=mine).outcome == "no_trigger"


def test_a_letter_of_other_projects_is_not_there(office: Office) -> None:
    """Nor one whose project nobody knows, for a key of some projects."""
    office.desk.trigger(FROM_DATA)
    mine = office.desk.key("triggers:write", projects=frozenset({"demo"}))
    own = office.kept(replace(outside(), id=new_id(), project="demo"))
    assert office.dead.one(own, mine).project == "demo"
    for project in ("other", None):
        name = office.kept(replace(outside(), id=new_id(), project=project))
        for ask in (lambda n: office.dead.one(n, mine), lambda n: office.replay(n, caller=mine)):
            with pytest.raises(NotFound):
                ask(name)


OWN = {
    "id": show(EVENT, new_id()),
    "source": "/rdev",
    "type": "ai.orchard9.rdev.command.queued.v1",
    "subject": "projects/demo/commands/x",
    "traceparent": "00-a-b-01",
    "knativeerrorcode": "500",
    "knativeerrordest": "http://x",
}


def test_an_event_of_rdev_is_handed_to_the_broker_again(office: Office) -> None:
    """With the id it had, so that nothing happens twice."""
    name = office.kept(letter(OWN, b'{"project":"demo"}'))
    assert office.replay(name).outcome == "published"
    [event] = office.published
    assert show(EVENT, event.id) == OWN["id"]
    assert (event.type, event.subject) == (OWN["type"], OWN["subject"])
    assert (event.data, event.traceparent) == ({"project": "demo"}, "00-a-b-01")


def test_an_undelivered_event_from_outside_is_taken_as_from_the_broker(office: Office) -> None:
    """When our function was away for longer than the broker's patience."""
    office.desk.trigger(accept=frozenset({"broker"}))
    attributes = EVENT_ | {"knativeerrorcode": "503", "knativeerrordest": "http://x"}
    done = office.replay(office.kept(letter(attributes, b'{"a":"x"}')))
    assert done.outcome == "submitted"
    assert done.received is not None
    assert "knativeerrorcode" not in done.received.event.attributes


@pytest.mark.parametrize(
    "dead",
    [
        letter({}, b"?"),
        letter(EVENT_, b"?", "it is no CloudEvent"),
        letter(EVENT_, b"x" * 70_000),
        letter(OWN | {"id": "evt_x"}, b'{"project":"demo"}'),
        letter(OWN, b"not json"),
        letter(OWN, b'{"a":NaN}'),
        letter(OWN, b"[" * 60_000),
        inbound_letter(Inbound(Channel.HTTP, OWN, {}, b"{}"), "loop"),
    ],
    ids=lambda dead: dead.reason,
)
def test_what_was_not_read_whole_cannot_be_replayed(office: Office, dead: DeadLetter) -> None:
    """Nor what only says to come from rdev."""
    name = office.kept(dead)
    with pytest.raises(Conflict) as caught:
        office.replay(name)
    assert caught.value.code == "not_replayable"
    assert office.published == []


def test_a_letter_that_went_meanwhile_is_not_there(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its retention was over at that moment."""
    name = office.kept(outside())
    monkeypatch.setattr(office.desk.letters, "replayed", lambda *_: False)
    with pytest.raises(NotFound):
        office.replay(name)
    assert identifiers.parse(LETTER, name)
