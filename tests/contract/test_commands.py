"""What every CommandStore does: submitting, reading, cancelling, re-prioritising, output."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from common.domain.command import Kind, Priority, State, Timeouts
from common.domain.errors import (
    ConcurrencyLimited,
    Conflict,
    Forbidden,
    InvalidField,
    InvalidRequest,
    NotFound,
    Unauthorized,
)
from common.domain.events import NewEvent
from common.domain.identifiers import new_id
from common.ports.commands import Filter, Idempotency
from tests.contract.conftest import CANCELLED, ORIGIN, WORKER, World, now, output


def once(key: str = "k", body: bytes = b"body") -> Idempotency:
    return Idempotency("POST /v1/commands", key, body)


# -- submitting ------------------------------------------------------------------------------------


def test_a_submitted_command_reads_back_as_it_was_answered(world: World) -> None:
    """What submit answers is what get answers."""
    world.project()
    _, caller = world.key()
    made = world.submit(
        caller,
        spec={"script": "é \u2028"},
        labels={"null": "NULL", "": 'a"b\\c'},
        env={"TOKEN": "secret"},
        priority=Priority.HIGH,
        timeouts=Timeouts(10, None, 5),
        session="s-1",
        retry_of=new_id(),
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        sealed_env=b"sealed",
    )
    assert not made.replayed
    assert made.command == world.commands.get(made.command.id)
    assert made.command.env_names == ("TOKEN",)
    assert made.command.queue_position == 1


def test_a_submit_leaves_one_doorbell_and_one_event(world: World) -> None:
    """The queued command has event 1 and an outbox row with ids and no spec."""
    world.project()
    _, caller = world.key()
    made = world.submit(caller)
    assert made.doorbell is not None
    (event,) = world.outbox.take([made.doorbell])
    shown = f"cmd_{made.command.id.hex}"
    assert event.type == "ai.orchard9.rdev.command.queued.v1"
    assert event.subject == f"projects/demo/commands/{shown}"
    assert event.data == {"id": shown, "project": "demo", "kind": "shell", "state": "queued"}
    (first,) = world.events.page(made.command.id, 0, 1000).events
    assert (first.seq, first.type) == (1, "state")


@pytest.mark.parametrize("gone", [False, True])
def test_a_project_that_is_not_there_is_not_found(world: World, gone: bool) -> None:
    """An unknown project and one that is gone are the same to a submit."""
    if gone:
        world.project()
        world.projects.sync([], "test")
    _, caller = world.key()
    with pytest.raises(NotFound):
        world.submit(caller)


def test_a_kind_the_project_does_not_allow_is_forbidden(world: World) -> None:
    """allowed_commands is a list of what may run; git is not on this one."""
    world.project(allowed_commands=("shell", "claude"))
    _, caller = world.key()
    world.submit(caller)
    with pytest.raises(Forbidden):
        world.submit(caller, kind=Kind.GIT)


def test_a_revoked_key_submits_nothing(world: World) -> None:
    """A request that was authorised before the key was revoked no longer makes commands."""
    world.project()
    _, caller = world.key()
    world.keys.revoke(caller.key_id, CANCELLED, caller, ORIGIN)
    with pytest.raises(Unauthorized):
        world.submit(caller)


@pytest.mark.parametrize(
    "fields",
    [
        {"spec": {"script": "\ud800"}},
        {"spec": {"script": "a\0b"}},
        {"spec": {"\udfff": 1}},
        {"labels": {"a": "\0"}},
        {"session": "\ud83d"},
    ],
)
def test_text_that_cannot_be_stored_is_refused_and_leaves_nothing(
    world: World, fields: dict[str, Any]
) -> None:
    """A lone surrogate or NUL is InvalidRequest, and the store answers rightly after it."""
    world.project()
    _, caller = world.key()
    with pytest.raises(InvalidRequest):
        world.submit(caller, **fields)
    assert world.commands.list(Filter()) == []


def test_a_command_for_later_waits_outside_the_queue(world: World) -> None:
    """run_at in the future means scheduled, without a place and without a doorbell."""
    world.project()
    _, caller = world.key()
    made = world.submit(caller, run_at=now() + timedelta(hours=1))
    assert (made.command.state, made.command.queue_position) == (State.SCHEDULED, None)
    assert made.doorbell is None
    assert world.queue.claim("demo", WORKER) is None


# -- if_busy ---------------------------------------------------------------------------------------


def test_the_sixth_is_refused_when_it_would_not_wait(world: World) -> None:
    """With five commands running or waiting, reject_if_busy is ConcurrencyLimited."""
    world.project(limit=5)
    _, caller = world.key()
    for _ in range(3):
        world.running(caller)
    world.submit(caller)
    world.submit(caller, reject_if_busy=True)
    with pytest.raises(ConcurrencyLimited):
        world.submit(caller, reject_if_busy=True)
    assert world.submit(caller).command.queue_position == 3


def test_a_keys_own_limit_counts_for_reject_if_busy(world: World) -> None:
    """A key with one slot in use may not start a second command now."""
    world.project()
    _, caller = world.key(max_concurrent=1)
    _, other = world.key()
    world.running(caller)
    with pytest.raises(ConcurrencyLimited):
        world.submit(caller, reject_if_busy=True)
    world.submit(other, reject_if_busy=True)


def test_a_paused_project_is_busy(world: World) -> None:
    """Nothing starts in a paused project, so reject_if_busy refuses."""
    world.project()
    world.pause("demo", True)
    _, caller = world.key()
    with pytest.raises(ConcurrencyLimited):
        world.submit(caller, reject_if_busy=True)


def test_a_session_in_use_is_refused_when_asked(world: World) -> None:
    """reject_if_session_busy sees waiting and running holders of the session, in this project."""
    world.project()
    world.project("other")
    _, caller = world.key()
    claim = world.running(caller, session="s")
    with pytest.raises(Conflict) as refused:
        world.submit(caller, session="s", reject_if_session_busy=True)
    assert refused.value.code == "session_busy"
    world.submit(caller, "other", session="s", reject_if_session_busy=True)
    world.finish(claim)
    world.submit(caller, session="s", reject_if_session_busy=True)
    with pytest.raises(Conflict):
        world.submit(caller, session="s", reject_if_session_busy=True)


# -- idempotency -----------------------------------------------------------------------------------


def test_a_repeat_answers_the_first_response(world: World) -> None:
    """Same key, same body: the same command as it was created, though it has run since."""
    world.project()
    _, caller = world.key()
    first = world.submit(caller, idempotency=once())
    world.finish(world.claimed())
    again = world.submit(caller, idempotency=once())
    assert (again.replayed, again.doorbell) == (True, None)
    assert again.command == first.command
    assert len(world.commands.list(Filter())) == 1


def test_a_key_used_for_another_body_is_refused(world: World) -> None:
    """Same key, other body: idempotency_mismatch, and nothing is queued."""
    world.project()
    _, caller = world.key()
    world.submit(caller, idempotency=once())
    with pytest.raises(InvalidField) as refused:
        world.submit(caller, idempotency=once(body=b"other"))
    assert refused.value.code == "idempotency_mismatch"
    assert len(world.commands.list(Filter())) == 1


def test_idempotency_keys_belong_to_their_api_key(world: World) -> None:
    """Two callers may use the same Idempotency-Key."""
    world.project()
    callers = [world.key()[1], world.key()[1]]
    made = [world.submit(caller, idempotency=once()) for caller in callers]
    assert [m.replayed for m in made] == [False, False]


def test_a_refused_submit_does_not_use_up_its_idempotency_key(world: World) -> None:
    """What made nothing is not remembered."""
    _, caller = world.key()
    with pytest.raises(NotFound):
        world.submit(caller, idempotency=once())
    world.project()
    assert not world.submit(caller, idempotency=once()).replayed


def test_twenty_at_once_make_one_command(world: World) -> None:
    """Of twenty concurrent submits with one key each gets the command or is told to ask again."""
    world.project()
    _, caller = world.key()
    answers: list[object] = []
    start = threading.Barrier(20)

    def submit() -> None:
        start.wait()
        try:
            answers.append(world.submit(caller, idempotency=once()).command.id)
        except Conflict as refused:
            answers.append(refused.code)

    threads = [threading.Thread(target=submit) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (made,) = world.commands.list(Filter())
    assert len(answers) == 20
    assert set(answers) - {"idempotency_in_flight"} == {made.id}


# -- reading ---------------------------------------------------------------------------------------


def test_what_is_not_there_reads_as_nothing(world: World) -> None:
    """An unknown id is None, and has no output."""
    unknown = new_id()
    assert world.commands.get(unknown) is None
    assert world.commands.get_many([unknown]) == []
    assert world.commands.output(unknown, "merged", 0, 100) == []
    assert world.commands.output_size(unknown, "merged") == (0, False)


def test_positions_follow_priority_then_age(world: World) -> None:
    """An urgent command is first; the others keep their order behind it."""
    world.project()
    _, caller = world.key()
    slow = world.submit(caller, priority=Priority.LOW).command
    first, second = world.submit(caller).command, world.submit(caller).command
    urgent = world.submit(caller, priority=Priority.URGENT).command
    places = {c.id: c.queue_position for c in world.commands.list(Filter())}
    assert places == {urgent.id: 1, first.id: 2, second.id: 3, slow.id: 4}


def test_a_page_counts_each_projects_queue(world: World) -> None:
    """Positions are those in a command's own project, also of those that stand before the page."""
    _, caller = world.key()
    made = []
    for project in ("demo", "other", "demo", "other", "demo"):
        world.project(project)
        made.append(world.submit(caller, project=project).command.id)
    newest = world.commands.list(Filter(limit=3))
    assert [c.id for c in newest] == made[:1:-1]
    assert [c.queue_position for c in newest] == [3, 2, 2]


def test_a_list_is_newest_first_and_pages_below_an_id(world: World) -> None:
    """`before` goes on exactly where the last page ended."""
    world.project()
    _, caller = world.key()
    made = [world.submit(caller).command.id for _ in range(5)]
    page = [c.id for c in world.commands.list(Filter(limit=3))]
    rest = [c.id for c in world.commands.list(Filter(limit=3, before=page[-1]))]
    assert page + rest == made[::-1]


def test_a_list_shows_only_what_is_asked_for(world: World) -> None:
    """Projects, kinds, labels and states narrow a list, each and together."""
    world.project()
    world.project("other")
    _, caller = world.key()
    world.submit(caller, labels={"team": "a", "x": "1"})
    claim = world.claimed()
    git = world.submit(caller, kind=Kind.GIT, spec={"args": ["log"]}).command.id
    far = world.submit(caller, "other", labels={"team": "a"}).command.id
    later = world.submit(caller, run_at=now() + timedelta(days=1)).command.id
    shell = claim.command.id

    def listed(**wanted: Any) -> set[Any]:
        return {c.id for c in world.commands.list(Filter(**wanted))}

    assert listed() == {shell, git, far, later}
    assert listed(projects=frozenset({"demo"})) == {shell, git, later}
    assert listed(projects=frozenset({"demo", "other"})) == {shell, git, far, later}
    assert listed(projects=frozenset()) == set()
    assert listed(kinds=("git",)) == {git}
    assert listed(labels=(("team", "a"),)) == {shell, far}
    assert listed(labels=(("team", "a"), ("x", "1"))) == {shell}
    assert listed(states=("scheduled",)) == {later}
    assert listed(states=("queued",)) == {shell, git, far}
    assert listed(states=("claimed", "scheduled"), projects=frozenset({"demo"})) == {shell, later}
    world.finish(claim)
    assert listed(states=("succeeded",)) == {shell}
    assert listed(states=("succeeded", "queued"), projects=frozenset({"demo"})) == {shell, git}


# -- cancelling ------------------------------------------------------------------------------------


def test_cancelling_what_waits_ends_it(world: World) -> None:
    """What was never claimed is cancelled at once, with its outcome, event and doorbell."""
    world.project()
    _, caller = world.key()
    waiting = world.submit(caller, sealed_env=b"x", env={"A": "b"}).command
    answer = world.commands.cancel(waiting.id, "graceful", "user", CANCELLED, ORIGIN, caller)
    assert (answer.ended, answer.lease_dead) == (False, False)
    assert answer.event is not None
    ended = world.commands.get(waiting.id)
    assert ended is not None
    assert (ended.state, ended.outcome) == (State.CANCELLED, CANCELLED)
    assert ended.finished_at is not None
    assert [e.type for e in world.events.page(waiting.id, 0, 1000).events] == ["state", "end"]
    (event,) = world.outbox.take([answer.event])
    assert event.type == "ai.orchard9.rdev.command.cancelled.v1"
    assert event.data["outcome"] == CANCELLED
    assert world.queue.claim("demo", WORKER) is None


def test_cancelling_what_is_scheduled_ends_it(world: World) -> None:
    """A command for later is as cancellable as one that waits."""
    world.project()
    _, caller = world.key()
    later = world.submit(caller, run_at=now() + timedelta(hours=1)).command
    world.commands.cancel(later.id, "graceful", "user", CANCELLED, ORIGIN, caller)
    world.pass_time(7200)
    assert world.upkeep.promote_due() == []


def test_cancelling_what_was_claimed_only_asks(world: World) -> None:
    """What was claimed never ends from the database alone: it is cancelling."""
    world.project()
    world.alive(WORKER)
    _, caller = world.key()
    world.submit(caller)
    claim = world.claimed()
    answer = world.commands.cancel(claim.command.id, "graceful", "user", CANCELLED, ORIGIN, caller)
    assert (answer.ended, answer.lease_dead, answer.event) == (False, False, None)
    now_ = world.commands.get(claim.command.id)
    assert now_ is not None
    assert (now_.state, now_.outcome) == (State.CANCELLING, None)
    (held,) = world.queue.heartbeat([(claim.command.id, claim.token)])
    assert (held.cancel_mode, held.cancel_reason) == ("graceful", "user")
    mode = world.queue.append(claim.command.id, claim.token, [NewEvent("warning", b"{}")])
    assert mode == "graceful"


def test_cancelling_twice_says_so_once_and_may_only_get_harder(world: World) -> None:
    """A second cancel changes graceful to force, never back, and adds no event."""
    world.project()
    _, caller = world.key()
    claim = world.running(caller)
    for mode in ("graceful", "force", "graceful"):
        world.commands.cancel(claim.command.id, mode, "user", CANCELLED, ORIGIN, caller)
    held = world.queue.held(claim.command.id, claim.token)
    assert held.cancel_mode == "force"
    states = [e.data for e in world.events.page(claim.command.id, 0, 10_000).events]
    assert sum(b"cancelling" in data for data in states) == 1


def test_cancelling_what_nobody_follows_says_so(world: World) -> None:
    """lease_dead tells the caller to ring the runner."""
    world.project()
    _, caller = world.key()
    worker = world.alive(WORKER)
    claim = world.running(caller)
    worker.close()
    answer = world.commands.cancel(claim.command.id, "force", "user", CANCELLED, ORIGIN, caller)
    assert answer.lease_dead


def test_cancelling_what_ended_changes_nothing(world: World) -> None:
    """After the end a cancel answers `ended` and the outcome stands."""
    world.project()
    _, caller = world.key()
    claim = world.running(caller)
    world.finish(claim)
    answer = world.commands.cancel(claim.command.id, "force", "user", CANCELLED, ORIGIN, caller)
    assert answer.ended
    ended = world.commands.get(claim.command.id)
    assert ended is not None
    assert ended.state is State.SUCCEEDED


def test_rdev_itself_may_cancel(world: World) -> None:
    """Without a caller it is rdev that cancels, when it shuts down."""
    world.project()
    _, caller = world.key()
    claim = world.running(caller)
    world.commands.cancel(claim.command.id, "graceful", "shutdown", CANCELLED, ORIGIN, None)
    assert world.queue.held(claim.command.id, claim.token).cancel_reason == "shutdown"


def test_cancelling_the_unknown_is_not_found(world: World) -> None:
    """An id that never was is NotFound."""
    _, caller = world.key()
    with pytest.raises(NotFound):
        world.commands.cancel(new_id(), "graceful", "user", CANCELLED, ORIGIN, caller)


# -- priority --------------------------------------------------------------------------------------


def test_priority_changes_while_a_command_waits(world: World) -> None:
    """A re-prioritised command is claimed in its new place."""
    world.project()
    _, caller = world.key()
    world.submit(caller)
    second = world.submit(caller).command
    assert world.commands.reprioritise(second.id, Priority.URGENT, ORIGIN, caller)
    assert world.claimed().command.id == second.id


def test_priority_stays_when_a_command_no_longer_waits(world: World) -> None:
    """A claimed, an ended and an unknown command keep their priority."""
    world.project()
    _, caller = world.key()
    world.submit(caller)
    claim = world.claimed()
    assert not world.commands.reprioritise(claim.command.id, Priority.LOW, ORIGIN, caller)
    world.finish(claim)
    assert not world.commands.reprioritise(claim.command.id, Priority.LOW, ORIGIN, caller)
    assert not world.commands.reprioritise(new_id(), Priority.LOW, ORIGIN, caller)


# -- output ----------------------------------------------------------------------------------------


def test_output_reads_back_byte_for_byte_from_any_offset(world: World) -> None:
    """Whatever offset is asked for, what follows is exactly what was written."""
    world.project()
    _, caller = world.key()
    claim = world.running(caller)
    whole = bytes(range(256)) * 5
    for at in range(0, len(whole), 100):
        piece = output(whole[at : at + 100], at)
        world.queue.append(claim.command.id, claim.token, [piece, NewEvent("warning", b"{}")])
    for offset in (0, 1, 99, 100, 101, 700, len(whole) - 1, len(whole), len(whole) + 5):
        found = world.commands.output(claim.command.id, "merged", offset, 10_000)
        assert b"".join(segment.data for segment in found) == whole[offset:]
        assert not found or found[0].offset == offset
    assert world.commands.output_size(claim.command.id, "merged") == (len(whole), False)


def test_output_comes_in_pages(world: World) -> None:
    """About max_bytes at a time, at least one segment, and the next page goes on."""
    world.project()
    _, caller = world.key()
    claim = world.running(caller)
    pieces = [output(b"x" * 50, at) for at in range(0, 500, 50)]
    world.queue.append(claim.command.id, claim.token, pieces)
    offset = pages = 0
    while found := world.commands.output(claim.command.id, "merged", offset, 120):
        assert len(found) == 3 or offset + 50 * len(found) == 500
        offset = found[-1].offset + len(found[-1].data)
        pages += 1
    assert (offset, pages) == (500, 4)


def test_streams_are_kept_apart(world: World) -> None:
    """stdout and stderr have offsets of their own, whatever their order was."""
    world.project()
    _, caller = world.key()
    claim = world.running(caller, spec={"script": "x", "streams": "separate"})
    events = [
        output(b"out", 0, "stdout"),
        output(b"error", 0, "stderr"),
        output(b"put", 3, "stdout"),
    ]
    world.queue.append(claim.command.id, claim.token, events)
    for stream, text in (("stdout", b"output"), ("stderr", b"error")):
        found = world.commands.output(claim.command.id, stream, 0, 100)
        assert b"".join(segment.data for segment in found) == text
        assert world.commands.output_size(claim.command.id, stream) == (len(text), False)


def test_secrets_are_no_part_of_a_command(world: World) -> None:
    """Neither the sealed environment nor its values can be read from a command."""
    world.project()
    _, caller = world.key()
    made = world.submit(caller, env={"TOKEN": "hunter2"}, sealed_env=b"hunter2")
    read = world.commands.get(made.command.id)
    assert read is not None
    assert "hunter2" not in repr(read)
    assert replace(read, env_names=()) != read


@pytest.mark.parametrize(
    ("ahead", "code"), [(timedelta(seconds=-1), "in_the_past"), (timedelta(days=7.1), "too_far")]
)
def test_run_at_is_judged_by_the_stores_clock(world: World, ahead: timedelta, code: str) -> None:
    """In the past or more than 7 days ahead is refused, and nothing is stored."""
    world.project()
    _, caller = world.key()
    with pytest.raises(InvalidField) as refused:
        world.submit(caller, run_at=now() + ahead)
    assert refused.value.errors[0].code == code
    assert world.commands.list(Filter()) == []
