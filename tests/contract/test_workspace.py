"""What every Workspace does, whatever is behind it: one suite, run over each implementation."""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from common.adapters.kubernetes.access import Access
from common.adapters.kubernetes.api import Api
from common.adapters.kubernetes.pods import Pods
from common.adapters.kubernetes.transport import KubernetesTransport
from common.adapters.memory.dependencies import MemoryDependencies
from common.adapters.memory.workspace import MemoryWorkspace, Process
from common.adapters.workspace_local.transport import LocalChannel, LocalTransport
from common.domain.breaker import Thresholds
from common.domain.discovery import Life
from common.domain.workspace import (
    Job,
    KillMode,
    OffsetBeyondEnd,
    Place,
    RunAbsent,
    RunState,
    RunStatus,
    Stream,
    Superseded,
    TransportLost,
)
from common.ports.dependencies import KUBERNETES
from common.ports.workspace import Output, Workspace
from common.services.breaker import SharedBreakers
from common.services.supervision import SupervisedWorkspace
from tests.fake_kubernetes.running import NAMESPACE, FakeKubernetes

PATIENCE_S = 30.0  # only a broken build waits this long

PRINTS = ("sh", "-c", r"printf 'hello\000\377'; exit 3")
SPLITS = ("sh", "-c", "printf out; printf err >&2")
GATED = ("sh", "-c", "echo ready; read -r line <gate; echo released")
ENDLESS = ("sh", "-c", "echo ready; exec tail -f /dev/null")
ECHOES = ("cat",)
FLOODS = ("sh", "-c", "head -c 5000 /dev/zero")


class Bench(Protocol):
    """A workspace under test, with a way to let a GATED command go on."""

    workspace: Workspace
    place: Place

    def release(self) -> None: ...


class MemoryBench:
    def __init__(self) -> None:
        self.memory = MemoryWorkspace()
        self.workspace: Workspace = self.memory
        self.place = Place("demo", "/workspaces/demo")
        self._gate = threading.Event()
        self.memory.on(PRINTS, self._prints)
        self.memory.on(SPLITS, self._splits)
        self.memory.on(GATED, self._gated)
        self.memory.on(ENDLESS, self._endless)
        self.memory.on(ECHOES, self._echoes)
        self.memory.on(FLOODS, self._floods)

    def release(self) -> None:
        self.memory.set(self._gate)

    def _prints(self, process: Process) -> int:
        process.write(b"hello\0\xff")
        return 3

    def _splits(self, process: Process) -> int:
        process.write(b"out")
        process.write(b"err", "stderr")
        return 0

    def _gated(self, process: Process) -> int:
        process.write(b"ready\n")
        process.wait(self._gate)
        process.write(b"released\n")
        return 0

    def _endless(self, process: Process) -> int:
        process.write(b"ready\n")
        process.wait(threading.Event())
        return 0

    def _echoes(self, process: Process) -> int:
        while data := process.read():
            process.write(data)
        return 0

    def _floods(self, process: Process) -> int:
        process.write(bytes(5000))
        return 0


class KeepingTransport(LocalTransport):
    """Keeps its channels, so that none is left open by a test that has seen enough."""

    def __init__(self, runs: Path) -> None:
        super().__init__(runs)
        self.channels: list[LocalChannel] = []

    def open(self, place: Place, argv: Sequence[str], stdin: bytes = b"") -> LocalChannel:
        channel = super().open(place, argv, stdin)
        self.channels.append(channel)
        return channel


class KubernetesBench:
    """A pod of the fake API; its commands run in real processes behind real WebSockets."""

    def __init__(self, folder: Path, fake: FakeKubernetes) -> None:
        (folder / "demo").mkdir()
        self._gate = folder / "demo" / "gate"
        os.mkfifo(self._gate)
        self._access = Access(kubeconfig=str(fake.kubeconfig))
        breakers = SharedBreakers(MemoryDependencies(), Thresholds())
        api = Api(self._access, breakers.of(KUBERNETES))
        life = Life(fake.get_pod("demo")["metadata"]["uid"], 0, "demo", "claudebox", labelled=True)
        self.place = Place("demo", str(folder / "demo"), NAMESPACE, "demo", str(life))
        transport = KubernetesTransport(self._access, Pods(api), breakers, str(folder / "runs"))
        self.workspace: Workspace = SupervisedWorkspace(transport)

    def release(self) -> None:
        self._gate.write_text("go\n")

    def close(self) -> None:
        self._access.close()


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeKubernetes]:
    """One API server with one pod for all tests."""
    with FakeKubernetes(tmp_path_factory.mktemp("fake")) as running:
        running.pod("demo", project="demo")
        yield running


class SupervisedBench:
    def __init__(self, folder: Path) -> None:
        (folder / "demo").mkdir()
        self._gate = folder / "demo" / "gate"
        self.place = Place("demo", str(folder / "demo"))
        self.transport = KeepingTransport(folder / "runs")
        self.workspace: Workspace = SupervisedWorkspace(self.transport)

    def prepare_gate(self) -> None:
        os.mkfifo(self._gate)

    def release(self) -> None:
        self._gate.write_text("go\n")


@pytest.fixture(params=["memory", "supervised", "kubernetes v5", "kubernetes v4"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "memory":
        yield MemoryBench()
        return
    if request.param.startswith("kubernetes"):
        fake: FakeKubernetes = request.getfixturevalue("fake")
        fake.fail(exec_v4=request.param.endswith("v4"))
        pod = KubernetesBench(tmp_path, fake)
        yield pod
        end_runs(pod, tmp_path)
        pod.close()
        return
    supervised = SupervisedBench(tmp_path)
    supervised.prepare_gate()
    yield supervised
    end_runs(supervised, tmp_path)
    for channel in supervised.transport.channels:
        channel.close()


def end_runs(bench: Bench, folder: Path) -> None:
    """Whatever a test left running ends here, and the run says so before the next test begins."""
    for run in sorted((folder / "runs" / "demo").glob("[!.]*")):
        if not (run / "exit").exists():
            bench.workspace.kill(bench.place, run.name, KillMode.FORCE, "test_over")
            rest(bench.workspace.follow(bench.place, run.name, "merged"))


def new_id() -> str:
    return f"t{uuid.uuid4().hex}"


def rest(output: Output | None) -> bytes:
    """All that is left of an output, to the end of its run."""
    assert output is not None
    data = b""
    while True:
        more = output.read(65536, PATIENCE_S)
        assert more is not None, "the run did not end"
        if not more:
            return data
        data += more


def expect(output: Output | None, wanted: bytes) -> None:
    """Read exactly these bytes."""
    assert output is not None
    data = b""
    while len(data) < len(wanted):
        more = output.read(len(wanted) - len(data), PATIENCE_S)
        assert more, f"only {data!r} came"
        data += more
    assert data == wanted


def ended(bench: Bench, run_id: str, stream: Stream = "merged") -> RunStatus:
    output = bench.workspace.follow(bench.place, run_id, stream)
    rest(output)
    assert output.status is not None
    return output.status


def test_a_run_is_followed_from_its_first_byte_to_its_exit_record(bench: Bench) -> None:
    """A start gives the output from byte 0 on, and after the last byte how the run ended."""
    start = bench.workspace.start(bench.place, Job(new_id(), PRINTS))
    assert start.won
    assert rest(start.output) == b"hello\0\xff"
    assert start.output is not None
    status = start.output.status
    assert status is not None
    assert status.state is RunState.DONE
    assert status.exit is not None
    assert (status.exit.reason, status.exit.code, status.exit.signal) == ("exited", 3, None)
    assert status.exit.stdout.size == 7
    assert status.exit.stdout.sha256 == hashlib.sha256(b"hello\0\xff").hexdigest()
    assert not status.exit.truncated


def test_a_second_start_runs_nothing_and_says_what_is_there(bench: Bench) -> None:
    """Starting a run again is answered with the state of the first."""
    job = Job(new_id(), GATED)
    first = bench.workspace.start(bench.place, job)
    expect(first.output, b"ready\n")
    second = bench.workspace.start(bench.place, job)
    assert not second.won
    assert second.output is None
    assert second.status.state is RunState.RUNNING
    bench.release()
    assert rest(first.output) == b"released\n"
    third = bench.workspace.start(bench.place, job)
    assert (third.won, third.status.state) == (False, RunState.DONE)


def test_of_many_starts_at_once_one_wins(bench: Bench) -> None:
    """Eight threads start one run; one of them claims it."""
    job = Job(new_id(), PRINTS)
    barrier = threading.Barrier(8)
    won: list[bool] = []

    def start() -> None:
        barrier.wait()
        won.append(bench.workspace.start(bench.place, job).won)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]
    assert ended(bench, job.run_id).stdout_size == 7


def test_an_unknown_run_is_absent(bench: Bench) -> None:
    """Status and kill say absent, follow raises RunAbsent, and none of them creates the run."""
    run_id = new_id()
    assert bench.workspace.status(bench.place, run_id).state is RunState.ABSENT
    killed = bench.workspace.kill(bench.place, run_id, KillMode.FORCE, "user")
    assert killed.state is RunState.ABSENT
    with pytest.raises(RunAbsent):
        bench.workspace.follow(bench.place, run_id, "merged").read(1, PATIENCE_S)
    assert bench.workspace.status(bench.place, run_id).state is RunState.ABSENT


def test_a_tombstone_keeps_a_run_from_ever_starting(bench: Bench) -> None:
    """After a refusal the start is not won; refusing again is still won."""
    job = Job(new_id(), PRINTS)
    assert bench.workspace.refuse(bench.place, job.run_id)
    assert bench.workspace.refuse(bench.place, job.run_id)
    start = bench.workspace.start(bench.place, job)
    assert (start.won, start.status.state) == (False, RunState.REFUSED)
    assert bench.workspace.status(bench.place, job.run_id).state is RunState.REFUSED
    assert ended(bench, job.run_id).state is RunState.REFUSED


def test_a_started_run_cannot_be_refused(bench: Bench) -> None:
    """The tombstone loses against a run that was launched, running or ended."""
    start = bench.workspace.start(bench.place, Job(run_id := new_id(), GATED))
    expect(start.output, b"ready\n")
    assert not bench.workspace.refuse(bench.place, run_id)
    bench.release()
    rest(start.output)
    assert not bench.workspace.refuse(bench.place, run_id)


def test_follow_begins_at_any_byte(bench: Bench) -> None:
    """The bytes from an offset on are the same, at every offset up to the end."""
    rest(bench.workspace.start(bench.place, Job(run_id := new_id(), PRINTS)).output)
    for offset in range(8):
        output = bench.workspace.follow(bench.place, run_id, "merged", offset)
        assert rest(output) == b"hello\0\xff"[offset:]


def test_an_offset_beyond_the_end_is_said(bench: Bench) -> None:
    """Following from behind the last byte raises OffsetBeyondEnd with where the end is."""
    rest(bench.workspace.start(bench.place, Job(run_id := new_id(), PRINTS)).output)
    with pytest.raises(OffsetBeyondEnd) as raised:
        rest(bench.workspace.follow(bench.place, run_id, "merged", 8))
    assert raised.value.end == 7


def test_separate_streams_stay_apart(bench: Bench) -> None:
    """With separate streams stdout and stderr each have their bytes and total."""
    job = Job(new_id(), SPLITS, streams="separate")
    assert rest(bench.workspace.start(bench.place, job).output) == b"out"
    assert rest(bench.workspace.follow(bench.place, job.run_id, "stderr")) == b"err"
    record = ended(bench, job.run_id, "stdout").exit
    assert record is not None
    assert (record.stdout.size, record.stderr.size) == (3, 3)
    assert record.stderr.sha256 == hashlib.sha256(b"err").hexdigest()


def test_merged_streams_are_one(bench: Bench) -> None:
    """When merged, stderr is part of the one stream, in the order it was written."""
    assert rest(bench.workspace.start(bench.place, Job(new_id(), SPLITS)).output) == b"outerr"


def test_a_new_follower_supersedes_the_old_one(bench: Bench) -> None:
    """The second follower of a stream reads on; the first is told that it is no more."""
    start = bench.workspace.start(bench.place, Job(run_id := new_id(), GATED))
    expect(start.output, b"ready\n")
    second = bench.workspace.follow(bench.place, run_id, "merged", 6)
    assert second.read(1, 0.0) is None
    with pytest.raises(Superseded):
        rest(start.output)
    bench.release()
    assert rest(second) == b"released\n"


def test_closing_an_output_leaves_the_run_alone(bench: Bench) -> None:
    """A closed output raises TransportLost; the run goes on and can be followed again."""
    start = bench.workspace.start(bench.place, Job(run_id := new_id(), GATED))
    expect(start.output, b"ready\n")
    assert start.output is not None
    start.output.close()
    start.output.close()
    with pytest.raises(TransportLost):
        start.output.read(1, PATIENCE_S)
    assert bench.workspace.status(bench.place, run_id).state is RunState.RUNNING
    again = bench.workspace.follow(bench.place, run_id, "merged", 6)
    bench.release()
    assert rest(again) == b"released\n"


def test_closing_wakes_a_reader(bench: Bench) -> None:
    """A thread that waits for output without limit returns when another closes it."""
    start = bench.workspace.start(bench.place, Job(new_id(), ENDLESS))
    expect(start.output, b"ready\n")
    output = start.output
    assert output is not None
    raised: list[Exception] = []

    def read() -> None:
        try:
            output.read(1)
        except TransportLost as error:
            raised.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    output.close()
    thread.join(PATIENCE_S)
    assert len(raised) == 1


def test_a_read_gives_up_when_its_time_is_over(bench: Bench) -> None:
    """Nothing new within the timeout is None, and the output is as good as before."""
    start = bench.workspace.start(bench.place, Job(new_id(), GATED))
    expect(start.output, b"ready\n")
    assert start.output is not None
    assert start.output.read(1, 0.01) is None
    bench.release()
    assert rest(start.output) == b"released\n"


@pytest.mark.parametrize("mode", list(KillMode))
def test_a_killed_run_records_the_first_reason(bench: Bench, mode: KillMode) -> None:
    """Two kills with two reasons: the run ends, and its record tells the first."""
    start = bench.workspace.start(bench.place, Job(run_id := new_id(), ENDLESS))
    expect(start.output, b"ready\n")
    found = bench.workspace.kill(bench.place, run_id, mode, "user")
    assert found.state is RunState.RUNNING
    bench.workspace.kill(bench.place, run_id, KillMode.FORCE, "shutdown")
    record = ended(bench, run_id).exit
    assert record is not None
    assert record.reason == "user"
    assert record.code is not None
    assert record.signal == record.code - 128


def test_killing_an_ended_run_changes_nothing(bench: Bench) -> None:
    """The exit record of a run that ended by itself stays as it is."""
    rest(bench.workspace.start(bench.place, Job(run_id := new_id(), PRINTS)).output)
    found = bench.workspace.kill(bench.place, run_id, KillMode.GRACEFUL, "user")
    assert found.state is RunState.DONE
    assert bench.workspace.status(bench.place, run_id).exit == found.exit
    assert found.exit is not None
    assert found.exit.reason == "exited"


def test_ids_that_begin_alike_are_different_runs(bench: Bench) -> None:
    """Killing run `a` leaves run `ab` alive."""
    short, long = f"{(stem := new_id())}", f"{stem}b"
    expect(bench.workspace.start(bench.place, Job(short, ENDLESS)).output, b"ready\n")
    other = bench.workspace.start(bench.place, Job(long, GATED)).output
    expect(other, b"ready\n")
    bench.workspace.kill(bench.place, short, KillMode.FORCE, "user")
    ended(bench, short)
    assert bench.workspace.status(bench.place, long).state is RunState.RUNNING
    bench.release()
    assert rest(other) == b"released\n"


def test_stdin_is_delivered_and_ends(bench: Bench) -> None:
    """A job's stdin arrives byte by byte as it was, then end-of-file."""
    data = bytes(range(256)) * 700
    assert (
        rest(bench.workspace.start(bench.place, Job(new_id(), ECHOES, stdin=data)).output) == data
    )


def test_an_open_input_takes_bytes_exactly_once_and_in_order(bench: Bench) -> None:
    """Sends at the right offset are appended, repeats do nothing, wrong offsets are refused."""
    job = Job(new_id(), ECHOES, stdin=b"one ", input_open=True)
    output = bench.workspace.start(bench.place, job).output
    send = bench.workspace.send
    expect(output, b"one ")
    assert send(bench.place, job.run_id, 4, b"two ") == 8
    expect(output, b"two ")
    assert send(bench.place, job.run_id, 4, b"two ") == 8
    for offset in (0, 5, 9):
        with pytest.raises(OffsetBeyondEnd) as raised:
            send(bench.place, job.run_id, offset, b"xyz ")
        assert raised.value.end == 8
    assert send(bench.place, job.run_id, 8, b"\0three", last=True) == 14
    assert rest(output) == b"\0three"
    with pytest.raises(OffsetBeyondEnd):
        send(bench.place, job.run_id, 14, b"too late")


def test_an_open_input_can_end_without_more_bytes(bench: Bench) -> None:
    """`last` with no data is only the end-of-file."""
    job = Job(new_id(), ECHOES, input_open=True)
    output = bench.workspace.start(bench.place, job).output
    assert bench.workspace.send(bench.place, job.run_id, 0, b"", last=True) == 0
    assert rest(output) == b""


def test_a_closed_input_takes_nothing(bench: Bench) -> None:
    """Sending to a run without open input, or to none, raises RunAbsent."""
    start = bench.workspace.start(bench.place, Job(run_id := new_id(), GATED))
    expect(start.output, b"ready\n")
    for name in (run_id, new_id()):
        with pytest.raises(RunAbsent):
            bench.workspace.send(bench.place, name, 0, b"x")


@pytest.mark.parametrize(("cwd", "detail"), [("nowhere", "cwd_missing"), ("..", "cwd_outside")])
def test_a_bad_cwd_is_a_start_that_failed(bench: Bench, cwd: str, detail: str) -> None:
    """The run is claimed and over: reason start_failed, no exit code, no output."""
    start = bench.workspace.start(bench.place, Job(run_id := new_id(), PRINTS, cwd=cwd))
    assert (start.won, start.status.state) == (True, RunState.DONE)
    assert rest(start.output) == b""
    record = bench.workspace.status(bench.place, run_id).exit
    assert record is not None
    assert record == start.status.exit
    assert (record.reason, record.detail, record.code) == ("start_failed", detail, None)


def test_output_beyond_the_cap_is_dropped_and_said(bench: Bench) -> None:
    """The command ends as usual; its first 1024 bytes are kept and the stream is marked."""
    job = Job(new_id(), FLOODS, output_cap=1024)
    assert rest(bench.workspace.start(bench.place, job).output) == bytes(1024)
    record = ended(bench, job.run_id).exit
    assert record is not None
    assert (record.code, record.stdout.size, record.stdout.truncated) == (0, 1024, "cap")
    assert record.stdout.sha256 == hashlib.sha256(bytes(1024)).hexdigest()


def test_gc_removes_what_ended_and_nothing_else(bench: Bench) -> None:
    """Ended and refused runs that are old enough go; a live run stays."""
    live = bench.workspace.start(bench.place, Job(live_id := new_id(), GATED)).output
    expect(live, b"ready\n")
    rest(bench.workspace.start(bench.place, Job(done := new_id(), PRINTS)).output)
    bench.workspace.refuse(bench.place, refused := new_id())
    assert bench.workspace.gc(bench.place, 3600) == 0
    assert bench.workspace.gc(bench.place, 0) == 2
    for run_id in (done, refused):
        assert bench.workspace.status(bench.place, run_id).state is RunState.ABSENT
    assert bench.workspace.status(bench.place, live_id).state is RunState.RUNNING
    bench.release()
    assert rest(live) == b"released\n"


@pytest.mark.parametrize("run_id", ["", "-a", "a/b", "..", "a;b", "a" * 65, "é", "a\n"])
def test_an_id_that_could_be_something_else_is_refused(bench: Bench, run_id: str) -> None:
    """Ids become directories and marks: others than letters, digits, - and _ are errors."""
    with pytest.raises(ValueError, match="run id"):
        bench.workspace.status(bench.place, run_id)
