"""The breaker: its machine, and how one process shares it with the others."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.adapters.memory.dependencies import MemoryDependencies
from common.domain import breaker
from common.domain.breaker import Breaker, State, Thresholds, Verdict
from common.domain.errors import Unavailable
from common.ports.dependencies import KUBERNETES, Row
from common.services.breaker import SharedBreaker, SharedBreakers

LIMITS = Thresholds(failures=3, open_s=5.0, longest_s=20.0, probe_s=2.0)


def failing(times: int, now: float = 0.0) -> Breaker:
    found = breaker.CLOSED
    for _ in range(times):
        found = found.failed(now, LIMITS, "boom")
    return found


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Away(MemoryDependencies):
    """A table that cannot be reached."""

    def read(self, name: str) -> Row | None:
        raise Unavailable("away")

    def write(
        self, name: str, state: State, failures: int, open_for_s: float, detail: str | None
    ) -> None:
        raise Unavailable("away")

    def take_probe(self, name: str, probe_s: float) -> bool:
        raise Unavailable("away")

    def forget(self, name: str) -> None:
        raise Unavailable("away")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(clock: Clock) -> MemoryDependencies:
    return MemoryDependencies(clock)


def opened(one: SharedBreaker) -> SharedBreaker:
    for _ in range(LIMITS.failures):
        one.failed("boom")
    return one


# -- the machine ----------------------------------------------------------------------------------


def test_it_opens_at_the_threshold_and_not_before() -> None:
    """Two failures of three let calls pass; the third does not."""
    assert failing(2).ask(0.0) is Verdict.PASS
    assert failing(3).ask(0.0) is Verdict.REFUSE


def test_a_success_forgets_the_failures() -> None:
    """Only failures in a row count."""
    assert failing(2).succeeded().failed(0.0, LIMITS, "boom").state is State.CLOSED


def test_after_its_time_one_probe_decides() -> None:
    """Open until its time is over, then a probe; success closes it."""
    found = failing(3)
    assert found.ask(4.9) is Verdict.REFUSE
    assert found.ask(5.0) is Verdict.PROBE
    probing = found.probing(5.0, LIMITS)
    assert (probing.state, probing.ask(6.0)) == (State.HALF_OPEN, Verdict.REFUSE)
    assert probing.succeeded() == breaker.CLOSED


def test_a_probe_that_fails_opens_it_for_longer() -> None:
    """Each opening in a row is twice as long, up to the longest."""
    found, waits = failing(3), []
    now = 0.0
    for _ in range(4):
        waits.append(found.until - now)
        now = found.until
        found = found.probing(now, LIMITS).failed(now, LIMITS, "boom")
    assert waits == [5.0, 10.0, 20.0, 20.0]


def test_a_silent_probe_counts_as_good() -> None:
    """A probe that has not failed within its time keeps nobody out."""
    assert failing(3).probing(5.0, LIMITS).ask(7.0) is Verdict.PASS


def test_retry_after_opens_at_once_and_for_as_long() -> None:
    """One 429 is enough, and its own time counts."""
    found = breaker.CLOSED.failed(0.0, LIMITS, "429", 7.0)
    assert (found.ask(6.9), found.ask(7.0)) == (Verdict.REFUSE, Verdict.PROBE)


@given(st.lists(st.tuples(st.sampled_from("fsap"), st.floats(0, 30)), max_size=60))
def test_no_history_makes_it_refuse_for_ever(history: list[tuple[str, float]]) -> None:
    """Whatever happened, a call or a probe passes after the longest opening."""
    found, now = breaker.CLOSED, 0.0
    for what, passed in history:
        now += passed
        if what == "f":
            found = found.failed(now, LIMITS, "boom")
        elif what == "s":
            found = found.succeeded()
        elif what == "p" and found.ask(now) is Verdict.PROBE:
            found = found.probing(now, LIMITS)
    assert found.ask(now + LIMITS.longest_s) is not Verdict.REFUSE


# -- shared ---------------------------------------------------------------------------------------


def test_an_open_one_refuses_and_says_until_when(table: MemoryDependencies, clock: Clock) -> None:
    """The error carries the reason and when to come back."""
    one = opened(SharedBreaker("workspace/demo", table, LIMITS, clock))
    with pytest.raises(Unavailable, match=r"not asked for 5\.0 s: boom") as raised:
        one.allow()
    assert raised.value.retry_after == 5


def test_a_new_process_knows_what_the_others_found(table: MemoryDependencies, clock: Clock) -> None:
    """It refuses at its first call, without a failure of its own."""
    opened(SharedBreaker("workspace/demo", table, LIMITS, clock))
    with pytest.raises(Unavailable):
        SharedBreaker("workspace/demo", table, LIMITS, clock).allow()


def test_one_process_of_all_probes(table: MemoryDependencies, clock: Clock) -> None:
    """When its time is over, the first to ask goes through and the others wait."""
    first, second = (SharedBreaker("workspace/demo", table, LIMITS, clock) for _ in range(2))
    opened(first)
    opened(second)
    clock.now += 6.0
    first.allow()
    with pytest.raises(Unavailable):
        second.allow()
    first.succeeded()
    clock.now += LIMITS.probe_s
    second.allow()


def test_one_thread_of_a_process_probes(table: MemoryDependencies, clock: Clock) -> None:
    """Of eight that ask at once one goes through."""
    one = opened(SharedBreaker("workspace/demo", table, LIMITS, clock))
    clock.now += 6.0
    barrier, passed = threading.Barrier(8), []

    def ask() -> None:
        barrier.wait()
        try:
            one.allow()
        except Unavailable:
            return
        passed.append(1)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passed) == 1


def test_without_the_table_each_process_has_its_own(clock: Clock) -> None:
    """It opens, probes and closes as always; only nobody else knows."""
    one = opened(SharedBreaker("workspace/demo", Away(), LIMITS, clock))
    with pytest.raises(Unavailable):
        one.allow()
    clock.now += 6.0
    one.allow()
    one.succeeded()
    assert one.state is State.CLOSED


def test_the_table_keeps_the_api_server_and_forgets_healthy_workspaces(
    table: MemoryDependencies, clock: Clock
) -> None:
    """There is one API server and it is always shown; workspaces only while they are broken."""
    breakers = SharedBreakers(table, LIMITS, clock)
    for name in (KUBERNETES, "workspace/demo"):
        opened(breakers.of(name)).succeeded()
    row = table.read(KUBERNETES)
    assert row is not None
    assert (row.state, row.failures) == (State.CLOSED, 0)
    assert table.read("workspace/demo") is None


def test_one_broken_workspace_blocks_no_other(table: MemoryDependencies, clock: Clock) -> None:
    """Each name has a breaker of its own, and always the same one."""
    breakers = SharedBreakers(table, LIMITS, clock)
    opened(breakers.of("workspace/broken"))
    breakers.of("workspace/fine").allow()
    with pytest.raises(Unavailable):
        breakers.of("workspace/broken").allow()


def test_a_heartbeat_says_the_state_again(table: MemoryDependencies, clock: Clock) -> None:
    """Though nothing changed there is a row then."""
    SharedBreaker(KUBERNETES, table, LIMITS, clock).heartbeat()
    assert table.read(KUBERNETES) is not None
