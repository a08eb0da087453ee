"""common/services/answering.py: claude is answered once, whatever dies on the way."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from common.adapters.memory.approvals import MemoryApprovals
from common.adapters.memory.commands import MemoryCommandStore
from common.adapters.memory.credentials import MemoryCredentials
from common.adapters.memory.projects import MemoryProjectStore
from common.adapters.memory.queue import MemoryQueue
from common.adapters.memory.state import MemoryState
from common.adapters.memory.workspace import MemoryWorkspace, Process
from common.domain import approval
from common.domain.approval import Approval, ApprovalState
from common.domain.command import Kind, NewCommand
from common.domain.errors import Unavailable
from common.domain.identifiers import new_id
from common.domain.keys import Caller
from common.domain.launch import job_for
from common.domain.project import FoundProject
from common.domain.workspace import TransportLost
from common.ports.commands import Origin
from common.ports.queue import Claim
from common.services import answering as module
from common.services import follower as follower_module
from common.services.follower import Follower
from common.services.wakeups import Wakeups
from tests.harness.running import until
from tests.unit.fakes import FakeRelay, FakeSealer, FakeSignals, Faults

CAPTURE = Path(__file__).parents[1] / "fixtures" / "claude-2.1.197" / "can_use_tool.jsonl"
LINES = CAPTURE.read_bytes().splitlines(keepends=True)
ASKING = next(n for n, line in enumerate(LINES) if b"can_use_tool" in line)
REQUEST = json.loads(LINES[ASKING])
CALLER = Caller(UUID(int=7), "test", frozenset({"approvals:write"}), None)
PROMPT = "do it"


class Dead(SystemExit):
    """This process is gone: threads end of it without a word."""


class Death:
    """From the n-th call on nothing of a process reaches its ports; `after`: that one still did."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.calls = 0
        self.came = threading.Event()
        self._at, self._after = at, after
        self._lock = threading.Lock()

    def call(self, name: str, work: Callable[[], Any]) -> Any:
        del name
        with self._lock:
            self.calls += 1
            number = self.calls
        answer = work() if number < self._at or (number == self._at and self._after) else None
        if number >= self._at:
            self.came.set()
            raise Dead
        return answer

    wrap = Faults.wrap


class World:
    """A claude that asks once, as it was captured, and writes down what it is told."""

    def __init__(self) -> None:
        self.state = MemoryState()
        MemoryProjectStore(self.state).sync([FoundProject("demo", "/w/demo")], "test")
        self.queue = MemoryQueue(self.state)
        self.approvals = MemoryApprovals(self.state)
        self.workspace = MemoryWorkspace()
        self.heard: list[bytes] = []
        self.followers: list[Follower] = []
        self.threads: list[threading.Thread] = []
        self.id = new_id()
        spec = {"prompt": PROMPT, "options": {"approvals": True}}
        new = NewCommand(self.id, "demo", Kind.CLAUDE, spec)
        made = MemoryCommandStore(self.state).submit(new, None, CALLER, Origin("req_1"))
        self.argv = job_for(made.command, {}, 1 << 20).argv
        self.program(self.claude)

    def program(self, work: Callable[[Process], int]) -> None:
        self.workspace.on(self.argv, work)

    def claude(self, process: Process) -> int:
        self.heard.append(self.line(process))
        process.write(b"".join(LINES[: ASKING + 1]))
        self.heard.append(self.line(process))
        process.write(b"".join(LINES[ASKING + 1 :]))
        while data := process.read():
            self.heard.append(data)
        return 0

    @staticmethod
    def line(process: Process) -> bytes:
        data = b""
        while not data.endswith(b"\n"):
            more = process.read()
            assert more, "the input ended early"
            data += more
        return data

    def follow(self, claim: Claim, by: Any = None, wait_s: int = 60) -> threading.Thread:
        """A process that follows a claim, with ports that `by` may make fail."""

        def port(of: Any, *names: str) -> Any:
            return by.wrap(of, *names) if by else of

        follower = Follower(
            claim,
            port(self.queue, "append", "mark_running", "finish"),
            port(self.workspace, "send"),
            FakeSealer(),
            MemoryCredentials(),
            FakeRelay(),  # type: ignore[arg-type]
            Wakeups(FakeSignals()),
            1 << 20,
            approvals=port(self.approvals),
            approval_s=wait_s,
        )
        self.followers.append(follower)
        thread = threading.Thread(target=follower.follow, daemon=True)
        self.threads.append(thread)
        thread.start()
        return thread

    def claim(self) -> Claim:
        claim = self.queue.claim("demo", 1)
        assert claim is not None
        return claim

    def asked(self) -> Approval:
        """The request, once it is stored."""
        found: list[Approval] = until("asked", lambda: self.approvals.list(self.id))
        return found[0]

    def decide(self, state: ApprovalState = ApprovalState.ALLOWED) -> bytes:
        """Decide as the API does; answers what claude is to be told."""
        asked = self.asked()
        reply = approval.allow(asked.request_id, asked.input or b"")
        assert self.approvals.decide(asked, state, None, reply, CALLER, Origin("req_2"))
        self.followers[-1].news()
        return reply

    def until_ended(self) -> None:
        until("the command ends", lambda: self.state.commands[self.id].command.ended)
        for thread in self.threads + self.workspace.threads:
            thread.join(20)
            assert not thread.is_alive(), "something is left running"

    def outcome(self) -> dict[str, Any]:
        return self.state.commands[self.id].command.outcome or {}

    def told(self) -> list[str]:
        events = [s.event for s in self.state.commands[self.id].events]
        return [json.loads(e.data)["state"] for e in events if e.type == "approval"]


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between attempts are not what is tested."""
    monkeypatch.setattr(module, "AGAIN_S", 0.001)
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.02)
    monkeypatch.setattr(follower_module, "RETRY_S", (0.001, 0.002))


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    for follower in made.followers:
        follower.stop()


def test_claude_is_told_what_was_decided(world: World) -> None:
    """The prompt is a line, the answer another, and the input ends after the result."""
    world.follow(world.claim())
    reply = world.decide()
    world.until_ended()
    assert world.heard == [approval.prompt_line(PROMPT), reply]
    assert world.told() == ["pending", "allowed"]
    assert world.outcome()["reason"] == "completed_with_denials"  # the captured result has some
    events = [s.event for s in world.state.commands[world.id].events]
    lines = [e.data for e in events if e.type == "agent"]
    assert b"".join(lines) == b"".join(LINES)
    place = [e.type for e in events].index("approval")
    assert events[place + 1].data == LINES[ASKING], "the request stands before its line"


def test_an_answer_that_nobody_announced_is_found(world: World) -> None:
    """A wake-up may be lost; while somebody is asked the runner looks for itself."""
    world.follow(world.claim())
    asked = world.asked()
    reply = approval.deny(asked.request_id, "no")
    state = ApprovalState.DENIED
    assert world.approvals.decide(asked, state, "no", reply, CALLER, Origin("req_2"))
    world.until_ended()
    assert world.heard[1] == reply


def test_nobody_is_a_no(world: World) -> None:
    """After its time a request is denied and claude goes on."""
    world.follow(world.claim(), wait_s=0)
    world.until_ended()
    assert world.heard[1] == approval.expire(REQUEST["request_id"])
    assert world.told() == ["pending", "expired"]


def test_what_nobody_can_be_asked_is_answered_at_once(world: World) -> None:
    """A request that is no permission gets an error, and no approval is made of it."""
    strange = json.dumps({"type": "control_request", "request_id": "h1", "request": {}}).encode()

    def work(process: Process) -> int:
        world.heard.append(world.line(process))
        process.write(b'{"type":"control_request"}\n' + strange + b"\n")
        world.heard.append(world.line(process))
        process.write(LINES[-1])
        assert process.read() == b""
        return 0

    world.program(work)
    world.follow(world.claim())
    world.until_ended()
    assert json.loads(world.heard[1])["response"]["subtype"] == "error"
    assert world.approvals.list(world.id) == []


def test_what_is_pending_at_the_end_is_over(world: World) -> None:
    """claude may end without an answer; nobody can give one any more."""

    def work(process: Process) -> int:
        process.write(b"".join(LINES[: ASKING + 1]))
        return 0

    world.program(work)
    world.follow(world.claim())
    world.until_ended()
    assert world.told() == ["pending", "expired"]
    assert world.outcome()["reason"] == "no_result"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", [Unavailable, TransportLost])
@pytest.mark.parametrize("at", range(1, 13))
def test_trouble_at_any_step_costs_nothing(
    world: World, at: int, error: type[Exception], after: bool
) -> None:
    """The n-th call of a port fails once, before its work or with its answer lost."""
    faults = Faults(at, after=after, error=error)
    if error is TransportLost:
        world.workspace = faults.wrap(world.workspace, "send")  # only a wire breaks that way
        world.follow(world.claim())
    else:
        world.follow(world.claim(), Only(faults))
    reply = world.decide()
    world.until_ended()
    assert world.heard == [approval.prompt_line(PROMPT), reply]
    assert world.told() == ["pending", "allowed"]


class Only:
    """Faults for the database alone."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def wrap(self, port: Any, *names: str) -> Any:
        return port if names == ("send",) else self._faults.wrap(port, *names)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # it is dead
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, 15))
def test_a_runner_that_dies_at_any_step_is_replaced(world: World, at: int, after: bool) -> None:
    """SIGKILL between any two steps: its successor answers what was not, and nothing twice."""
    death = Death(at, after=after)
    world.follow(world.claim(), death)
    replies: list[bytes] = []
    somebody = threading.Thread(target=lambda: replies.append(world.decide()), daemon=True)
    somebody.start()
    row = world.state.commands[world.id]
    until("it dies, or had no step left", lambda: death.came.is_set() or row.command.ended)
    if not row.command.ended:
        world.followers[-1].stop()
        [claim] = world.queue.adopt(2, 5)
        world.follow(claim)
    world.until_ended()
    somebody.join(20)
    assert world.heard == [approval.prompt_line(PROMPT), *replies]
    assert world.told() == ["pending", "allowed"]
