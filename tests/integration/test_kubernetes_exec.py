"""Exec into pods when everything that can go wrong with it does."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from common.adapters.kubernetes import transport as exec_transport
from common.adapters.kubernetes.frames import Exited, RuntimeFailed, outcome
from common.adapters.kubernetes.pods import Pods
from common.adapters.kubernetes.transport import ExecChannel
from common.domain.breaker import State, Thresholds
from common.domain.command import Reason
from common.domain.workspace import (
    Job,
    KillMode,
    Place,
    RunState,
    TransportLost,
    WorkspaceError,
    WorkspaceGone,
    WorkspaceUnreachable,
)
from common.ports.dependencies import KUBERNETES, workspace
from common.ports.workspace import Output
from tests.fake_kubernetes.running import NAMESPACE, FakeKubernetes
from tests.integration.kubernetes_bench import Bench

PATIENCE_S = 30.0
# Numbered lines, so that a lost or repeated byte shows where.
LINES = "i=0; while [ $i -lt {n} ]; do i=$((i+1)); echo $i; done"


EXITED_137 = (
    b'{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":'
    b'[{"reason":"ExitCode","message":"137"}]}}'
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeKubernetes]:
    with FakeKubernetes(tmp_path_factory.mktemp("fake")) as fake:
        yield fake


@pytest.fixture
def fake(running: FakeKubernetes) -> Iterator[FakeKubernetes]:
    """The fake with one pod, as new."""
    running.pod("demo-0", project="demo")
    yield running
    running.reset()


@pytest.fixture
def bench(fake: FakeKubernetes, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(fake, tmp_path)
    yield made
    made.close()


def opened(bench: Bench, *argv: str, stdin: bytes = b"") -> ExecChannel:
    return bench.transport.open(bench.place(), argv, stdin)


def all_of(channel: ExecChannel) -> bytes:
    data = b""
    while more := channel.read(1 << 20, PATIENCE_S):
        data += more
    return data


def followed(bench: Bench, place: Place, run_id: str, first: Output | None) -> tuple[bytes, int]:
    """All output over as many connections as it takes, and how often the wire broke."""
    data, breaks, output = b"", 0, first
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if output is None:
                output = bench.workspace.follow(place, run_id, "merged", len(data))
            while more := output.read(1 << 16, PATIENCE_S):
                data += more
            if output.status is not None:
                return data, breaks
        except (TransportLost, WorkspaceUnreachable):
            breaks += 1
        if output is not None:
            output.close()
            output = None
    raise AssertionError(f"not followed to the end: {len(data)} bytes, {breaks} breaks")


# -- one call -------------------------------------------------------------------------------------


def test_streams_exit_code_and_bytes(bench: Bench) -> None:
    """stdout byte for byte, stderr apart, the program's exit code."""
    channel = opened(bench, "sh", "-c", r"printf '\000\377\n'; echo problem >&2; exit 7")
    assert all_of(channel) == b"\x00\xff\n"
    assert channel.result(PATIENCE_S) == 7
    assert channel.stderr == b"problem\n"
    channel.close()


def test_a_long_stdin_goes_in_while_output_comes_out(bench: Bench) -> None:
    """Five megabytes through `head` and back, though neither side waits for the other."""
    data = bytes(range(256)) * 20_000
    channel = opened(bench, "head", "-c", str(len(data)), stdin=data)
    assert hashlib.sha256(all_of(channel)).digest() == hashlib.sha256(data).digest()
    assert channel.result(PATIENCE_S) == 0


def test_it_runs_in_the_container_of_the_life(fake: FakeKubernetes, bench: Bench) -> None:
    """A container that the pod does not have is refused, and nothing ran."""
    place = bench.place()
    wrong = place.pod_uid.replace("claudebox", "nobody")
    with pytest.raises(WorkspaceUnreachable, match="container nobody"):
        bench.transport.open(Place("demo", place.path, NAMESPACE, "demo-0", wrong), ("true",))


def test_without_a_pod_nothing_is_asked(fake: FakeKubernetes, bench: Bench) -> None:
    """A place of another kind of workspace is unreachable."""
    with pytest.raises(WorkspaceUnreachable, match="has no pod"):
        bench.transport.open(Place("demo", "/w"), ("true",))
    assert "exec" not in fake.seen


@pytest.mark.parametrize(
    "fault", ["exec_no_status", "exec_bad_status", "exec_runtime_failure", "exec_drop_every"]
)
def test_without_a_status_the_outcome_is_unknown(
    fake: FakeKubernetes, bench: Bench, fault: str
) -> None:
    """No Status, one that cannot be read, a runtime that failed and a cut are all TransportLost."""
    fake.fail(**{fault: 1 if fault == "exec_drop_every" else True}, frame_bytes=16)
    channel = opened(bench, "sh", "-c", "echo a line that is longer than one frame")
    with pytest.raises(TransportLost):
        all_of(channel)
    channel.close()


@pytest.mark.parametrize(
    ("status", "error"),
    [(403, WorkspaceUnreachable), (400, WorkspaceUnreachable), (429, WorkspaceUnreachable),
     (500, TransportLost), (502, TransportLost), (404, WorkspaceGone)],
)  # fmt: skip
def test_a_refused_handshake(
    fake: FakeKubernetes, bench: Bench, status: int, error: type[WorkspaceError]
) -> None:
    """4xx: nothing happened; 5xx: perhaps; 404: the pod is gone."""
    place = bench.place()
    fake.fail(exec_status=status)
    with pytest.raises(error):
        bench.transport.open(place, ("true",))


def test_a_handshake_that_is_never_answered(
    fake: FakeKubernetes, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was sent, so it may have happened; and waiting for it ends."""
    monkeypatch.setattr(exec_transport, "OPEN_S", 0.2)
    fake.fail(exec_stall=True)
    with pytest.raises(TransportLost):
        opened(bench, "true")


def test_a_wire_that_has_gone_silent_is_given_up(
    fake: FakeKubernetes, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NAT forgot it, say: pings are not answered, and following goes on over another wire."""
    monkeypatch.setattr(exec_transport, "PING_S", 0.2)
    place = bench.place()
    started = bench.workspace.start(place, Job("t1", ("echo", "here")))
    followed(bench, place, "t1", started.output)
    fake.fail(exec_mute=True)
    with pytest.raises(TransportLost):
        bench.workspace.follow(place, "t1", "merged", 2).read(16, PATIENCE_S)
    fake.fail()
    assert bench.workspace.follow(place, "t1", "merged", 2).read(16, PATIENCE_S) == b"re\n"


def test_a_server_that_is_away_was_not_asked(fake: FakeKubernetes, bench: Bench) -> None:
    """Every connection is reset: nothing happened in the workspace."""
    place = bench.place()
    fake.fail(down=True)
    with pytest.raises(WorkspaceUnreachable):
        bench.transport.verify(place)


@pytest.mark.parametrize(
    ("status", "means"),
    [
        (b'{"status":"Success"}', Exited(0)),
        (EXITED_137, Exited(137)),
        (b'{"status":"Failure","message":"no shell"}', RuntimeFailed("no shell")),
        (b'{"status":"Failure","reason":"InternalError"}', RuntimeFailed("InternalError")),
        (b'{"status":"Failure","reason":"NonZeroExitCode"}', None),
        (b'{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[]}}', None),
        (b"", None),
        (b"[]", None),
        (b"\xff", None),
    ],
)
def test_what_a_status_means(status: bytes, means: Exited | RuntimeFailed | None) -> None:
    """An exit code, a failure of the runtime, or nothing that can be believed."""
    assert outcome(status) == means


# -- runs -----------------------------------------------------------------------------------------


def test_the_script_is_delivered_once(fake: FakeKubernetes, bench: Bench) -> None:
    """The first start takes three calls, each later one a single call."""
    place = bench.place()
    counts = []
    for number in range(3):
        before = fake.seen.get("exec", 0)
        started = bench.workspace.start(place, Job(f"t{number}", ("true",)))
        followed(bench, place, f"t{number}", started.output)
        counts.append(fake.seen["exec"] - before)
    assert counts == [3, 1, 1]


def test_the_script_is_delivered_once_a_pod_and_version(fake: FakeKubernetes, bench: Bench) -> None:
    """Its file is on a volume: a restart keeps it, a new pod and a new version have it not."""
    volume = {"fake/volumes": str(bench.folder / "runs")}
    fake.pod("v-0", project="v", annotations=volume)

    def calls() -> int:
        before = fake.seen.get("exec", 0)
        bench.workspace.status(bench.place("v-0", "v"), "t1")
        return fake.seen["exec"] - before

    assert [calls(), calls()] == [3, 1]
    fake.restart_pod("v-0")
    assert calls() == 1
    fake.delete_pod("v-0")
    fake.pod("v-0", project="v", annotations=volume)
    assert [calls(), calls()] == [3, 1]
    bench.workspace._script._name = "supervisor-next.sh"
    assert [calls(), calls()] == [3, 1]


def test_output_is_whole_over_many_drops(fake: FakeKubernetes, bench: Bench) -> None:
    """Cut every few frames, every byte arrives once and in order, and it ran once."""
    place = bench.place()
    bench.workspace.status(place, "t0")  # delivers the script, which drops would only repeat
    fake.fail(exec_drop_every=6, frame_bytes=512)
    proof = bench.folder / "proof"
    script = f"echo run >> {proof}; {LINES.format(n=4000)}"
    started = bench.workspace.start(place, Job("t1", ("sh", "-c", script)))
    data, breaks = followed(bench, place, "t1", started.output)
    assert data == b"".join(b"%d\n" % i for i in range(1, 4001))
    assert breaks >= 4
    assert proof.read_text() == "run\n"


def test_a_success_that_comes_too_early_is_not_believed(fake: FakeKubernetes, bench: Bench) -> None:
    """The channel says Success before any output: the exit record and its bytes are what counts."""
    place = bench.place()
    job = Job("t1", ("sh", "-c", f"{LINES.format(n=500)}; exit 3"))
    started = bench.workspace.start(place, job)
    assert started.output is not None
    started.output.close()
    fake.fail(exec_early_success=True)
    with pytest.raises(WorkspaceError):
        bench.workspace.follow(place, "t1", "merged").read(1 << 16, PATIENCE_S)
    fake.fail()
    data, _ = followed(bench, place, "t1", None)
    assert data.endswith(b"\n500\n")
    record = bench.workspace.status(place, "t1").exit
    assert record is not None
    assert record.code == 3


def test_a_lost_answer_to_a_start_starts_nothing_twice(fake: FakeKubernetes, bench: Bench) -> None:
    """The start went through and its answer did not: the next one finds the run."""
    place = bench.place()
    bench.workspace.status(place, "t0")
    proof = bench.folder / "proof"
    job = Job("t1", ("sh", "-c", f"echo run >> {proof}; echo up; exec tail -f /dev/null"))
    fake.fail(exec_early_success=True)
    with pytest.raises(WorkspaceError):
        bench.workspace.start(place, job)
    fake.fail()
    again = bench.workspace.start(place, job)
    output = again.output or bench.workspace.follow(place, "t1", "merged")
    assert output.read(16, PATIENCE_S) == b"up\n"
    assert proof.read_text() == "run\n"
    assert not bench.workspace.start(place, job).won
    bench.workspace.kill(place, "t1", KillMode.FORCE, "test_over")


def test_sixteen_threads_at_once(bench: Bench) -> None:
    """Each gets its own bytes and its own exit code, and the pod is asked for far less often."""
    place = bench.place()
    barrier = threading.Barrier(16)
    wrong: list[object] = []

    def call(number: int) -> None:
        barrier.wait()
        for repeat in range(6):
            word = f"{number}.{repeat}"
            argv = ("sh", "-c", f"echo {word}; exit {number}")
            channel = bench.transport.open(place, argv)
            got = all_of(channel), channel.result(PATIENCE_S)
            channel.close()
            if got != (f"{word}\n".encode(), number):
                wrong.append(got)

    threads = [threading.Thread(target=call, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert bench.fake.seen["exec"] == 96
    assert bench.fake.seen["get"] < 48


def test_a_pod_is_asked_for_twice_a_second_at_most(fake: FakeKubernetes, bench: Bench) -> None:
    """However many ask; a fresh answer is as new as its question."""
    now = 100.0
    pods = Pods(bench.api, clock=lambda: now)
    asked = fake.seen.get("get", 0)

    def times(*, fresh: bool) -> int:
        pods.get(NAMESPACE, "demo-0", fresh=fresh)
        return fake.seen["get"] - asked

    assert [times(fresh=False), times(fresh=False)] == [1, 1]
    now += 0.5
    assert times(fresh=False) == 1
    now += 0.1
    assert [times(fresh=False), times(fresh=False)] == [2, 2]
    now += 0.1
    assert [times(fresh=True), times(fresh=False)] == [3, 3]


# -- the life of a pod ----------------------------------------------------------------------------


def live_run(bench: Bench, place: Place) -> Output:
    """A run that has printed a line and goes on."""
    started = bench.workspace.start(
        place, Job("t1", ("sh", "-c", "echo up; exec tail -f /dev/null"))
    )
    assert started.output is not None
    assert started.output.read(16, PATIENCE_S) == b"up\n"
    return started.output


def reason_of(bench: Bench, place: Place, output: Output) -> Reason:
    """What becomes of following a run whose container ended."""
    with pytest.raises(TransportLost):
        output.read(1, PATIENCE_S)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            bench.workspace.follow(place, "t1", "merged", 3).close()
        except WorkspaceGone as gone:
            return gone.reason
        except WorkspaceError:
            continue  # the API has not noticed yet
    raise AssertionError("it never said why")


def test_a_deleted_pod_ends_its_runs(fake: FakeKubernetes, bench: Bench) -> None:
    """The wire breaks, and asking again says that the pod is deleted."""
    place = bench.place()
    output = live_run(bench, place)
    fake.delete_pod("demo-0")
    assert reason_of(bench, place, output) is Reason.POD_DELETED


def test_a_pod_of_the_same_name_is_another(fake: FakeKubernetes, bench: Bench) -> None:
    """Nothing is looked for, followed or started in a pod that was made anew."""
    place = bench.place()
    output = live_run(bench, place)
    fake.delete_pod("demo-0")
    fake.pod("demo-0", project="demo")
    assert reason_of(bench, place, output) is Reason.POD_DELETED
    with pytest.raises(WorkspaceGone):
        bench.workspace.start(place, Job("t2", ("true",)))
    assert bench.place().pod_uid != place.pod_uid


def test_a_restarted_container_ends_its_runs(fake: FakeKubernetes, bench: Bench) -> None:
    """Same pod, same UID, another life."""
    place = bench.place()
    output = live_run(bench, place)
    fake.restart_pod("demo-0")
    assert reason_of(bench, place, output) is Reason.POD_RESTARTED


def test_nothing_starts_in_a_pod_that_left_the_project(fake: FakeKubernetes, bench: Bench) -> None:
    """Its label was taken away since the registry looked; what runs there goes on."""
    place = bench.place()
    output = live_run(bench, place)
    fake.relabel("demo-0", {})
    with pytest.raises(WorkspaceGone):
        bench.workspace.start(place, Job("t2", ("true",)))
    assert bench.workspace.status(place, "t1").state is RunState.RUNNING
    output.close()


# -- who we are -----------------------------------------------------------------------------------


def test_a_token_that_was_replaced_is_read_again(fake: FakeKubernetes, bench: Bench) -> None:
    """Plain calls and exec are both refused once, read the kubeconfig anew and go through."""
    place = bench.place()
    assert bench.workspace.status(place, "t1").state is RunState.ABSENT
    for number in range(2):
        token = f"token-{number}"
        fake.write_kubeconfig({"token": token}, {})
        fake.fail(token=token)
        if number:
            bench.api.get("/version")
        assert opened_with(bench, place) == 0
    fake.write_kubeconfig({"token": "wrong"}, {})
    fake.fail(token="right")
    with pytest.raises(WorkspaceUnreachable, match="401"):
        bench.transport.verify(place)


def opened_with(bench: Bench, place: Place) -> int:
    channel = bench.transport.open(place, ("true",))
    try:
        return channel.result(PATIENCE_S)
    finally:
        channel.close()


def test_an_exec_plugin_is_asked(fake: FakeKubernetes, bench: Bench, tmp_path: Path) -> None:
    """A kubeconfig's credential plugin gives the token."""
    place = bench.place()
    plugin = tmp_path / "plugin"
    answer = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "of-the-plugin"},
    }
    plugin.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    plugin.chmod(0o755)
    command = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": str(plugin),
        "interactiveMode": "Never",
    }
    fake.write_kubeconfig({"exec": command}, {})
    fake.fail(token="of-the-plugin")
    other = Bench(fake, tmp_path)
    assert opened_with(other, place) == 0
    other.close()


def test_a_context_is_chosen_by_name(fake: FakeKubernetes, tmp_path: Path) -> None:
    """Another context of the same file, with its namespace."""
    from common.adapters.kubernetes.access import Access

    document = yaml.safe_load(fake.kubeconfig.read_text())
    context = {"cluster": "fake", "user": "fake", "namespace": "elsewhere"}
    document["contexts"].append({"name": "second", "context": context})
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    assert Access("second", "", str(path)).namespace == "elsewhere"
    assert Access("", "", str(path)).namespace == NAMESPACE
    assert Access("second", "given", str(path)).namespace == "given"


# -- breakers -------------------------------------------------------------------------------------


def test_one_broken_pod_blocks_no_other(fake: FakeKubernetes, tmp_path: Path) -> None:
    """After three failures its workspace is not asked; the pod beside it is."""
    bench = Bench(fake, tmp_path, Thresholds(failures=3, open_s=60))
    fake.pod("fine-0", project="fine")
    broken, fine = bench.place(), bench.place("fine-0", "fine")
    fake.fail(exec_status=500, exec_pods=["demo-0"])
    for _ in range(3):
        with pytest.raises(TransportLost):
            bench.transport.open(broken, ("true",))
    asked = fake.seen["exec"]
    with pytest.raises(WorkspaceUnreachable, match="not asked"):
        bench.transport.open(broken, ("true",))
    assert fake.seen["exec"] == asked
    assert opened_with(bench, fine) == 0
    assert bench.breakers.of(workspace("demo")).state is State.OPEN
    assert bench.breakers.of(KUBERNETES).state is State.CLOSED
    bench.close()


def test_a_pod_whose_shell_never_answers_opens_its_breaker(
    fake: FakeKubernetes, tmp_path: Path
) -> None:
    """The handshake works and nothing runs: that counts as well."""
    bench = Bench(fake, tmp_path, Thresholds(failures=2, open_s=60))
    place = bench.place()
    fake.fail(exec_runtime_failure=True)
    for _ in range(2):
        with pytest.raises(TransportLost):
            opened_with(bench, place)
    assert bench.breakers.of(workspace("demo")).state is State.OPEN
    bench.close()


def test_it_closes_by_one_probe(fake: FakeKubernetes, tmp_path: Path) -> None:
    """When its time is over one call goes through, and its answer lets all others through."""
    bench = Bench(fake, tmp_path, Thresholds(failures=1, open_s=0.05))
    place = bench.place()
    fake.fail(exec_status=500)
    with pytest.raises(TransportLost):
        bench.transport.open(place, ("true",))
    fake.fail()
    deadline = time.monotonic() + PATIENCE_S
    while bench.breakers.of(workspace("demo")).state is not State.CLOSED:
        assert time.monotonic() < deadline
        try:
            opened_with(bench, place)
        except WorkspaceUnreachable:
            continue
    assert opened_with(bench, place) == 0
    bench.close()


@pytest.mark.parametrize("fault", ["status", "exec_status"])
def test_retry_after_is_respected(fake: FakeKubernetes, bench: Bench, fault: str) -> None:
    """One 429 with its time, to a plain call or to exec: the server is not asked again before."""
    place = bench.place()
    fake.fail(**{fault: 429}, retry_after="60")
    with pytest.raises(WorkspaceUnreachable):
        bench.transport.open(place, ("true",))
    fake.fail()
    with pytest.raises(WorkspaceUnreachable, match=r"not asked for [56]\d"):
        bench.transport.verify(place)
    assert bench.breakers.of(workspace("demo")).state is State.CLOSED


def test_an_api_server_that_was_away_leaves_no_workspace_blocked(
    fake: FakeKubernetes, tmp_path: Path
) -> None:
    """Its trouble opens its own breaker; once that has closed, every pod is asked at once."""
    bench = Bench(fake, tmp_path, Thresholds(failures=2, open_s=0.05, longest_s=0.05))
    place = bench.place()
    fake.fail(down=True)
    for _ in range(4):
        with pytest.raises(WorkspaceUnreachable):
            bench.transport.open(place, ("true",))
    assert bench.breakers.of(KUBERNETES).state is State.OPEN
    assert bench.breakers.of(workspace("demo")).state is State.CLOSED
    fake.fail()
    deadline = time.monotonic() + PATIENCE_S
    while bench.breakers.of(KUBERNETES).state is not State.CLOSED:
        assert time.monotonic() < deadline
        try:
            bench.transport.verify(place)
        except WorkspaceUnreachable:
            continue
    assert opened_with(bench, place) == 0
    bench.close()
