"""common/services/follower.py: from a claim to the end, through every trouble on the way."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.adapters.memory.credentials import MemoryCredentials
from common.adapters.memory.workspace import MemoryWorkspace, Process, When
from common.domain.command import Kind, State
from common.domain.errors import SecretsUnreadable, Unavailable
from common.domain.events import AGENT, END, OUTPUT, TRUNCATED, USAGE
from common.domain.workspace import (
    Argument,
    Job,
    KillMode,
    OffsetBeyondEnd,
    RunAbsent,
    RunState,
    RunStatus,
    StartRefused,
    Superseded,
    TransportLost,
    WorkspaceUnreachable,
)
from common.ports.queue import Claim, LeaseLost
from common.ports.workspace import Start
from common.services import follower as module
from common.services import ingest as ingest_module
from common.services.follower import Follower
from common.services.wakeups import Wakeups
from tests.unit import fakes
from tests.unit.fakes import FakeQueue, FakeRelay, FakeSealer, FakeSignals, Faults, Row

CAPTURES = Path(__file__).parents[1] / "fixtures" / "claude-2.1.197"


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between attempts are not what is tested."""
    monkeypatch.setattr(module, "RETRY_S", (0.001, 0.002))
    monkeypatch.setattr(ingest_module, "FLUSH_S", 0.0)


class World:
    """A queue, a workspace, and followers over them."""

    def __init__(self) -> None:
        self.queue = FakeQueue()
        self.workspace = MemoryWorkspace()
        self.credentials = MemoryCredentials()
        self.signals = FakeSignals()
        self.relay = FakeRelay()
        self.threads: list[threading.Thread] = []
        self.started: list[str] = []
        self.on_queue: Any = self.queue
        self.on_workspace: Any = self.workspace

    def program(self, work: Callable[[Process], int], *argv: Argument) -> None:
        """What `argv` does; every start of it is counted."""

        def counted(process: Process) -> int:
            self.started.append(process.job.run_id)
            return work(process)

        self.workspace.on(argv or ("work",), counted)

    def submit(self, kind: Kind = Kind.SHELL, **spec: Any) -> Row:
        return self.queue.add(fakes.command(kind, **spec))

    def claim(self) -> Claim:
        claim = self.queue.claim("demo", 1)
        assert claim is not None
        return claim

    def adopt(self, row: Row) -> Claim:
        self.queue.kill_lease(row)
        [claim] = self.queue.adopt(2, 5)
        return claim

    def follower(self, claim: Claim) -> Follower:
        return Follower(
            claim,
            self.on_queue,
            self.on_workspace,
            FakeSealer(),
            self.credentials,
            self.relay,  # type: ignore[arg-type]
            Wakeups(self.signals),
            1 << 20,
        )

    def run(self, row: Row) -> Row:
        assert self.follower(self.claim()).follow()
        return row

    def in_thread(self, follower: Follower) -> Following:
        return Following(follower)


class Following:
    """A follower in a thread of its own, and what it answered."""

    def __init__(self, follower: Follower) -> None:
        self.follower = follower
        self.answer: bool | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.answer = self.follower.follow()
        except BaseException as error:
            self.error = error

    def join(self) -> bool | None:
        self._thread.join(20)
        assert not self._thread.is_alive(), "the follower hangs"
        if self.error is not None:
            raise self.error
        return self.answer


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    for thread in made.workspace.threads:
        thread.join(20)
        assert not thread.is_alive(), "something is left running"


class Gate:
    """A program that prints its first part, waits for the test, and prints its second."""

    def __init__(self, world: World, first: bytes = b"one\n", second: bytes = b"two\n") -> None:
        self.world = world
        self.begun = threading.Event()
        self._open = threading.Event()
        self.canary: list[str] = []

        def work(process: Process) -> int:
            process.write(first)
            self.begun.set()
            process.wait(self._open)
            process.write(second)
            self.canary.append("ran to its end")
            return 0

        world.program(work)

    def open(self) -> None:
        self.world.workspace.set(self._open)


def outcome(row: Row) -> dict[str, Any]:
    assert row.command.outcome is not None
    return row.command.outcome


def ended(row: Row) -> tuple[str, str]:
    return str(row.command.state), outcome(row)["reason"]


def until(holds: Callable[[], bool], changed: threading.Event | None = None) -> None:
    """Wait for what another thread is about to do."""
    waiter = changed or threading.Event()
    for _ in range(4000):
        if holds():
            return
        waiter.wait(0.005)
    raise AssertionError("it never came")


# -- plain lives ---------------------------------------------------------------------------------


def test_a_command_runs_from_claim_to_end(world: World) -> None:
    """Started, its output stored, its end told with totals; in that order."""
    world.program(lambda p: p.write(b"hello\n") or 0)
    row = world.run(world.submit())
    assert row.states == ["running", "succeeded"]
    assert row.bytes_of("merged") == b"hello\n"
    assert ended(row) == ("succeeded", "exit_zero")
    assert outcome(row)["output"]["bytes"] == 6
    assert len(world.relay.asked) == 2  # started, succeeded
    assert len(world.started) == 1


def test_a_command_without_output_ends_too(world: World) -> None:
    """Nothing printed, nothing stored but states."""
    row = world.run(world.submit())
    assert [e.type for e in row.events] == ["state", "end"]


def test_an_exit_code_makes_it_failed(world: World) -> None:
    """The exit record decides."""
    world.program(lambda _p: 3)
    row = world.run(world.submit())
    assert (ended(row), outcome(row)["exit_code"]) == (("failed", "exit_nonzero"), 3)


def test_streams_that_are_separate_stay_apart(world: World) -> None:
    """stdout and stderr each arrive whole, with totals of their own."""

    def work(process: Process) -> int:
        for n in range(20):
            process.write(b"out %d\n" % n)
            process.write(b"err %d\n" % n, "stderr")
        return 0

    world.program(work)
    row = world.run(world.submit(streams="separate"))
    assert row.bytes_of("stdout") == b"".join(b"out %d\n" % n for n in range(20))
    assert row.bytes_of("stderr") == b"".join(b"err %d\n" % n for n in range(20))
    assert outcome(row)["output"]["stderr"]["bytes"] == len(row.bytes_of("stderr"))


def test_secrets_that_no_key_opens_end_the_command(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before a key had its time to come; then it failed to start, and says of what."""
    asked = []

    def unseal(_self: object, _sealed: bytes) -> bytes:
        asked.append(1)
        if len(asked) == 3:
            monkeypatch.setattr(module, "KEY_COMES_S", -1.0)
        raise SecretsUnreadable("no key in RDEV_SECRET_KEYS opens this secret")

    monkeypatch.setattr(fakes.FakeSealer, "unseal", unseal)
    monkeypatch.setattr(module, "RETRY_S", (0.001, 0.001))
    row = world.run(world.queue.add(fakes.command(), b"sealed:{}"))
    assert ended(row) == ("failed", "start_failed")
    assert "RDEV_SECRET_KEYS" in outcome(row)["detail"]
    assert len(asked) == 3


def test_the_environment_is_unsealed_for_the_job(world: World) -> None:
    """Values reach the workspace, and only there."""
    seen: list[Job] = []
    world.program(lambda p: seen.append(p.job) or 0)
    row = world.queue.add(fakes.command(), b'sealed:{"A": "secret"}')
    world.run(row)
    assert seen[0].env["A"] == "secret"
    assert not any(b"secret" in e.data for e in row.events)


def test_output_beyond_the_cap_is_said_to_be_cut(world: World) -> None:
    """A cut is never silent."""
    world.program(lambda p: p.write(b"x" * (2 << 20)) or 0)
    row = world.run(world.submit())
    said = [json.loads(e.data) for e in row.events if e.type == TRUNCATED]
    assert said == [{"stream": "merged", "bytes": 1 << 20, "why": "cap"}]
    assert outcome(row)["output"]["truncated"] is True


def test_a_cwd_that_is_missing_fails_without_running(world: World) -> None:
    """`start_failed` says why, and the command never was running."""
    row = world.run(world.submit(cwd="nowhere"))
    assert ended(row) == ("failed", "start_failed")
    assert outcome(row)["detail"] == "cwd_missing"
    assert row.states == ["failed"]


# -- claude --------------------------------------------------------------------------------------


def claude(world: World, capture: str, *, code: int = 0) -> Row:
    row = world.submit(Kind.CLAUDE)
    argv = module.job_for(row.command, {}, 1).argv
    raw = (CAPTURES / f"{capture}.jsonl").read_bytes()
    world.program(lambda p: p.write(raw) or p.write(b"warning\n", "stderr") or code, *argv)
    return row


def test_claude_ends_as_it_said(world: World) -> None:
    """Its lines are agent events and its result is the outcome."""
    row = world.run(claude(world, "permission_denied"))
    assert ended(row) == ("succeeded", "completed_with_denials")
    assert outcome(row)["agent"]["num_turns"] == 2
    assert {e.type for e in row.events if e.stream == "stdout"} == {AGENT}
    assert {e.type for e in row.events if e.stream == "stderr"} == {OUTPUT}


def test_claude_without_a_result_has_failed(world: World) -> None:
    """Exit code 0 alone is no success."""
    assert ended(world.run(claude(world, "sigint_no_result"))) == ("failed", "no_result")


def test_a_result_that_a_predecessor_stored_counts(world: World) -> None:
    """Who adopts after the result line was stored still concludes from it."""
    row = claude(world, "tool_ok")
    broken = Faults(1, error=RuntimeError("killed"))
    world.on_queue = broken.wrap(world.queue, "finish")
    with pytest.raises(RuntimeError):
        world.follower(world.claim()).follow()
    assert row.offsets["stdout"] > 0
    assert world.follower(world.adopt(row)).follow()
    assert ended(row) == ("succeeded", "exit_zero")
    assert outcome(row)["agent"]["result"]


def test_a_long_result_that_a_predecessor_stored_counts_whole(world: World) -> None:
    """Its row holds only a part of it; the rest is read again and stored once."""
    row = world.submit(Kind.CLAUDE)
    result = {"type": "result", "subtype": "success", "is_error": False, "result": "x" * 200_000}
    raw = b'{"type":"assistant"}\n' + json.dumps(result).encode() + b"\n"
    world.program(lambda p: p.write(raw) or 0, *module.job_for(row.command, {}, 1).argv)
    world.on_queue = Faults(1, error=RuntimeError("killed")).wrap(world.queue, "finish")
    with pytest.raises(RuntimeError):
        world.follower(world.claim()).follow()
    stored = len(row.events)
    assert world.follower(world.adopt(row)).follow()
    assert outcome(row)["agent"]["result"] == result["result"]
    assert row.bytes_of("stdout") == raw
    assert {e.type for e in row.events[stored:]} == {USAGE, END}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No claude needs any time to exit."""
    monkeypatch.setattr(module, "LINGER_S", 0.0)


def hanging(world: World, *lines: dict[str, Any], **options: Any) -> Row:
    """A claude that says these lines and then hangs until it is killed."""
    row = world.submit(Kind.CLAUDE, options=options)
    argv = module.job_for(row.command, {}, 1, {}).argv
    raw = b"".join(json.dumps(line).encode() + b"\n" for line in lines)

    def work(process: Process) -> int:
        process.write(raw)
        process.wait(threading.Event())
        return 0

    world.program(work, *argv)
    return row


RESULT = {"type": "result", "subtype": "success", "is_error": False, "result": "done"}


@pytest.mark.usefixtures("impatient")
def test_a_claude_that_hangs_after_its_result_is_ended(world: World) -> None:
    """And its result counts, not how it ended."""
    row = world.run(hanging(world, {"type": "assistant"}, RESULT))
    assert ended(row) == ("succeeded", "exit_zero")
    assert outcome(row)["agent"]["result"] == "done"
    assert "did not exit" in outcome(row)["detail"]
    assert outcome(row)["exit_code"] != 0


@pytest.mark.usefixtures("impatient")
def test_who_adopts_a_claude_that_hangs_after_its_result_ends_it(world: World) -> None:
    """No further line has to come for it to be seen."""
    row = hanging(world, RESULT)
    first = world.follower(world.claim())
    first._mind = lambda _: None  # it dies before it looks
    following = world.in_thread(first)
    until(lambda: bool(row.offsets.get("stdout")))
    first.stop()
    following.join()
    assert world.follower(world.adopt(row)).follow()
    assert ended(row) == ("succeeded", "exit_zero")


@pytest.mark.usefixtures("impatient")
def test_a_kill_that_does_not_get_through_is_repeated(world: World) -> None:
    """Nobody else asks for this one."""
    row = hanging(world, RESULT)
    world.workspace.fail("kill", WorkspaceUnreachable("away"))
    assert ended(world.run(row)) == ("succeeded", "exit_zero")


def test_claude_may_work_on_after_a_result(world: World) -> None:
    """A background task that ends makes it speak again; only its last word counts."""
    second = RESULT | {"result": "later"}
    row = world.submit(Kind.CLAUDE)
    raw = [json.dumps(line).encode() + b"\n" for line in (RESULT, {"type": "assistant"}, second)]
    argv = module.job_for(row.command, {}, 1).argv
    world.program(lambda p: sum(p.write(line) or 0 for line in raw), *argv)
    assert outcome(world.run(row))["agent"]["result"] == "later"
    assert "detail" not in outcome(row)


def test_a_claude_without_a_required_server_is_ended_before_it_costs_anything(world: World) -> None:
    """Its first line says that the server is not there."""
    init = {"type": "system", "subtype": "init", "mcp_servers": [{"name": "a", "status": "failed"}]}
    row = world.run(hanging(world, init, require_mcp=True))
    assert ended(row) == ("failed", "mcp_failed")
    assert outcome(row)["detail"] == "not connected: a (failed)"


def test_a_project_may_name_a_credential_for_claude(world: World) -> None:
    """It goes with the job of claude alone, and nothing of the workspace's is mixed with it."""
    world.credentials.texts["demo"] = "ANTHROPIC_API_KEY=sk-project"
    jobs: list[Job] = []

    def work(process: Process) -> int:
        jobs.append(process.job)
        return 0

    row, shell = world.submit(Kind.CLAUDE), world.submit(script="x")
    world.program(work, *module.job_for(row.command, {}, 1).argv)
    world.program(work, "sh", "-c", "x")
    world.run(row)
    world.run(shell)
    assert jobs[0].env["ANTHROPIC_API_KEY"] == "sk-project"
    assert "ANTHROPIC_*" not in jobs[0].inherit
    assert "ANTHROPIC_API_KEY" not in jobs[1].env


def test_a_credential_that_cannot_be_used_starts_nothing(world: World) -> None:
    """Not with another one either; what stands in it is not repeated."""
    world.credentials.texts["demo"] = "sk-c4n4ry"
    row = world.run(world.submit(Kind.CLAUDE))
    assert ended(row) == ("failed", "start_failed")
    assert outcome(row)["detail"].startswith("bad_credential: the credential of project demo")
    assert "c4n4ry" not in outcome(row)["detail"]


# -- starts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", When)
def test_a_start_that_is_lost_on_the_way_is_never_a_second_run(world: World, when: When) -> None:
    """Whether or not the start arrived, the next attempt attaches or starts, once."""
    world.program(lambda p: p.write(b"once\n") or 0)
    world.workspace.fail("start", TransportLost("cut"), when)
    row = world.run(world.submit())
    assert row.bytes_of("merged") == b"once\n"
    assert ended(row) == ("succeeded", "exit_zero")
    assert len(world.started) == 1


def test_a_run_that_was_there_is_attached_to(world: World) -> None:
    """Lost the race for the start: the other's run is followed from its first byte."""
    world.program(lambda p: p.write(b"theirs\n") or 0)
    row = world.submit()
    claim = world.claim()
    world.workspace.start(fakes.place(), module.job_for(row.command, {}, 1 << 20))
    assert world.follower(claim).follow()
    assert row.bytes_of("merged") == b"theirs\n"
    assert len(world.started) == 1


@pytest.mark.parametrize("code", ["no_space", "read_only", "unsupported"])
def test_a_workspace_that_refuses_makes_it_fail(world: World, code: str) -> None:
    """The workspace's own words are the detail; nothing ran."""
    world.workspace.fail("start", StartRefused(code, "sorry"))
    row = world.run(world.submit())
    assert ended(row) == ("failed", "start_failed")
    assert outcome(row)["detail"] == f"{code}: sorry"
    assert world.started == []


@pytest.mark.parametrize("predecessor", [True, False])
def test_a_refused_start_leaves_a_tombstone_where_another_may_arrive(
    world: World, predecessor: bool
) -> None:
    """A paused predecessor's start, or a lost one of ours, must not run after the end was told."""
    row = world.submit()
    claim = world.claim()
    if predecessor:
        claim = world.adopt(row)
    else:
        world.workspace.fail("start", TransportLost("slow"))
    world.workspace.fail("start", StartRefused("no_space", "full"))
    assert world.follower(claim).follow()
    assert ended(row) == ("failed", "start_failed")
    late = world.workspace.start(fakes.place(), module.job_for(row.command, {}, 1))
    assert (late.won, late.status.state) == (False, RunState.REFUSED)


def test_a_refused_start_that_a_predecessor_had_won_is_attached_to(world: World) -> None:
    """The tombstone loses against a run that is there."""
    world.program(lambda p: p.write(b"there\n") or 0)
    row = world.submit()
    world.claim()
    world.workspace.start(fakes.place(), module.job_for(row.command, {}, 1 << 20))
    world.workspace.fail("start", StartRefused("no_space", "full"))
    assert world.follower(world.adopt(row)).follow()
    assert (ended(row), row.bytes_of("merged")) == (("succeeded", "exit_zero"), b"there\n")


def test_a_tombstone_without_a_cancel_is_a_failed_start(world: World) -> None:
    """A predecessor refused the run and died: nobody cancelled it, so it is not `cancelled`."""
    row = world.submit()
    world.claim()
    world.workspace.refuse(fakes.place(), fakes.run_of(row))
    assert world.follower(world.adopt(row)).follow()
    assert ended(row) == ("failed", "start_failed")


def test_a_job_that_cannot_be_made_fails_instead_of_crashing_for_ever(world: World) -> None:
    """No adopter could do better."""
    row = world.run(world.submit(argv=["a\0b"]))
    assert ended(row) == ("failed", "start_failed")


def test_a_workspace_that_is_away_is_asked_again(world: World) -> None:
    """Unreachable is no answer, whatever was asked."""
    for method in ("start", "start"):
        world.workspace.fail(method, WorkspaceUnreachable("away"))
    world.program(lambda p: p.write(b"x") or 0)
    assert ended(world.run(world.submit())) == ("succeeded", "exit_zero")


# -- cancels -------------------------------------------------------------------------------------


def test_a_cancel_before_the_start_leaves_a_tombstone(world: World) -> None:
    """The canary never runs, and the command is cancelled with the reason that was given."""
    gate = Gate(world)
    row = world.submit()
    world.claim()
    world.queue.request_cancel(row, "graceful", "user")
    assert world.follower(world.adopt(row)).follow()
    assert ended(row) == ("cancelled", "user")
    assert (world.started, gate.canary) == ([], [])
    late = world.workspace.start(fakes.place(), module.job_for(row.command, {}, 1))
    assert late.status.state is RunState.REFUSED


@pytest.mark.parametrize("when", When)
def test_a_tombstone_whose_answer_is_lost_is_asked_for_again(world: World, when: When) -> None:
    """Refusing twice is refusing once."""
    row = world.submit()
    world.claim()
    world.queue.request_cancel(row)
    world.workspace.fail("refuse", TransportLost("cut"), when)
    assert world.follower(world.adopt(row)).follow()
    assert ended(row) == ("cancelled", "user")


def test_a_cancel_that_loses_against_the_start_kills(world: World) -> None:
    """The run directory was taken by a start, so there is a run to attach to and to end."""
    gate = Gate(world)
    row = world.submit()
    world.claim()
    world.workspace.start(fakes.place(), module.job_for(row.command, {}, 1 << 20))
    gate.begun.wait(20)
    world.queue.request_cancel(row)
    assert world.follower(world.adopt(row)).follow()
    assert ended(row) == ("cancelled", "user")
    assert row.bytes_of("merged") == b"one\n"
    assert gate.canary == []


def test_a_cancel_while_the_start_is_under_way_kills_after_it(world: World) -> None:
    """Asked between claim and launch: remembered, and done as soon as there is what to kill."""
    gate = Gate(world)
    row = world.submit()
    follower = world.follower(world.claim())
    world.queue.request_cancel(row, "graceful", "key_revoked")
    start = world.workspace.start

    def slow_start(place: Any, job: Job) -> Start:
        begun = start(place, job)
        follower.cancel("graceful", "key_revoked")
        return begun

    world.workspace.start = slow_start  # type: ignore[method-assign]
    assert follower.follow()
    assert ended(row) == ("cancelled", "key_revoked")
    assert gate.canary == []


@pytest.mark.parametrize("mode", ["graceful", "force", "shutdown"])
def test_a_cancel_while_it_runs_kills(world: World, mode: str) -> None:
    """What was printed before is kept."""
    gate = Gate(world)
    row = world.submit()
    following = world.in_thread(world.follower(world.claim()))
    gate.begun.wait(20)
    until(lambda: row.command.state is State.RUNNING)
    reason = "shutdown" if mode == "shutdown" else "user"
    world.queue.request_cancel(row, mode, reason)
    following.follower.cancel(mode, reason)
    assert following.join()
    assert ended(row) == ("cancelled", reason)
    assert row.bytes_of("merged") == b"one\n"


@pytest.mark.parametrize(("mode", "reason"), [("graceful", "user"), ("shutdown", "shutdown")])
def test_a_cancel_is_also_seen_by_the_next_append(world: World, mode: str, reason: str) -> None:
    """Even when every wake-up is lost, writing tells."""
    Gate(world)
    row = world.submit()
    claim = world.claim()
    world.queue.request_cancel(row, mode, reason)
    follower = world.follower(claim)  # its claim is from before the request
    assert follower.follow()
    assert ended(row) == ("cancelled", reason)


def test_a_kill_that_does_not_get_through_is_asked_again(world: World) -> None:
    """The heartbeat repeats the request, and the second one arrives."""
    gate = Gate(world)
    row = world.submit()
    following = world.in_thread(world.follower(world.claim()))
    until(lambda: row.command.state is State.RUNNING and gate.begun.is_set())
    world.queue.request_cancel(row)
    world.workspace.fail("kill", WorkspaceUnreachable("away"))
    following.follower.cancel("graceful", "user")
    until(lambda: following.follower._killed is None)
    following.follower.cancel("graceful", "user")
    assert following.join()
    assert ended(row) == ("cancelled", "user")


def test_force_follows_graceful_and_not_the_other_way_round(world: World) -> None:
    """A program that ignores TERM is killed by the later force; one kill for each mode."""
    kills: list[KillMode] = []
    kill = world.workspace.kill
    told = threading.Event()

    def counted(place: Any, run: str, mode: KillMode, reason: str, **more: Any) -> RunStatus:
        kills.append(mode)
        told.set()
        return kill(place, run, mode, reason, **more)

    world.workspace.kill = counted  # type: ignore[method-assign]
    resisted, gate = threading.Event(), threading.Event()

    def work(process: Process) -> int:
        process.write(b"x")
        while True:
            try:
                process.wait(gate)
                return 0
            except BaseException as signal:
                if getattr(signal, "number", 9) == 9:
                    raise
                resisted.set()

    world.program(work)
    row = world.submit()
    following = world.in_thread(world.follower(world.claim()))
    until(lambda: row.command.state is State.RUNNING)
    world.queue.request_cancel(row)
    for _ in range(3):
        following.follower.cancel("graceful", "user")
    assert resisted.wait(20)
    following.follower.cancel("force", "user")
    following.follower.cancel("graceful", "user")
    assert following.join()
    assert kills == [KillMode.GRACEFUL, KillMode.FORCE]
    assert ended(row) == ("cancelled", "user")


def test_a_cancel_after_the_end_changes_nothing(world: World) -> None:
    """The run has ended by itself; there is nothing to kill."""
    world.program(lambda _p: 0)
    row = world.submit()
    follower = world.follower(world.claim())
    assert follower.follow()
    follower.cancel("force", "user")
    assert ended(row) == ("succeeded", "exit_zero")


# -- leases --------------------------------------------------------------------------------------

QUEUE_CALLS = ("append", "held", "mark_running", "finish", "stored_digest", "agent_state")


@pytest.mark.parametrize("call", ["mark_running", "append", "held", "finish"])
def test_a_stale_token_stops_a_follower_at_every_call(world: World, call: str) -> None:
    """It writes nothing more, and the run goes on for whoever has the lease."""
    gate = Gate(world)
    gate.open()
    row = world.submit()
    claim = world.claim()

    class Thief:
        def __getattr__(self, name: str) -> Any:
            if name == call:
                world.adopt(row)
            return getattr(world.queue, name)

    world.on_queue = Thief()
    assert world.follower(claim).follow() is False
    assert not row.command.ended
    world.on_queue = world.queue
    assert world.follower(world.adopt(row)).follow()
    assert row.bytes_of("merged") == b"one\ntwo\n"
    assert ended(row) == ("succeeded", "exit_zero")
    assert len(world.started) == 1


def test_a_stopped_follower_leaves_the_run_to_an_adopter(world: World) -> None:
    """The stream goes on at the stored byte, and every byte is there once."""
    gate = Gate(world)
    row = world.submit()
    first = world.in_thread(world.follower(world.claim()))
    until(lambda: row.bytes_of("merged") == b"one\n")
    first.follower.stop()
    assert first.join() is False
    second = world.in_thread(world.follower(world.adopt(row)))
    gate.open()
    assert second.join()
    assert row.bytes_of("merged") == b"one\ntwo\n"
    assert len(world.started) == 1


def test_a_stop_before_the_first_step_starts_nothing(world: World) -> None:
    """A follower that is stopped at once leaves the command claimed and the workspace untouched."""
    world.program(lambda _p: 0)
    row = world.submit()
    follower = world.follower(world.claim())
    follower.stop()
    assert follower.follow() is False
    assert (row.command.state, world.started) == (State.CLAIMED, [])


def test_a_stop_while_the_workspace_is_away_ends_the_waiting(world: World) -> None:
    """Nothing keeps a stopping process from stopping."""
    row = world.submit()
    tried = threading.Event()

    class Away:
        def start(self, place: Any, job: Job) -> Start:
            tried.set()
            raise WorkspaceUnreachable("away")

    world.on_workspace = Away()
    following = world.in_thread(world.follower(world.claim()))
    assert tried.wait(20)
    following.follower.stop()
    assert following.join() is False
    assert not row.command.ended


@pytest.mark.parametrize("call", ["start", "mark_running", "follow"])
def test_a_stop_at_any_moment_is_seen(world: World, call: str) -> None:
    """Before the buffer, before the first event, while a wire is being opened: nothing hangs."""
    gate = Gate(world)
    row = world.submit(streams="separate")
    follower = world.follower(world.claim())
    owner: Any = world.queue if call == "mark_running" else world.workspace
    done = getattr(owner, call)

    def stopped_meanwhile(*args: Any) -> Any:
        answer = done(*args)
        follower.stop()
        return answer

    setattr(owner, call, stopped_meanwhile)
    assert world.in_thread(follower).join() is False
    setattr(owner, call, done)
    gate.open()
    assert world.follower(world.adopt(row)).follow()
    assert row.bytes_of("stdout") == b"one\ntwo\n"
    assert len(world.started) == 1


def test_a_zombie_that_takes_the_stream_back_does_not_stop_the_holder(world: World) -> None:
    """Superseded by a predecessor that has no lease: the holder looks, and reads on."""
    gate = Gate(world)
    row = world.submit()
    following = world.in_thread(world.follower(world.claim()))
    until(lambda: row.bytes_of("merged") == b"one\n")
    world.workspace.follow(fakes.place(), fakes.run_of(row), "merged", 0)
    gate.open()
    assert following.join()
    assert row.bytes_of("merged") == b"one\ntwo\n"


@pytest.mark.parametrize("streams", ["merged", "separate"])
def test_who_is_superseded_by_its_adopter_stops(world: World, streams: str) -> None:
    """Without the lease it does not go on reading, in either of its streams."""
    gate = Gate(world)
    row = world.submit(streams=streams)
    stream = "merged" if streams == "merged" else "stdout"
    following = world.in_thread(world.follower(world.claim()))
    until(lambda: row.bytes_of(stream) == b"one\n")
    adopter = world.in_thread(world.follower(world.adopt(row)))
    assert following.join() is False
    gate.open()
    assert adopter.join()
    assert row.bytes_of(stream) == b"one\ntwo\n"


# -- wires and databases -------------------------------------------------------------------------


@pytest.mark.parametrize("streams", ["merged", "separate"])
def test_a_broken_wire_is_taken_up_at_the_same_byte(world: World, streams: str) -> None:
    """Losing the connection loses no byte and doubles none."""
    gate = Gate(world)
    row = world.submit(streams=streams)
    stream = "merged" if streams == "merged" else "stdout"
    following = world.in_thread(world.follower(world.claim()))
    until(lambda: row.bytes_of(stream) == b"one\n")
    world.workspace.fail("follow", TransportLost("again"))
    world.workspace.lose_wires()
    gate.open()
    assert following.join()
    assert row.bytes_of(stream) == b"one\ntwo\n"


@pytest.mark.parametrize("streams", ["merged", "separate"])
def test_a_database_that_is_away_while_it_runs_ends_the_reading_at_once(
    world: World, streams: str
) -> None:
    """The readers do not go on into a buffer that nobody empties; then following resumes."""
    gate = Gate(world)
    world.on_queue = Faults(1).wrap(world.queue, "append")
    row = world.submit(streams=streams)
    stream = "merged" if streams == "merged" else "stdout"
    following = world.in_thread(world.follower(world.claim()))
    until(lambda: row.bytes_of(stream) == b"one\n")  # stored by the second attempt: it still runs
    gate.open()
    assert following.join()
    assert row.bytes_of(stream) == b"one\ntwo\n"


LONG_LINES = b"".join(
    json.dumps(line).encode() + b"\n"
    for line in (
        {"type": "system", "subtype": "init"},
        {"type": "user", "uuid": "u", "fill": "é" * 50_000},
        {"type": "result", "subtype": "success", "is_error": False, "result": "x" * 150_000},
    )
)


def long_lines(world: World) -> Row:
    """A claude whose lines are longer than an event and than what is read at once."""
    row = world.submit(Kind.CLAUDE)
    world.program(lambda p: p.write(LONG_LINES) or 0, *module.job_for(row.command, {}, 1).argv)
    return row


SCENARIOS: dict[str, Callable[[World], Row]] = {
    "shell": lambda w: (Gate(w).open(), w.submit())[1],
    "separate": lambda w: (Gate(w).open(), w.submit(streams="separate"))[1],
    "claude": lambda w: claude(w, "tool_ok"),
    "long_lines": long_lines,
    "cut": lambda w: (w.program(lambda p: p.write(b"x" * (2 << 20)) or 0), w.submit())[1],
    "start_failed": lambda w: w.submit(cwd="nowhere"),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_the_database_may_be_away_at_any_call(
    scenario: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """n = 1, 2, 3 … until no fault fires: always one run, all bytes once, one end."""
    if scenario == "long_lines":
        monkeypatch.setattr(module, "READ_BYTES", 70_000)
    for at in range(1, 100):
        world = World()
        faults = Faults(at, after=after)
        row = SCENARIOS[scenario](world)
        claim = world.claim()
        world.on_queue = faults.wrap(world.queue, *QUEUE_CALLS)
        followed = Following(world.follower(claim)).join()
        # An end whose acknowledgement was lost looks like a lost lease: it is over all the same.
        assert followed or (after and faults.fired == "finish")
        assert row.command.ended
        assert len(world.started) == (0 if scenario == "start_failed" else 1)
        expected = {"shell": b"one\ntwo\n", "cut": b"x" * (1 << 20)}.get(scenario)
        assert expected is None or row.bytes_of("merged") == expected
        if scenario == "long_lines":
            assert row.bytes_of("stdout") == LONG_LINES
            assert [e.type for e in row.events].count(AGENT) == 3
            assert len(outcome(row)["agent"]["result"]) == 150_000
        said = [event.type for event in row.events if event.type in (TRUNCATED, END)]
        assert said == [TRUNCATED, END] if scenario == "cut" else [END]
        assert row.command.state is (
            State.FAILED if scenario == "start_failed" else State.SUCCEEDED
        )
        if faults.fired is None:
            assert at > 1
            return
    raise AssertionError("it never ran out of calls")


WORKSPACE_CALLS = ("start", "follow", "status", "refuse", "kill")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("cancelled", [False, True])
def test_the_workspace_may_be_lost_at_any_call(after: bool, cancelled: bool) -> None:
    """n = 1, 2, 3 …: an answer that is lost never makes a second run or loses a byte."""
    for at in range(1, 100):
        world = World()
        faults = Faults(at, after=after, error=TransportLost)
        Gate(world).open()
        row = world.submit(streams="separate")
        claim = world.claim()
        if cancelled:
            world.queue.request_cancel(row)
            claim = world.adopt(row)
        world.on_workspace = faults.wrap(world.workspace, *WORKSPACE_CALLS)
        assert Following(world.follower(claim)).join()
        assert len(world.started) == (0 if cancelled else 1)
        assert ended(row) == (("cancelled", "user") if cancelled else ("succeeded", "exit_zero"))
        assert row.bytes_of("stdout") == (b"" if cancelled else b"one\ntwo\n")
        if faults.fired is None:
            return
    raise AssertionError("it never ran out of calls")


def test_a_runner_may_die_at_any_call() -> None:
    """Killed at the n-th call of any port, and adopted: one run, every byte once, one end."""
    for at in range(1, 100):
        world = World()
        faults = Faults(at, error=SystemExit("killed"))  # type: ignore[arg-type]
        Gate(world).open()
        row = world.submit()
        claim = world.claim()
        world.on_queue = faults.wrap(world.queue, *QUEUE_CALLS)
        world.on_workspace = faults.wrap(world.workspace, *WORKSPACE_CALLS)
        try:
            world.follower(claim).follow()
        except SystemExit:
            world.on_queue, world.on_workspace = world.queue, world.workspace
            assert world.follower(world.adopt(row)).follow()
        assert row.bytes_of("merged") == b"one\ntwo\n"
        assert ended(row) == ("succeeded", "exit_zero")
        assert len(world.started) == 1
        if faults.fired is None:
            return
    raise AssertionError("it never ran out of calls")


def test_a_disk_that_is_full_slows_following_down(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every append is refused while all else answers: pauses grow, and it recovers unaided."""
    gate = Gate(world)
    gate.open()
    pauses: list[float] = []
    row = world.submit()
    append, refusals = world.queue.append, iter(range(6))

    def full(*args: Any) -> Any:
        if next(refusals, None) is not None:
            pauses.append(following.follower._pause)
            raise Unavailable("disk full")
        return append(*args)

    monkeypatch.setattr(module, "RETRY_S", (0.001, 0.004))
    world.queue.append = full  # type: ignore[method-assign]
    claim = world.claim()
    follower = world.follower(claim)
    following = Following.__new__(Following)
    following.follower = follower
    assert follower.follow()
    assert pauses == [0.001, 0.002, 0.004, 0.004, 0.004, 0.004]
    assert row.bytes_of("merged") == b"one\ntwo\n"


# -- ends that nobody can vouch for --------------------------------------------------------------


def test_bytes_that_differ_make_it_lost(world: World) -> None:
    """A stored digest that is not the supervisor's is never corrected."""
    world.program(lambda p: p.write(b"hello\n") or 0)
    row = world.submit()

    def other(command_id: object, stream: str) -> str:
        return "f" * 64

    world.queue.stored_digest = other  # type: ignore[assignment,method-assign]
    assert world.follower(world.claim()).follow()
    assert ended(row) == ("lost", "output_mismatch")


def test_bytes_that_are_missing_make_it_lost(world: World) -> None:
    """Fewer bytes stored than the supervisor counted: lost, with what there is."""
    world.program(lambda p: p.write(b"hello\n") or 0)
    row = world.submit()
    append = world.queue.append

    def forgetful(command_id: Any, token: int, events: Any) -> Any:
        answer = append(command_id, token, events)
        row.offsets["merged"] -= 1
        return answer

    world.queue.append = forgetful  # type: ignore[method-assign]
    assert world.follower(world.claim()).follow()
    assert ended(row) == ("lost", "output_mismatch")
    assert outcome(row)["output"]["truncated"] is True


def test_a_supervisor_that_died_makes_it_lost(world: World) -> None:
    """No exit record: lost, with the output so far."""
    gate = Gate(world)
    row = world.submit()
    following = world.in_thread(world.follower(world.claim()))
    until(lambda: row.bytes_of("merged") == b"one\n")
    world.workspace.kill_supervisor(fakes.place(), fakes.run_of(row), command_lives=False)
    assert following.join()
    assert ended(row) == ("lost", "supervisor")
    assert outcome(row)["output"]["bytes"] == 4
    gate.open()


def test_an_orphan_is_followed_to_its_end(world: World) -> None:
    """Its supervisor died, it lives on: its bytes still count, its exit nobody saw."""
    gate = Gate(world)
    row = world.submit()
    following = world.in_thread(world.follower(world.claim()))
    until(lambda: row.bytes_of("merged") == b"one\n")
    world.workspace.kill_supervisor(fakes.place(), fakes.run_of(row), command_lives=True)
    gate.open()
    assert following.join()
    assert ended(row) == ("lost", "supervisor")
    assert row.bytes_of("merged") == b"one\ntwo\n"


def test_a_run_that_is_gone_when_it_is_adopted_is_lost(world: World) -> None:
    """It was started, and the workspace knows nothing of it."""
    row = world.submit()
    claim = world.claim()
    world.queue.mark_running(row.command.id, claim.token)
    assert world.follower(world.adopt(row)).follow()
    assert ended(row) == ("lost", "workspace_gone")


@pytest.mark.parametrize(
    ("error", "reason"), [(RunAbsent("gone"), "workspace_gone"), (OffsetBeyondEnd(0), "supervisor")]
)
def test_a_spool_that_vanishes_while_it_is_read_ends_it(
    world: World, error: Exception, reason: str
) -> None:
    """Lost, and what still runs there is killed before its slot is given away."""
    gate = Gate(world)
    row = world.submit()
    following = world.in_thread(world.follower(world.claim()))
    until(lambda: row.bytes_of("merged") == b"one\n")
    world.workspace.fail("follow", error)
    world.workspace.lose_wires()
    assert following.join()
    assert ended(row) == ("lost", reason)
    if isinstance(error, OffsetBeyondEnd):
        status = world.workspace.status(fakes.place(), fakes.run_of(row))
        assert status.state is RunState.DONE
    gate.open()


def test_a_run_that_turns_out_refused_never_ran(world: World) -> None:
    """It was seen starting; what ended it was a tombstone."""
    gate = Gate(world, b"")
    row = world.submit()
    following = world.in_thread(world.follower(world.claim()))
    assert gate.begun.wait(20)
    until(lambda: row.command.state is State.RUNNING)
    with world.workspace._changed:
        world.workspace._runs["/workspaces/demo", fakes.run_of(row)].state = RunState.REFUSED
    gate.open()
    assert following.join()
    assert ended(row) == ("failed", "start_failed")


def test_an_output_that_ends_without_a_status_is_opened_again(world: World) -> None:
    """The last byte alone says nothing about the run."""
    gate = Gate(world)
    gate.open()
    row = world.submit()
    claim = world.claim()
    follow, asked = world.workspace.follow, iter([True])

    class Silent:
        status = None

        def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            return b""

        def close(self) -> None: ...

    def once_silent(*args: Any) -> Any:
        return Silent() if next(asked, False) else follow(*args)

    world.workspace.start(fakes.place(), module.job_for(row.command, {}, 1 << 20))
    world.workspace.follow = once_silent  # type: ignore[method-assign]
    assert world.follower(claim).follow()
    assert row.bytes_of("merged") == b"one\ntwo\n"


# -- small things --------------------------------------------------------------------------------


def test_every_output_that_was_opened_is_closed(world: World) -> None:
    """No wire is left behind, whatever became of the command."""
    opened: list[Any] = []
    start, follow = world.workspace.start, world.workspace.follow

    def watched_start(place: Any, job: Job) -> Start:
        begun = start(place, job)
        opened.extend([begun.output] if begun.output else [])
        return begun

    def watched_follow(*args: Any) -> Any:
        opened.append(follow(*args))
        return opened[-1]

    world.workspace.start = watched_start  # type: ignore[method-assign]
    world.workspace.follow = watched_follow  # type: ignore[method-assign]
    world.run(world.submit(cwd="nowhere"))
    Gate(world).open()
    world.on_queue = Faults(1).wrap(world.queue, "mark_running")
    world.run(world.submit(streams="separate"))
    assert len(opened) >= 3
    assert all(output._closed for output in opened)


def test_where_a_command_runs_comes_from_its_claim(world: World) -> None:
    """The pod that was claimed, not the one that has its name now."""
    row = world.submit()
    claim = world.claim()
    assert row.command.id == claim.command.id
    found = module.place_of(Claim(**(claim.__dict__ | {"pod_uid": "uid-1"})))
    assert (found.project, found.path, found.pod_uid) == ("demo", "/workspaces/demo", "uid-1")


def test_lost_leases_and_superseded_streams_are_different_errors() -> None:
    """One comes from the database, one from the workspace."""
    assert not issubclass(LeaseLost, type(Superseded()))


def test_old_runs_are_removed_and_a_failure_matters_to_nobody(world: World) -> None:
    """The workspace is asked to remove what ended a day ago; when it cannot, that is logged."""
    asked: list[int] = []
    world.submit()
    follower = world.follower(world.claim())

    def gc(_place: Any, older_than_s: int) -> int:
        asked.append(older_than_s)
        raise TransportLost("away")

    world.workspace.gc = gc
    follower.tidy()
    assert asked == [24 * 3600]
