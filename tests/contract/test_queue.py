"""What every Queue does: order, limits, leases, fencing, the one end (data.md, Queue rules)."""

from __future__ import annotations

import hashlib
import threading

import pytest

from common.domain.agent import AgentState
from common.domain.command import Kind, Priority, State, Timeouts
from common.domain.events import AGENT, OUTPUT, TRUNCATED, NewEvent
from common.domain.identifiers import new_id
from common.ports.commands import Filter
from common.ports.outbox import OutgoingEvent
from common.ports.queue import LEASE_S, LeaseLost
from tests.contract.conftest import CANCELLED, DONE, ORIGIN, OTHER_WORKER, WORKER, World, output

# -- order -----------------------------------------------------------------------------------------


def test_priority_goes_first_then_age(world: World) -> None:
    """Strictly by priority, and the oldest first within one."""
    world.project(limit=10)
    _, caller = world.key()
    order = [Priority.LOW, Priority.NORMAL, Priority.URGENT, Priority.NORMAL, Priority.HIGH]
    made = [(priority, world.submit(caller, priority=priority).command.id) for priority in order]
    expected = [id_ for _, id_ in sorted(made)]
    assert [world.claimed().command.id for _ in made] == expected


def test_keys_take_turns(world: World) -> None:
    """One key's long queue does not starve another's: the lane served longest ago goes first."""
    world.project(limit=10)
    callers = [world.key()[1], world.key()[1]]
    for _ in range(4):
        world.submit(callers[0])
    for _ in range(3):
        world.submit(callers[1])
    turns = [world.claimed().command.key_id for _ in range(7)]
    assert turns[0] != turns[1]
    assert turns[:6] == turns[:2] * 3


def test_priority_beats_turns(world: World) -> None:
    """A lane just served goes first again when it has the more urgent command."""
    world.project(limit=10)
    (_, busy), (_, idle) = world.key(), world.key()
    for _ in range(2):
        world.submit(busy, priority=Priority.HIGH)
    world.submit(idle)
    turns = [world.claimed().command.key_id for _ in range(3)]
    assert turns == [busy.key_id, busy.key_id, idle.key_id]


# -- limits ----------------------------------------------------------------------------------------


def test_a_full_project_gives_nothing_until_one_ends(world: World) -> None:
    """With `limit` commands live the next waits; when one ends it starts."""
    world.project(limit=2)
    _, caller = world.key()
    for _ in range(3):
        world.submit(caller)
    first, _ = world.claimed(), world.claimed()
    assert world.queue.claim("demo", WORKER) is None
    world.finish(first)
    assert world.claimed()


def test_a_cancelling_command_still_takes_its_slot(world: World) -> None:
    """What is being cancelled runs until the workspace says otherwise."""
    world.project(limit=1)
    _, caller = world.key()
    claim = world.running(caller)
    world.submit(caller)
    world.commands.cancel(claim.command.id, "graceful", "user", CANCELLED, ORIGIN, caller)
    assert world.queue.claim("demo", WORKER) is None


def test_a_changed_limit_counts_at_once(world: World) -> None:
    """A project whose limit was raised claims more, one whose limit was lowered no more."""
    world.project(limit=1)
    _, caller = world.key()
    for _ in range(4):
        world.submit(caller)
    world.claimed()
    world.project(limit=2)
    world.claimed()
    world.project(limit=1)
    assert world.queue.claim("demo", WORKER) is None


def test_a_full_key_lets_others_pass(world: World) -> None:
    """A key at its limit waits, in every project, while other keys go on."""
    world.project(limit=10)
    world.project("other", limit=10)
    (_, small), (_, free) = world.key(max_concurrent=1), world.key()
    world.submit(small, priority=Priority.URGENT)
    world.submit(small, priority=Priority.URGENT)
    world.submit(small, "other")
    world.submit(free, priority=Priority.LOW)
    first = world.claimed()
    assert first.command.key_id == small.key_id
    assert world.claimed().command.key_id == free.key_id
    assert world.queue.claim("demo", WORKER) is None
    assert world.queue.claim("other", WORKER) is None
    world.finish(first)
    assert world.claimed("other").command.key_id == small.key_id


def test_projects_do_not_wait_for_each_other(world: World) -> None:
    """A blocked project is no one else's business."""
    world.project(limit=1)
    world.project("other")
    _, caller = world.key()
    world.running(caller)
    for _ in range(20):
        world.submit(caller)
    world.submit(caller, "other")
    assert world.claimed("other").command.project == "other"


@pytest.mark.parametrize("name", ["demo", "unknown"])
def test_an_empty_queue_gives_nothing(world: World, name: str) -> None:
    """No command, or no project: None."""
    world.project()
    assert world.queue.claim(name, WORKER) is None


def test_a_paused_project_gives_nothing(world: World) -> None:
    """Pausing stops claims, resuming lets them go on."""
    world.project()
    _, caller = world.key()
    world.submit(caller)
    world.pause("demo", True)
    assert world.queue.claim("demo", WORKER) is None
    world.pause("demo", False)
    assert world.claimed()


def test_a_project_that_is_gone_gives_nothing(world: World) -> None:
    """Commands of a project that is gone wait."""
    world.project()
    _, caller = world.key()
    world.submit(caller)
    world.projects.sync([], "test")
    assert world.queue.claim("demo", WORKER) is None


def test_a_session_runs_one_command_at_a_time(world: World) -> None:
    """The second command of a session waits, those of other sessions and none pass it."""
    world.project(limit=10)
    _, caller = world.key()
    held, waits, other, none = (
        world.submit(caller, session=session).command.id for session in ("a", "a", "b", None)
    )
    first = world.claimed()
    assert first.command.id == held
    assert [world.claimed().command.id for _ in range(2)] == [other, none]
    assert world.queue.claim("demo", WORKER) is None
    world.finish(first)
    assert world.claimed().command.id == waits


def test_sessions_of_different_projects_are_different(world: World) -> None:
    """A session's name means something only inside its project."""
    world.project()
    world.project("other")
    _, caller = world.key()
    world.running(caller, session="a")
    world.submit(caller, "other", session="a")
    assert world.claimed("other")


def test_what_waited_too_long_is_not_started(world: World) -> None:
    """A command past its queue timeout is passed over, by claims at least."""
    world.project()
    _, caller = world.key()
    world.submit(caller, timeouts=Timeouts(queue_s=60))
    fresh = world.submit(caller).command.id
    world.pass_time(61)
    assert world.claimed().command.id == fresh
    assert world.queue.claim("demo", WORKER) is None


def test_sixteen_workers_claim_each_command_once(world: World) -> None:
    """However many claim at once, no command is claimed twice and none is left."""
    world.project(limit=100)
    _, caller = world.key()
    made = {world.submit(caller).command.id for _ in range(40)}
    claimed: list[object] = []

    def work(worker: int) -> None:
        while claim := world.queue.claim("demo", worker):
            claimed.append(claim.command.id)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == 40
    assert set(claimed) == made


# -- the claim -------------------------------------------------------------------------------------


def test_a_claim_says_all_a_runner_needs(world: World) -> None:
    """Command, project, token, sealed environment and offsets, from the claim alone."""
    world.project(pod="pod-1", pod_uid="uid-1", namespace="ns")
    _, caller = world.key()
    made = world.submit(caller, sealed_env=b"\x00sealed", env={"A": "1"}).command
    claim = world.claimed()
    assert (claim.command.id, claim.command.state) == (made.id, State.CLAIMED)
    assert claim.command.queue_position == 0
    assert (claim.token, claim.sealed_env, claim.pod_uid) == (1, b"\x00sealed", "uid-1")
    assert (claim.project.name, claim.project.workspace) == ("demo", "/w/demo")
    assert claim.project.pod == "pod-1"
    assert claim.offsets == {"merged": 0}
    assert (claim.cancel_mode, claim.cancel_reason) == (None, None)


@pytest.mark.parametrize(
    ("kind", "spec"),
    [(Kind.CLAUDE, {"prompt": "x"}), (Kind.SHELL, {"script": "x", "streams": "separate"})],
)
def test_separate_streams_have_an_offset_each(
    world: World, kind: Kind, spec: dict[str, str]
) -> None:
    """claude, and shell when asked, keep stdout and stderr apart."""
    world.project()
    _, caller = world.key()
    world.submit(caller, kind=kind, spec=spec)
    assert world.claimed().offsets == {"stdout": 0, "stderr": 0}


# -- leases ----------------------------------------------------------------------------------------


def test_a_heartbeat_answers_only_what_is_still_held(world: World) -> None:
    """A stale token, an unknown id and a released lease are missing in the answer."""
    world.project()
    _, caller = world.key()
    held, released = world.running(caller), world.running(caller)
    world.queue.release([(released.command.id, released.token)])
    answer = world.queue.heartbeat(
        [
            (held.command.id, held.token),
            (held.command.id, held.token + 1),
            (released.command.id, released.token),
            (new_id(), 1),
        ]
    )
    assert [h.command_id for h in answer] == [held.command.id]
    assert world.queue.heartbeat([]) == []


def test_a_live_lease_is_not_adopted(world: World) -> None:
    """While its worker lives and its heartbeat comes, nobody takes a command over."""
    world.project()
    world.alive(WORKER)
    world.alive(OTHER_WORKER)
    _, caller = world.key()
    claim = world.running(caller)
    for _ in range(3):
        world.pass_time(LEASE_S - 1)
        assert world.queue.heartbeat([(claim.command.id, claim.token)])
        assert world.queue.adopt(OTHER_WORKER, 10) == []


def test_an_expired_lease_is_adopted_and_fences_its_predecessor(world: World) -> None:
    """The adopter gets the next token and the stored offsets; the old one writes nothing more."""
    world.project()
    world.alive(WORKER)
    _, caller = world.key()
    old = world.running(caller)
    world.queue.append(old.command.id, old.token, [output(b"abc", 0)])
    world.pass_time(LEASE_S + 1)
    (new,) = world.queue.adopt(OTHER_WORKER, 10)
    assert (new.command.id, new.token) == (old.command.id, old.token + 1)
    assert new.offsets == {"merged": 3}
    lease = (old.command.id, old.token)
    assert world.queue.heartbeat([lease]) == []
    before = world.events.page(old.command.id, 0, 10_000)
    with pytest.raises(LeaseLost):
        world.queue.append(*lease, [output(b"late", 3)])
    with pytest.raises(LeaseLost):
        world.queue.mark_running(*lease)
    with pytest.raises(LeaseLost):
        world.queue.finish(*lease, State.FAILED, DONE)
    with pytest.raises(LeaseLost):
        world.queue.held(*lease)
    assert world.events.page(old.command.id, 0, 10_000) == before


def test_a_dead_workers_commands_are_adopted_at_once(world: World) -> None:
    """When a worker's connection is gone its lease is dead, however long it was to last."""
    world.project()
    worker = world.alive(WORKER)
    _, caller = world.key()
    claim = world.running(caller)
    assert world.queue.adopt(OTHER_WORKER, 10) == []
    worker.close()
    (adopted,) = world.queue.adopt(OTHER_WORKER, 10)
    assert adopted.command.id == claim.command.id


def test_a_worker_keeps_its_own_while_its_lock_is_away(world: World) -> None:
    """A worker that reconnects does not take its own commands from itself, until time runs out."""
    world.project()
    _, caller = world.key()
    claim = world.running(caller)
    assert world.queue.adopt(WORKER, 10) == []
    world.pass_time(LEASE_S + 1)
    (adopted,) = world.queue.adopt(WORKER, 10)
    assert adopted.token == claim.token + 1


def test_what_falls_again_and_again_rests_for_longer(world: World) -> None:
    """Without progress in a process that lives: 0, 0, 15, 30 s …, 10 minutes at most."""
    world.project()
    world.alive(WORKER)
    _, caller = world.key()
    claim = world.running(caller)
    for rest in (0, 0, 15, 30, 60, 120, 240, 480, 600, 600, 600):
        world.pass_time(LEASE_S + rest - 1)
        assert world.queue.adopt(WORKER, 10) == []
        world.pass_time(2)
        (claim,) = world.queue.adopt(WORKER, 10)
    world.queue.append(claim.command.id, claim.token, [output(b"x", 0)])
    world.pass_time(LEASE_S + 601)
    for _ in range(2):  # it got on with it: counted anew
        (claim,) = world.queue.adopt(WORKER, 10)
        world.pass_time(LEASE_S + 1)


def test_a_cancel_and_a_death_wake_what_rests(world: World) -> None:
    """Whoever wants it to end, or took its process away, does not wait."""
    world.project(limit=2)
    worker = world.alive(WORKER)
    _, caller = world.key()
    for _ in range(2):
        world.running(caller)
    for _ in range(3):
        world.pass_time(LEASE_S + 16)
        one, two = world.queue.adopt(WORKER, 10)
    world.pass_time(LEASE_S + 1)
    assert world.queue.adopt(OTHER_WORKER, 10) == []
    world.commands.cancel(one.command.id, "force", "user", CANCELLED, ORIGIN, caller)
    assert [c.command.id for c in world.queue.adopt(OTHER_WORKER, 10)] == [one.command.id]
    worker.close()
    assert [c.command.id for c in world.queue.adopt(OTHER_WORKER, 10)] == [two.command.id]


def test_a_released_command_is_adopted_at_once(world: World) -> None:
    """Release hands over without waiting, and ends the holder's rights."""
    world.project()
    world.alive(WORKER)
    _, caller = world.key()
    claim = world.running(caller)
    lease = (claim.command.id, claim.token)
    world.queue.release([lease])
    with pytest.raises(LeaseLost):
        world.queue.append(*lease, [output(b"x", 0)])
    (adopted,) = world.queue.adopt(OTHER_WORKER, 10)
    assert adopted.command.id == claim.command.id


def test_releasing_what_is_not_held_changes_nothing(world: World) -> None:
    """A stale token releases nobody's lease."""
    world.project()
    _, caller = world.key()
    claim = world.running(caller)
    world.queue.release([(claim.command.id, claim.token + 1), (new_id(), 1)])
    assert world.queue.held(claim.command.id, claim.token)


def test_adoption_takes_no_more_than_asked(world: World) -> None:
    """At most `limit`, the oldest first, and what has ended is not adopted."""
    world.project(limit=10)
    _, caller = world.key()
    claims = [world.running(caller) for _ in range(4)]
    world.finish(claims[0])
    world.pass_time(LEASE_S + 1)
    adopted = world.queue.adopt(OTHER_WORKER, 2)
    assert [a.command.id for a in adopted] == [c.command.id for c in claims[1:3]]


def test_a_dead_lease_shows_to_readers(world: World) -> None:
    """Who reads a live command learns that nobody follows it."""
    world.project()
    worker = world.alive(WORKER)
    _, caller = world.key()
    claim = world.running(caller)

    def dead() -> bool:
        found = world.commands.get(claim.command.id)
        assert found is not None
        return found.lease_dead

    assert not dead()
    worker.close()
    assert dead()
    world.finish(claim)
    assert not dead()


def test_a_cancel_reaches_the_adopter(world: World) -> None:
    """A cancel asked for before the adoption comes with the claim."""
    world.project()
    _, caller = world.key()
    claim = world.running(caller)
    world.commands.cancel(claim.command.id, "force", "user", CANCELLED, ORIGIN, caller)
    world.pass_time(LEASE_S + 1)
    (adopted,) = world.queue.adopt(OTHER_WORKER, 1)
    assert (adopted.cancel_mode, adopted.cancel_reason) == ("force", "user")
    assert adopted.command.state is State.CANCELLING


# -- running ---------------------------------------------------------------------------------------


def test_running_has_its_event_once(world: World) -> None:
    """claimed → running writes a state event and a doorbell; a repeat writes nothing."""
    world.project()
    _, caller = world.key()
    claim = world.running(caller)
    world.queue.mark_running(claim.command.id, claim.token)
    found = world.commands.get(claim.command.id)
    assert found is not None
    assert found.state is State.RUNNING
    assert found.started_at is not None
    events = world.events.page(claim.command.id, 0, 10_000).events
    assert [e.data.count(b"running") for e in events] == [0, 1]
    types = [e.type for e in left(world)]
    assert types.count("ai.orchard9.rdev.command.started.v1") == 1


def test_what_is_being_cancelled_starts_without_running(world: World) -> None:
    """A command cancelled between claim and start keeps its state, and gets its start time."""
    world.project()
    _, caller = world.key()
    world.submit(caller)
    claim = world.claimed()
    world.commands.cancel(claim.command.id, "graceful", "user", CANCELLED, ORIGIN, caller)
    world.queue.mark_running(claim.command.id, claim.token)
    found = world.commands.get(claim.command.id)
    assert found is not None
    assert found.state is State.CANCELLING
    assert found.started_at is not None


# -- events ----------------------------------------------------------------------------------------


def test_events_are_numbered_without_gaps_in_the_order_given(world: World) -> None:
    """seq runs from 1; a batch keeps its order, and types and bytes come back as they went in."""
    world.project()
    _, caller = world.key()
    claim = world.running(caller)
    events = [
        output(b"\x00\xff", 0),
        NewEvent("warning", b'{"a":1}'),
        output("é".encode(), 2),
    ]
    world.queue.append(claim.command.id, claim.token, events)
    page = world.events.page(claim.command.id, 2, 10_000)
    assert [(e.seq, e.type, e.data, e.stream, e.offset) for e in page.events] == [
        (3, "output", b"\x00\xff", "merged", 0),
        (4, "warning", b'{"a":1}', None, None),
        (5, "output", "é".encode(), "merged", 2),
    ]


def test_a_repeated_batch_is_stored_once(world: World) -> None:
    """When the answer to an append was lost, sending it again stores nothing twice."""
    world.project()
    _, caller = world.key()
    claim = world.running(caller)
    lease = (claim.command.id, claim.token)
    batch = [output(b"hello ", 0), NewEvent("warning", b"{}"), output(b"world", 6)]
    world.queue.append(*lease, batch)
    world.queue.append(*lease, batch)
    world.queue.append(*lease, [output(b"world, again", 6)])
    whole = world.commands.output(claim.command.id, "merged", 0, 1000)
    assert b"".join(s.data for s in whole) == b"hello world, again"
    assert world.events.page(claim.command.id, 0, 10_000).last == 6


def test_a_hole_in_the_output_is_refused(world: World) -> None:
    """Bytes that do not follow what is stored are a mistake, and nothing is written."""
    world.project()
    _, caller = world.key()
    claim = world.running(caller)
    lease = (claim.command.id, claim.token)
    for batch in ([output(b"x", 5)], [output(b"x", 0), output(b"y", 7)]):
        with pytest.raises(ValueError, match="goes on at byte"):
            world.queue.append(*lease, batch)
    assert world.commands.output_size(claim.command.id, "merged") == (0, False)


def test_large_batches_are_stored_like_small_ones(world: World) -> None:
    """A batch beyond what one call takes keeps every byte, order and number."""
    world.project()
    _, caller = world.key()
    claim = world.running(caller)
    piece = bytes(range(256)) * 256
    events = [output(piece, n * len(piece)) for n in range(8)] + [NewEvent("warning", b"{}")]
    world.queue.append(claim.command.id, claim.token, events)
    world.queue.append(claim.command.id, claim.token, events)
    digest = hashlib.sha256(piece * 8).hexdigest()
    assert world.queue.stored_digest(claim.command.id, "merged") == digest
    page = world.events.page(claim.command.id, 2, 10**9)
    assert [e.seq for e in page.events] == list(range(3, 12))
    assert [e.type for e in page.events] == ["output"] * 8 + ["warning"]
    assert page.events[3].data == piece


def test_nothing_stored_has_the_digest_of_nothing(world: World) -> None:
    """A command without output hashes to the empty string's digest."""
    world.project()
    _, caller = world.key()
    claim = world.running(caller)
    empty = hashlib.sha256(b"").hexdigest()
    assert world.queue.stored_digest(claim.command.id, "merged") == empty


def test_what_claude_said_is_found_again(world: World) -> None:
    """Its first line, its newest result, and where its last line ends."""
    world.project()
    _, caller = world.key()
    claim = world.running(caller, kind=Kind.CLAUDE, spec={"prompt": "x"})
    assert world.queue.agent_state(claim.command.id) == AgentState()
    lines = [
        b'{"type":"system","subtype":"init","n":0}\n',
        b'{"type":"result","n":1}\n',
        b'{"type":"result","n":2}\n',
        *[b'{"type":"say","text":"\\"result\\""}\n'] * 30,
    ]
    at = 0
    for line in lines:
        event = NewEvent(AGENT, line, "stdout", at)
        world.queue.append(claim.command.id, claim.token, [event])
        at += len(line)
    assert world.queue.held(claim.command.id, claim.token).offsets["stdout"] == at
    found = world.queue.agent_state(claim.command.id)
    assert found.init == {"type": "system", "subtype": "init", "n": 0}
    assert (found.result, found.at_rest) == ({"type": "result", "n": 2}, True)
    assert (found.line_start, found.reread) == (at, None)
    piece = NewEvent(OUTPUT, b"half a line", "stdout", at)
    world.queue.append(claim.command.id, claim.token, [piece])
    rest = NewEvent(OUTPUT, b" and its end\n", "stdout", at + 11)
    said = NewEvent.of(AGENT, {"raw": {"type": "result"}, "truncated": True, "offset": at})
    assert world.queue.agent_state(claim.command.id).line_start == at
    world.queue.append(claim.command.id, claim.token, [rest, said])
    found = world.queue.agent_state(claim.command.id)
    assert (found.line_start, found.reread, found.result) == (at + 24, at, {"type": "result"})


# -- the end ---------------------------------------------------------------------------------------


def test_a_command_ends_once(world: World) -> None:
    """State, outcome, one `end` event and one doorbell; a second finish answers None."""
    world.project()
    _, caller = world.key()
    claim = world.running(caller, env={"A": "1"}, sealed_env=b"secret")
    outcome = {**DONE, "agent": {"result": "text", "num_turns": 2}}
    lease = (claim.command.id, claim.token)
    event_id = world.queue.finish(*lease, State.FAILED, outcome)
    assert event_id is not None
    assert world.queue.finish(*lease, State.SUCCEEDED, DONE) is None
    ended = world.commands.get(claim.command.id)
    assert ended is not None
    assert (ended.state, ended.outcome) == (State.FAILED, outcome)
    (event,) = world.outbox.take([event_id])
    assert event.type == "ai.orchard9.rdev.command.failed.v1"
    assert event.data["outcome"] == {**DONE, "agent": {"num_turns": 2}}
    page = world.events.page(claim.command.id, 2, 1000)
    assert [(e.type, e.seq) for e in page.events] == [("end", 3)]


def test_what_is_said_with_the_end_is_said_once(world: World) -> None:
    """Right before it, in its transaction; neither a second finish nor a stale one adds any."""
    world.project()
    _, caller = world.key()
    claim = world.running(caller)
    said = [NewEvent.of(TRUNCATED, {"stream": "merged", "bytes": 3, "why": "cap"})]
    with pytest.raises(LeaseLost):
        world.queue.finish(claim.command.id, claim.token + 1, State.FAILED, DONE, said)
    for _ in range(2):
        world.queue.finish(claim.command.id, claim.token, State.FAILED, DONE, said)
    page = world.events.page(claim.command.id, 2, 1000)
    assert [(e.type, e.seq) for e in page.events] == [("truncated", 3), ("end", 4)]


def test_nothing_comes_after_the_end(world: World) -> None:
    """An ended command takes no events, no heartbeat and no adoption."""
    world.project()
    _, caller = world.key()
    claim = world.running(caller)
    world.finish(claim)
    lease = (claim.command.id, claim.token)
    with pytest.raises(LeaseLost):
        world.queue.append(*lease, [output(b"x", 0)])
    with pytest.raises(LeaseLost):
        world.queue.held(*lease)
    assert world.queue.heartbeat([lease]) == []
    world.pass_time(LEASE_S + 1)
    assert world.queue.adopt(OTHER_WORKER, 10) == []
    assert world.events.page(claim.command.id, 0, 1000).last == 3


def test_cancel_and_finish_race_to_one_end(world: World) -> None:
    """Of a cancel and a finish at once, the command has one end, and a cancel finds it or not."""
    world.project(limit=100)
    _, caller = world.key()
    claims = [world.running(caller) for _ in range(10)]
    start = threading.Barrier(20)

    def finish(n: int) -> None:
        start.wait()
        world.finish(claims[n])

    def cancel(n: int) -> None:
        start.wait()
        id_ = claims[n].command.id
        world.commands.cancel(id_, "graceful", "user", CANCELLED, ORIGIN, caller)

    threads = [threading.Thread(target=f, args=(n,)) for f in (finish, cancel) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for claim in claims:
        types = [e.type for e in world.events.page(claim.command.id, 0, 10_000).events]
        assert types.count("end") == 1
        assert types[-1] == "end"
        found = world.commands.get(claim.command.id)
        assert found is not None
        assert found.state is State.SUCCEEDED


def test_cancel_and_claim_race_to_one_of_the_two(world: World) -> None:
    """A waiting command that is cancelled while it is claimed ends or is cancelling, never both."""
    world.project(limit=100)
    _, caller = world.key()
    waiting = [world.submit(caller).command.id for _ in range(10)]
    start = threading.Barrier(20)
    claimed: list[object] = []

    def claim() -> None:
        start.wait()
        if found := world.queue.claim("demo", WORKER):
            claimed.append(found.command.id)

    def cancel(n: int) -> None:
        start.wait()
        world.commands.cancel(waiting[n], "graceful", "user", CANCELLED, ORIGIN, caller)

    threads = [threading.Thread(target=claim) for _ in range(10)]
    threads += [threading.Thread(target=cancel, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    states = {c.id: c.state for c in world.commands.list(Filter())}
    for id_ in waiting:
        assert states[id_] is (State.CANCELLING if id_ in claimed else State.CANCELLED)


def left(world: World) -> list[OutgoingEvent]:
    """Every event nobody has published yet."""
    world.pass_time(6)
    return world.outbox.take_left(1000)
