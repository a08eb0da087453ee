"""What the supervisor promises when things go wrong, under every shell this machine has.

The shell is chosen by PATH: a directory that holds `sh` (and, for busybox, every other tool) comes
first in it. Every test leaves nothing running; the `bench` fixture proves it by the marks in /proc.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from io import FileIO
from pathlib import Path

import pytest

from common.adapters.workspace_local.transport import LocalChannel, LocalTransport
from common.domain.workspace import (
    ExitRecord,
    Job,
    KillMode,
    OffsetBeyondEnd,
    Place,
    PrivateFile,
    RunState,
    StartRefused,
    TransportLost,
    WorkspaceError,
)
from common.ports.workspace import Output, Start
from common.services.supervision import SupervisedWorkspace

PATIENCE_S = 30.0  # only a broken build waits this long
BUSYBOX = os.environ.get("RDEV_TEST_BUSYBOX") or shutil.which("busybox")
SHELLS = [name for name in ("dash", "bash") if shutil.which(name)] + (
    ["busybox"] if BUSYBOX else []
)
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass
class Bench:
    """A workspace directory, its runs, and tools to look behind the scenes."""

    folder: Path
    tools: Path
    place: Place
    workspace: SupervisedWorkspace
    channels: list[LocalChannel]
    started: list[str] = field(default_factory=list)
    doors: list[FileIO] = field(default_factory=list)
    keepers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def directory(self) -> Path:
        return Path(self.place.path)

    @property
    def runs(self) -> Path:
        return self.folder / "runs" / "demo"

    def job(self, script: str, **more: object) -> Job:
        run_id = str(more.pop("run_id", "") or f"t{uuid.uuid4().hex}")
        self.started.append(run_id)
        return Job(run_id, ("sh", "-c", script), **more)  # type: ignore[arg-type]

    def start(self, job: Job) -> Start:
        return self.workspace.start(self.place, job)

    def run(self, job: Job) -> tuple[bytes, ExitRecord]:
        """Start and read to the end."""
        start = self.start(job)
        data = rest(start.output)
        assert start.output is not None
        assert start.output.status is not None
        record = start.output.status.exit
        assert record is not None
        return data, record

    def record(self, run_id: str) -> ExitRecord:
        """How a run ended, waiting for the end."""
        output = self.workspace.follow(self.place, run_id, "merged")
        rest(output)
        assert output.status is not None
        assert output.status.exit is not None, output.status
        return output.status.exit

    def state(self, run_id: str) -> RunState:
        return self.workspace.status(self.place, run_id).state

    def gate(self, name: str = "gate") -> Path:
        path = self.directory / name
        os.mkfifo(path)
        return path

    def shim(self, tool: str, body: str) -> None:
        """Put a script in front of a tool; `$REAL` is the tool. `unshim` takes it away."""
        real = shutil.which(tool, path=f"{self.tools}:{os.environ['PATH']}")
        link = self.tools / tool
        if link.is_symlink() or link.exists():
            link.rename(self.tools / f"{tool}.real")
            real = str(self.tools / f"{tool}.real")
            if BUSYBOX and Path(real).resolve() == Path(BUSYBOX).resolve():
                real = f"{BUSYBOX} {tool}"
        link.write_text(f"#!/bin/sh\nREAL='{real}'\n{body}\n")
        link.chmod(0o755)

    def unshim(self, tool: str) -> None:
        (self.tools / tool).unlink()
        kept = self.tools / f"{tool}.real"
        if kept.is_symlink() or kept.exists():
            kept.rename(self.tools / tool)

    def owner(self, run_id: str) -> int:
        return int((self.runs / run_id / "owner").read_text().split()[0])

    def kill_supervisor(self, run_id: str) -> None:
        pid = self.owner(run_id)
        with gone(pid):
            os.kill(pid, signal.SIGKILL)


class gone:  # noqa: N801 - reads as a sentence
    """Leave the block when this process has ended, by its pidfd."""

    def __init__(self, pid: int) -> None:
        self._fd = os.pidfd_open(pid)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        ended = poll.poll(PATIENCE_S * 1000)
        os.close(self._fd)
        assert ended, "the process did not end"


def marked(*ids: str) -> list[int]:
    """Every process that belongs to these runs: commands, helpers, followers, supervisors."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            text = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if int(entry.name) != os.getpid() and any(run_id.encode() in text for run_id in ids):
            found.append(int(entry.name))
    return found


def settled(*ids: str) -> None:
    """Wait until no process of these runs is left; fails when one stays."""
    for _ in range(20):
        pids = marked(*ids)
        if not pids:
            return
        for pid in pids:
            try:
                with gone(pid):
                    pass
            except ProcessLookupError:
                continue
    raise AssertionError(f"still running: {marked(*ids)}")


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bench(shell: str, tmp_path: Path) -> Iterator[Bench]:
    made = make_bench(shell, tmp_path)
    yield made
    for run_id in made.started:
        made.workspace.kill(made.place, run_id, KillMode.FORCE, "test_over")
    settled(*made.started)
    close(made)
    for keeper in made.keepers:
        keeper.kill()
        keeper.communicate()


def close(bench: Bench) -> None:
    for channel in bench.channels:
        channel.close()
    for door in bench.doors:
        door.close()


def make_bench(shell: str, folder: Path, **limits: int) -> Bench:
    tools = folder / "tools"
    tools.mkdir()
    if shell == "busybox":
        assert BUSYBOX
        names = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True)
        for name in names.stdout.split():
            (tools / name).symlink_to(BUSYBOX)
    else:
        (tools / "sh").symlink_to(str(shutil.which(shell)))
    (folder / "demo").mkdir()
    environment = {"HOME": "/tmp", "LANG": "C.UTF-8", "PATH": f"{tools}:{os.environ['PATH']}"}
    channels: list[LocalChannel] = []
    transport = Recording(channels, folder / "runs", environment)
    workspace = SupervisedWorkspace(transport, **limits)
    place = Place("demo", str(folder / "demo"))
    # Deliver the script now: what tests put in front of tools is meant for the supervisor.
    workspace.status(place, "absent")
    return Bench(folder, tools, place, workspace, channels)


class Recording(LocalTransport):
    """A local transport that keeps its channels: to break them, and to leave none open."""

    def __init__(self, kept: list[LocalChannel], runs: Path, environment: dict[str, str]) -> None:
        super().__init__(runs, environment)
        self._kept = kept

    def open(self, place: Place, argv: Sequence[str], stdin: bytes = b"") -> LocalChannel:
        channel = super().open(place, argv, stdin)
        self._kept.append(channel)
        return channel


def rest(output: Output | None) -> bytes:
    assert output is not None
    data = bytearray()
    while True:
        more = output.read(1 << 20, PATIENCE_S)
        assert more is not None, "the run did not end"
        if not more:
            return bytes(data)
        data += more


def expect(output: Output | None, wanted: bytes) -> None:
    assert output is not None
    data = b""
    while len(data) < len(wanted):
        more = output.read(len(wanted) - len(data), PATIENCE_S)
        assert more, f"only {data!r} came"
        data += more
    assert data == wanted


# --- what a command is given ---


def test_a_command_gets_only_the_allowlisted_environment(shell: str, tmp_path: Path) -> None:
    """Of the workspace's variables only the six named ones arrive, whatever else is set there."""
    bench = make_bench(shell, tmp_path)
    hostile = {
        "SECRET": "1",
        "dir": "/nowhere",
        "job": "x",
        "name": "x",
        "line": "x",
        "MULTI": "a\nexport HOME=/stolen\nb",
        "CLAUDECODE": "1",
        "CLAUDE_CODE_ENTRYPOINT": "cli",
        "CLAUDE_CONFIG_DIR": "/c",
        "ANTHROPIC_API_KEY": "k",
        "LC_ALL": "C.UTF-8",
        "odd.name": "1",
        "odd name": "1",
        "BASH_FUNC_x%%": "() { :; }",
        "USER": "u",
        "TERM": "t",
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
        "HOME": "/h",
        "PATH": f"{bench.tools}:{os.environ['PATH']}",
    }
    bench.workspace = SupervisedWorkspace(Recording(bench.channels, tmp_path / "runs", hostile))
    wanted = {"HOME", "USER", "PATH", "LANG", "TERM", "TMPDIR", "RDEV_COMMAND_ID"}
    for inherit, more in (
        ((), set()),
        (("ANTHROPIC_*", "CLAUDE_CONFIG_DIR"), {"ANTHROPIC_API_KEY", "CLAUDE_CONFIG_DIR"}),
    ):
        job = Job(f"t{uuid.uuid4().hex}", (sys.executable, "-c", PRINT_NAMES), inherit=inherit)
        data, _ = bench.run(job)
        got = set(data.decode().split("\n")) - {""}
        # `_` is bash's own word to whatever it executes; python sets LC_CTYPE for itself.
        assert got - {"_", "LC_CTYPE"} == wanted | more
        settled(job.run_id)
    close(bench)


PRINT_NAMES = "import os; print('\\n'.join(os.environ))"


def test_values_arrive_as_they_are(bench: Bench) -> None:
    """Quotes, newlines, dollars, globs and UTF-8 in arguments and variables are only text."""
    nasty = "a'b\"c\n$HOME `id` * \\ é \t;"
    job = Job(bench.job("").run_id, ("sh", "-c", 'printf %s "$1|$V"', "x", nasty), env={"V": nasty})
    data, _ = bench.run(job)
    assert data.decode() == f"{nasty}|{nasty}"


def test_a_large_job_arrives_whole(bench: Bench) -> None:
    """A script of 100 KiB and an environment of 100 KiB reach the command."""
    script = f"# {'x' * 100_000}\nprintf %s ${{#V}}"
    data, record = bench.run(bench.job(script, env={"V": "y" * 100_000}))
    assert (data, record.code) == (b"100000", 0)


def test_no_secret_of_a_job_is_left_on_disk_or_in_arguments(bench: Bench) -> None:
    """While a run lives and after it, neither its directory nor any argv holds its variables."""
    gate = bench.gate()
    secret = uuid.uuid4().hex
    job = bench.job("echo ready; read x <gate", env={"TOKEN": secret}, stdin=b"prompt")
    start = bench.start(job)
    expect(start.output, b"ready\n")
    for path in bench.runs.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert secret.encode() not in entry.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
    gate.write_text("\n")
    rest(start.output)
    modes = {path.stat().st_mode & 0o077 for path in bench.runs.rglob("*") if path.exists()}
    assert modes == {0}


def test_a_private_file_is_its_owners_and_gone_after_the_run(bench: Bench) -> None:
    """An argument that is a path: the text is in no argument, and on disk only while it runs."""
    secret = f"it's {uuid.uuid4().hex}\n"
    script = 'stat -c %a "$1"; cat "$1"; [ "${1%/*}" = "$PWD" ] || exit 7'
    job = bench.job(script)
    job = replace(job, argv=(*job.argv, "sh", PrivateFile(secret)))
    data, record = bench.run(job)
    assert (data.decode(), record.code) == (f"600\n{secret}", 7)
    holders = [p.name for p in bench.runs.rglob("*") if p.is_file() and secret in p.read_text()]
    assert holders == ["out"]  # the command printed it; nothing else kept it


def test_stdin_opened_again_shows_only_stdin(bench: Bench) -> None:
    """`/dev/stdin` opened by name is the input and not the job before it."""
    data, _ = bench.run(bench.job("cat /dev/stdin", stdin=b"only this"))
    assert data == b"only this"


def test_signals_are_at_their_defaults(bench: Bench) -> None:
    """No signal is ignored or blocked in a command: SIGINT is how claude is asked to stop."""
    # Not through `sh -c`: busybox's own shell hands an ignored SIGQUIT on.
    job = Job(bench.job("").run_id, ("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"))
    data, _ = bench.run(job)
    masks = [int(line.split()[1], 16) for line in data.splitlines()]
    assert [mask & 0x7FFF_FFFF for mask in masks] == [0, 0]  # 32 and above belong to the C library


def test_a_command_leads_a_session_of_its_own(bench: Bench) -> None:
    """Its process, group and session ids are one, and its descriptors 0 to 2 are all it has."""
    script = (
        'read -r p _ _ _ g s _ </proc/self/stat; echo "$((p - g)) $((p - s))"; ls /proc/$$/fd; :'
    )
    data, _ = bench.run(bench.job(script))
    first, *descriptors = data.decode().split("\n")
    assert first == "0 0"
    assert set(descriptors) - {""} <= {"0", "1", "2", "10", "255"}  # a shell's own script handle


def test_a_missing_program_is_127_with_its_message(bench: Bench) -> None:
    """What cannot be executed ends with the shell's code, and the output says why."""
    job = Job(bench.job("").run_id, ("/no/such/program",))
    data, record = bench.run(job)
    assert record.code == 127
    assert b"/no/such/program" in data


# --- where it may run ---


@pytest.mark.row(48)
def test_a_symlink_out_of_the_workspace_is_refused(bench: Bench) -> None:
    """A cwd that resolves to outside fails the start; one that stays inside is fine."""
    (bench.directory / "inside").mkdir()
    (bench.directory / "out").symlink_to("/")
    (bench.directory / "in").symlink_to("inside")
    sibling = bench.folder / "demo-two"
    sibling.mkdir()
    for cwd in ("out", "out/tmp", "../demo-two", str(sibling), "/", "inside/../.."):
        _, record = bench.run(bench.job("echo ran", cwd=cwd))
        assert (record.reason, record.detail) == ("start_failed", "cwd_outside"), cwd
    for cwd in ("in", "inside", str(bench.directory / "in"), ".", ""):
        data, _ = bench.run(bench.job("pwd -P", cwd=cwd))
        assert data.decode().startswith(str(bench.directory)), cwd


def test_a_missing_cwd_or_workspace_is_said(bench: Bench) -> None:
    """A cwd that is not there, is a file, or a workspace that is gone: a start that failed."""
    (bench.directory / "file").write_text("")
    for cwd in ("nowhere", "file", "-"):
        _, record = bench.run(bench.job("echo ran", cwd=cwd))
        assert (record.reason, record.detail) == ("start_failed", "cwd_missing"), cwd
    bench.directory.rmdir() if not any(bench.directory.iterdir()) else shutil.rmtree(
        bench.directory
    )
    _, record = bench.run(bench.job("echo ran"))
    assert (record.reason, record.detail) == ("start_failed", "workspace_missing")


def test_a_full_disk_refuses_the_start(bench: Bench) -> None:
    """Less free space than the reserve: StartRefused(no_space), and the run is absent."""
    transport = Mounted(bench, "size=4m,mode=777")
    bench.workspace = SupervisedWorkspace(transport, min_free=8 << 20)
    job = bench.job("echo ran")
    with pytest.raises(StartRefused) as raised:
        bench.start(job)
    assert raised.value.code == "no_space"
    assert bench.state(job.run_id) is RunState.ABSENT


def test_a_disk_that_fills_up_cuts_the_output_and_says_so(bench: Bench) -> None:
    """The command runs to its end, what fits is kept, and the exit record still gets written."""
    transport = Mounted(bench, "size=1m,mode=777")
    bench.workspace = SupervisedWorkspace(transport, min_free=0)
    data, record = bench.run(bench.job("head -c 3000000 /dev/zero; echo end >proof"))
    assert (record.reason, record.code, record.stdout.truncated) == ("exited", 0, "disk_full")
    assert 0 < record.stdout.size < 1 << 20
    assert data == bytes(record.stdout.size)
    assert (bench.directory / "proof").exists()
    # And while it is full, nothing new starts and nothing is left of the attempt.
    with pytest.raises(StartRefused) as raised:
        bench.start(bench.job("echo ran"))
    assert raised.value.code == "no_space"
    assert bench.workspace.gc(bench.place, 0) == 1
    assert bench.run(bench.job("echo ran"))[0] == b"ran\n"


def test_a_read_only_run_directory_refuses_the_start(bench: Bench) -> None:
    """Nowhere to write runs: StartRefused(read_only), nothing claimed."""
    transport = Mounted(bench, "ro,size=1m")
    bench.workspace = SupervisedWorkspace(transport)
    with pytest.raises(StartRefused) as raised:
        bench.start(Job("never", ("true",)))
    assert raised.value.code == "read_only"


def test_a_read_only_workspace_still_runs_commands(bench: Bench) -> None:
    """Runs are kept elsewhere, so a command in a read-only tree runs and is told EROFS itself."""
    transport = Mounted(bench, "ro,size=1m")
    transport.put_runs(bench.folder / "runs")
    bench.workspace = SupervisedWorkspace(transport)
    bench.place = Place("demo", str(transport.disk))
    data, record = bench.run(bench.job("echo here; : >file || exit 9"))
    assert data.startswith(b"here\n")
    assert record.code != 0


class Mounted(Recording):
    """A local transport inside a mount namespace of its own, with runs on a small disk there."""

    def __init__(self, bench: Bench, options: str) -> None:
        self.disk = bench.folder / "disk"
        self.disk.mkdir()
        script = f'mount -t tmpfs -o {options} t "$1" && echo up && read -r x'
        argv = ["unshare", "-rm", "sh", "-c", script, "sh", str(self.disk)]
        self._keeper = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        bench.keepers.append(self._keeper)
        assert self._keeper.stdout
        if self._keeper.stdout.readline() != b"up\n":
            pytest.skip("this machine does not let us mount")
        self._channels = bench.channels
        self._path = {"PATH": f"{bench.tools}:{os.environ['PATH']}"}
        self.put_runs(self.disk / "runs")

    def put_runs(self, runs: Path) -> None:
        super().__init__(self._channels, runs, self._path)

    def open(self, place: Place, argv: Sequence[str], stdin: bytes = b"") -> LocalChannel:
        enter = ("/usr/bin/nsenter", "-t", str(self._keeper.pid), "-U", "-m")
        return super().open(place, (*enter, "--preserve-credentials", *argv), stdin)


def test_a_spent_budget_refuses_the_start(shell: str, tmp_path: Path) -> None:
    """When the spools use more than the budget, nothing starts until gc has made room."""
    bench = make_bench(shell, tmp_path, budget=1 << 20)
    bench.run(bench.job("head -c 3000000 /dev/zero"))
    bench.workspace.gc(bench.place, 3600)
    with pytest.raises(StartRefused) as raised:
        bench.start(bench.job("echo ran"))
    assert raised.value.code == "no_space"
    bench.workspace.gc(bench.place, 0)
    assert bench.run(bench.job("echo ran"))[0] == b"ran\n"
    settled(*bench.started)
    close(bench)


def test_without_setsid_nothing_starts(bench: Bench) -> None:
    """A workspace that cannot detach a command refuses it: StartRefused(unsupported)."""
    bare = bench.folder / "bare"
    bare.mkdir()
    for tool in ("sh", "cat", "head", "mkdir", "mv", "rm", "wc"):
        (bare / tool).symlink_to(
            str(shutil.which(tool, path=f"{bench.tools}:{os.environ['PATH']}"))
        )
    transport = Recording(bench.channels, bench.folder / "runs", {"PATH": str(bare)})
    with pytest.raises(StartRefused) as raised:
        SupervisedWorkspace(transport).start(bench.place, Job("never", ("true",)))
    assert raised.value.code == "unsupported"


# --- claimed once, whoever dies ---

# The tools the supervisor calls on its way to a launch, in order. A shim stops it at each.
STEPS = ("head", "df", "mkdir", "mkfifo", "setsid")


def stop_at(bench: Bench, step: str) -> Callable[[], None]:
    """Make the supervisor wait at a step. Call the answer once the start is under way: it returns
    when the step is reached; call it again to let it go on.
    """
    reached, release = bench.folder / "reached", bench.folder / "release"
    os.mkfifo(reached)
    os.mkfifo(release)
    # `setsid` is called twice: to detach the supervisor, which may pass, and to launch the command.
    passing = 'case "$*" in *" own "*) exec $REAL "$@" ;; esac\n' if step == "setsid" else ""
    bench.shim(step, f'{passing}echo x >"{reached}"; read -r x <"{release}"; exec $REAL "$@"')
    # Both ways, so that it never waits for a reader: a kill may have ended the one there was.
    door = FileIO(os.open(release, os.O_RDWR), "r+")
    bench.doors.append(door)
    calls = []

    def step_on() -> None:
        calls.append(step)
        if len(calls) == 1:
            reached.read_bytes()
            bench.unshim(step)
        else:
            door.write(b"\n")

    return step_on


@pytest.mark.parametrize("step", STEPS)
def test_the_caller_dies_during_a_start(bench: Bench, step: str) -> None:
    """The caller's end is killed at any step: the run runs once, and a retry finds it."""
    step_on = stop_at(bench, step)
    job = bench.job("echo ran >>count; echo out", stdin=b"input")
    failures: list[Exception] = []
    thread = threading.Thread(target=collect_errors, args=(failures, lambda: bench.start(job)))
    thread.start()
    step_on()
    bench.channels[-1].close()
    thread.join(PATIENCE_S)
    step_on()
    if step != "setsid":  # from the launch on the answer was already given
        assert isinstance(failures[0], TransportLost)
    start = bench.start(job)
    output = start.output or bench.workspace.follow(bench.place, job.run_id, "merged")
    assert rest(output) == b"out\n"
    assert (bench.directory / "count").read_text() == "ran\n"


@pytest.mark.parametrize("step", STEPS)
def test_the_supervisor_is_killed_during_a_start(bench: Bench, step: str) -> None:
    """SIGKILL at any step: afterwards the run is absent, or lost and never run; and not both."""
    passing = 'case "$*" in *" own "*) exec $REAL "$@" ;; esac\n' if step == "setsid" else ""
    # The step's own parent is the supervisor, except in the one pipeline.
    bench.shim(step, f"{passing}kill -s KILL {SUPERVISOR_OF.get(step, '$PPID')}; exit 1")
    job = bench.job("echo ran >>count; echo out", stdin=b"input")
    try:
        first = bench.start(job)
        if first.output:
            rest(first.output)
    except WorkspaceError:
        pass
    bench.unshim(step)
    settled(job.run_id)  # a process that is being killed may still look alive
    state = bench.state(job.run_id)
    assert state in {RunState.ABSENT, RunState.LOST}
    second = bench.start(job)
    assert second.won is (state is RunState.ABSENT)
    if second.won:
        assert rest(second.output) == b"out\n"
    assert (bench.directory / "count").exists() is second.won
    # Only a run that was claimed and cannot have been launched is still ours to refuse.
    assert bench.workspace.refuse(bench.place, job.run_id) is (step == "mkfifo")


# `df` is called from a subshell of the supervisor, whose parent is the one to kill.
SUPERVISOR_OF = {"df": "$(cut -d' ' -f4 /proc/$PPID/stat)"}


def collect_errors(errors: list[Exception], action: Callable[[], object]) -> None:
    try:
        action()
    except Exception as error:
        errors.append(error)


@pytest.mark.parametrize("step", ["mkdir", "mkfifo", "setsid"])
def test_a_tombstone_races_a_start(bench: Bench, step: str) -> None:
    """Refused before the launch, the command never runs, not even by a slow supervisor."""
    step_on = stop_at(bench, step)
    job = bench.job("echo ran >canary")
    answers: list[Start] = []
    thread = threading.Thread(target=lambda: answers.append(bench.start(job)))
    thread.start()
    step_on()
    refused = bench.workspace.refuse(bench.place, job.run_id)
    assert refused is (step != "setsid")
    step_on()
    thread.join(PATIENCE_S)
    assert answers[0].won is not refused
    if answers[0].output:
        rest(answers[0].output)
    assert (bench.directory / "canary").exists() is not refused
    settled(job.run_id)


@pytest.mark.parametrize("step", ["mkfifo", "setsid"])
def test_a_kill_races_a_start(bench: Bench, step: str) -> None:
    """Killed between claim and launch, the run ends with that reason, its command unrun."""
    step_on = stop_at(bench, step)
    job = bench.job("echo ran >canary; exec sleep 600")
    answers: list[Start] = []
    thread = threading.Thread(target=lambda: answers.append(bench.start(job)))
    thread.start()
    step_on()
    bench.workspace.kill(bench.place, job.run_id, KillMode.SHUTDOWN, "user")
    step_on()
    thread.join(PATIENCE_S)
    assert bench.record(job.run_id).reason == "user"
    if step == "mkfifo":
        assert not (bench.directory / "canary").exists()


def test_an_incomplete_job_starts_nothing(bench: Bench) -> None:
    """A wire that breaks inside the job, short, long or with stdin: bad_job, nothing claimed."""
    job = bench.job("echo ran >canary")
    argv = ("sh", str(next((bench.runs / ".bin").iterdir())), "start", str(bench.runs), job.run_id)
    for sizes in (("50", "0"), ("5000", "0"), ("50", "10")):
        process = subprocess.run(
            [*argv, *sizes, "0", "99999999"],
            input=b"workspace=/\ncwd='",
            capture_output=True,
            check=False,
        )
        assert process.stdout.startswith(b"refused bad_job")
    assert bench.state(job.run_id) is RunState.ABSENT


# --- the supervisor dies ---


def test_an_orphan_is_seen_followed_and_killed(bench: Bench) -> None:
    """Supervisor killed, command alive: orphan; its output goes on; a kill ends and seals it."""
    gate = bench.gate()
    job = bench.job("echo one; read x <gate; echo two; exec sleep 600")
    start = bench.start(job)
    expect(start.output, b"one\n")
    bench.kill_supervisor(job.run_id)
    assert bench.state(job.run_id) is RunState.ORPHAN
    gate.write_text("\n")
    expect(start.output, b"two\n")
    bench.workspace.kill(bench.place, job.run_id, KillMode.SHUTDOWN, "user")
    assert rest(start.output) == b""
    record = bench.record(job.run_id)
    assert (record.reason, record.code, record.detail) == ("user", None, "supervisor_died")
    assert record.stdout.size == 8
    assert record.stdout.sha256 == hashlib.sha256(b"one\ntwo\n").hexdigest()


def test_an_orphan_that_ends_is_lost(bench: Bench) -> None:
    """Supervisor killed, then the command ends: all output is there, the outcome is lost."""
    gate = bench.gate()
    job = bench.job("echo one; read x <gate; echo two")
    start = bench.start(job)
    expect(start.output, b"one\n")
    bench.kill_supervisor(job.run_id)
    gate.write_text("\n")
    assert rest(start.output) == b"two\n"
    assert start.output is not None
    assert start.output.status is not None
    assert start.output.status.state is RunState.LOST
    assert start.output.status.stdout_size == 8
    found = bench.workspace.kill(bench.place, job.run_id, KillMode.FORCE, "user")
    assert found.state is RunState.LOST


def test_a_zombie_supervisor_is_a_dead_one(bench: Bench) -> None:
    """Under a first process that reaps nothing, a killed supervisor stays a zombie and is dead."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        start = bench.start(job := bench.job("echo ready; exec sleep 600"))
        expect(start.output, b"ready\n")
        pid = bench.owner(job.run_id)
        with gone(pid):
            os.kill(pid, signal.SIGKILL)
        assert Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z"
        assert bench.state(job.run_id) is RunState.ORPHAN
        bench.workspace.kill(bench.place, job.run_id, KillMode.FORCE, "user")
        assert bench.record(job.run_id).reason == "user"
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0)
        for pid in zombies():
            os.waitpid(pid, 0)


def zombies() -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if fields[0] == "Z" and int(fields[1]) == os.getpid():
            found.append(int(entry.parent.name))
    return found


def test_limits_of_time_outlive_the_supervisor(bench: Bench) -> None:
    """An orphan is still ended by its run timeout, and the record says so."""
    job = bench.job("echo ready; exec sleep 600", run_timeout_s=1.0)
    start = bench.start(job)
    expect(start.output, b"ready\n")
    bench.kill_supervisor(job.run_id)
    rest(start.output)
    assert bench.record(job.run_id).reason == "run_timeout"


def test_runs_outlive_the_process_that_started_them(bench: Bench) -> None:
    """SIGKILL of our process and its group, PR_SET_PDEATHSIG set: the run goes on."""
    gate = bench.gate()
    job = bench.job("echo one; read x <gate; echo two")
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(bench.folder), str(bench.tools), job.run_id],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert starter.stdout
    assert starter.stdout.readline() == b"started\n"
    os.killpg(starter.pid, signal.SIGKILL)
    starter.communicate()
    output = bench.workspace.follow(bench.place, job.run_id, "merged")
    gate.write_text("\n")
    assert rest(output) == b"one\ntwo\n"
    assert output.status is not None
    assert output.status.exit is not None
    assert output.status.exit.code == 0


STARTER = """
import ctypes, os, pathlib, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
from common.adapters.workspace_local import LocalTransport
from common.domain.workspace import Job, Place
from common.services.supervision import SupervisedWorkspace
folder, tools, run_id = sys.argv[1:]
path = {"PATH": tools + ":" + os.environ["PATH"]}
workspace = SupervisedWorkspace(LocalTransport(pathlib.Path(folder) / "runs", path))
job = Job(run_id, ("sh", "-c", "echo one; read x <gate; echo two"))
start = workspace.start(Place("demo", folder + "/demo"), job)
start.output.read(100)
print("started", flush=True)
signal.pause()
"""


def test_an_idle_follower_ends_with_its_caller(bench: Bench) -> None:
    """When our process is killed, a follower that has nothing to say ends too."""
    job = bench.job("echo one; exec sleep 600")
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(bench.folder), str(bench.tools), job.run_id],
        stdout=subprocess.PIPE,
    )
    bench.gate()
    assert starter.stdout
    assert starter.stdout.readline() == b"started\n"
    children = Path(f"/proc/{starter.pid}/task/{starter.pid}/children")
    if not children.exists():
        pytest.skip("this kernel does not list children")
    follower = int(children.read_text().split()[0])
    with gone(follower):
        starter.kill()
        starter.communicate()


# --- kill ---


def test_a_grandchild_in_its_own_session_is_killed(bench: Bench) -> None:
    """What left the command's session dies by its mark, and is counted."""
    stray = "setsid sh -c 'echo up; exec sleep 600' & "
    start = bench.start(job := bench.job(stray + stray + "exec sleep 600"))
    expect(start.output, b"up\nup\n")
    bench.workspace.kill(bench.place, job.run_id, KillMode.GRACEFUL, "user")
    record = bench.record(job.run_id)
    assert (record.reason, record.signal, record.orphans) == ("user", 15, 2)
    settled(job.run_id)


@pytest.mark.skipif(not BUSYBOX, reason="there is no busybox here")
@pytest.mark.parametrize("missing", ["", "strings"])
def test_marks_are_found_with_a_grep_that_stops_at_nul(tmp_path: Path, missing: str) -> None:
    """With nothing but busybox, whose grep sees only one variable, strays are killed too."""
    bench = make_bench("busybox", tmp_path)
    if missing:
        (bench.tools / missing).unlink()
    bare = {"AAA": "1", "PATH": str(bench.tools), "ZZZ": "1"}
    bench.workspace = SupervisedWorkspace(Recording(bench.channels, tmp_path / "runs", bare))
    environment = {"AAAA": "1", "A_FIRST": "1", "ZZ_LAST": "1"}
    script = "setsid sh -c 'echo up; exec sleep 600' & exec sleep 600"
    start = bench.start(job := bench.job(script, env=environment))
    expect(start.output, b"up\n")
    bench.workspace.kill(bench.place, job.run_id, KillMode.FORCE, "user")
    assert bench.record(job.run_id).orphans == 1
    settled(job.run_id)
    close(bench)


def test_what_a_command_leaves_behind_is_killed_and_counted(bench: Bench) -> None:
    """A command that ends while its children live ends them too."""
    script = "sleep 600 & setsid sh -c 'trap \"\" TERM; echo deaf >up; exec sleep 600' & "
    _, record = bench.run(bench.job(script + "while [ ! -s up ]; do :; done; echo bye"))
    assert (record.reason, record.code, record.orphans) == ("exited", 0, 2)


def test_a_process_without_the_mark_cannot_hold_the_run(bench: Bench) -> None:
    """A child that wiped its environment and left its session survives, but the run ends."""
    data, record = bench.run(bench.job("env -i setsid sleep 20 & echo $!"))
    try:
        assert (record.reason, record.code) == ("exited", 0)
    finally:
        os.kill(int(data), signal.SIGKILL)


def test_claude_is_interrupted_first(bench: Bench) -> None:
    """With interrupt_first the command gets SIGINT and may end by itself, before any TERM."""
    job = Job(bench.job("").run_id, (sys.executable, "-c", ENDS_ON_INT))
    start = bench.start(job)
    expect(start.output, b"ready\n")
    bench.workspace.kill(bench.place, job.run_id, KillMode.GRACEFUL, "user", interrupt_first=True)
    assert rest(start.output) == b"int\n"
    record = bench.record(job.run_id)
    assert (record.reason, record.code, record.orphans) == ("user", 0, 0)


ENDS_ON_INT = """
import signal
signal.signal(signal.SIGTERM, lambda *_: print("term", flush=True))
try:
    print("ready", flush=True)
    signal.pause()
except KeyboardInterrupt:
    print("int", flush=True)
"""


def test_a_deaf_command_is_killed_in_the_end(bench: Bench) -> None:
    """TERM ignored, shutdown: KILL follows, and the code says so."""
    start = bench.start(job := bench.job("trap '' TERM; echo ready; exec sleep 600"))
    expect(start.output, b"ready\n")
    bench.workspace.kill(bench.place, job.run_id, KillMode.SHUTDOWN, "shutdown")
    record = bench.record(job.run_id)
    assert (record.reason, record.signal) == ("shutdown", 9)


def test_force_overtakes_a_graceful_kill(bench: Bench) -> None:
    """A second kill with force does not wait for the first one's grace; the first reason stays."""
    start = bench.start(job := bench.job("trap '' TERM; echo ready; exec sleep 600"))
    expect(start.output, b"ready\n")
    bench.workspace.kill(bench.place, job.run_id, KillMode.GRACEFUL, "user")
    bench.workspace.kill(bench.place, job.run_id, KillMode.FORCE, "shutdown")
    record = bench.record(job.run_id)
    assert (record.reason, record.signal) == ("user", 9)


@pytest.mark.parametrize(
    ("script", "limits", "reason"),
    [
        ("exec sleep 600", {"run_timeout_s": 0.3}, "run_timeout"),
        ("while :; do echo x; done", {"run_timeout_s": 0.3, "idle_timeout_s": 5.0}, "run_timeout"),
        ("echo x; exec sleep 600", {"idle_timeout_s": 0.3}, "idle_timeout"),
        ("setsid sleep 600; :", {"run_timeout_s": 60.0, "idle_timeout_s": 0.3}, "idle_timeout"),
    ],
)
def test_limits_of_time_end_a_run(
    bench: Bench, script: str, limits: dict[str, float], reason: str
) -> None:
    """A run that lasts or is silent too long is ended with that reason."""
    _, record = bench.run(bench.job(script, output_cap=1 << 20, **limits))
    assert record.reason == reason
    assert record.signal is not None


SESSION = "0190f3c2-a4b8-7c0e-9a5d-1f2e3c4b5a69"
ASKED = '{"message":{"role":"user","content":"x"}}\n'
ANSWERED = '{"message":{"role":"assistant","stop_reason":"end_turn"}}\n'


def claude_job(bench: Bench, script: str, before: str = "", **more: object) -> Job:
    """A job that keeps a transcript like claude's, as `$T`; `before` stands in it already."""
    config = bench.folder / "it's config"
    transcript = config / "projects" / "-a" / f"{SESSION}.jsonl"
    transcript.parent.mkdir(parents=True, exist_ok=True)
    transcript.write_text(before)
    env = {"CLAUDE_CONFIG_DIR": str(config), "T": str(transcript)}
    return bench.job(script, env=env, streams="separate", session=SESSION, **more)


def test_a_transcript_that_grows_is_a_sign_of_life(bench: Bench) -> None:
    """claude's stdout can be silent for long while it works, and stop although it works on."""
    grows = 'for n in 1 2 3 4 5 6; do echo "$n" >>"$T"; sleep 0.2; done'
    _, record = bench.run(claude_job(bench, grows, idle_timeout_s=0.6))
    assert (record.reason, record.code) == ("exited", 0)


def test_a_transcript_that_does_not_grow_is_none(bench: Bench) -> None:
    """Whatever stood in it before."""
    _, record = bench.run(claude_job(bench, "exec sleep 60", before=ASKED, idle_timeout_s=0.3))
    assert record.reason == "idle_timeout"


@pytest.mark.parametrize(
    ("before", "written", "printed", "detail"),
    [
        ("", ASKED + ANSWERED, "", "answer_in_transcript"),
        (ASKED + ANSWERED, ASKED + ANSWERED, "noise", "answer_in_transcript"),
        (ASKED + ANSWERED, ASKED, "", ""),  # the answer is the one before
        (ASKED + ANSWERED, "", "", ""),
        ("", ASKED + ANSWERED, '{"type":"result"}', ""),
        ("", "", "", ""),
    ],
)
def test_an_answer_that_was_never_printed_is_noticed(
    bench: Bench, before: str, written: str, printed: str, detail: str
) -> None:
    """claude's transcript has its last word, its stdout has no result."""
    script = f"printf %s '{written}' >>\"$T\"; echo '{printed}'"
    _, record = bench.run(claude_job(bench, script, before))
    assert (record.reason, record.code, record.detail) == ("exited", 0, detail)


def test_a_run_that_ends_in_time_leaves_no_watcher(bench: Bench) -> None:
    """Limits that were not reached leave nothing behind."""
    job = bench.job("echo x", run_timeout_s=3600.0, idle_timeout_s=3600.0)
    bench.run(job)
    settled(job.run_id)


# --- every byte ---


def test_bytes_of_every_value_pass(bench: Bench) -> None:
    """A megabyte of random bytes in, the same out, on both streams."""
    data = random.Random(1).randbytes(1 << 20)
    job = bench.job("tee /dev/fd/2", stdin=data, streams="separate")
    out, record = bench.run(job)
    assert out == data
    assert rest(bench.workspace.follow(bench.place, job.run_id, "stderr")) == data
    assert record.stderr.sha256 == record.stdout.sha256 == hashlib.sha256(data).hexdigest()


def test_many_followers_killed_make_one_whole(bench: Bench) -> None:
    """200 followers killed in the middle of numbered output: their bytes joined are the output."""
    generator = random.Random(2)
    job = bench.job("seq 1 1500000")
    output = bench.start(job).output
    assert output is not None
    data = bytearray()
    for _ in range(200):
        wanted = len(data) + generator.randrange(1, 50_000)
        while len(data) < wanted:
            more = output.read(generator.randrange(1, 65_536), PATIENCE_S)
            assert more
            data += more
        output.close()
        output = bench.workspace.follow(bench.place, job.run_id, "merged", len(data))
    data += rest(output)
    expected = subprocess.run(["seq", "1", "1500000"], capture_output=True, check=True).stdout
    assert bytes(data) == expected
    settled(job.run_id)


def test_a_stuck_follower_is_replaced(bench: Bench) -> None:
    """A follower whose reader does not read blocks nobody: the next one kills it and has it all."""
    job = bench.job("seq 1 400000")
    stuck = bench.start(job).output
    expected = subprocess.run(["seq", "1", "400000"], capture_output=True, check=True).stdout
    assert rest(bench.workspace.follow(bench.place, job.run_id, "merged")) == expected
    assert stuck is not None
    stuck.close()
    settled(job.run_id)


def test_a_cap_neither_blocks_nor_kills_the_command(bench: Bench) -> None:
    """Ten megabytes into a cap of one: the command ends by itself and reports its own size."""
    job = bench.job("head -c 10000000 /dev/zero && echo all >proof", output_cap=1_000_000)
    data, record = bench.run(job)
    assert len(data) == record.stdout.size == 1_000_000 // 512 * 512
    assert (record.code, record.stdout.truncated) == (0, "cap")
    assert (bench.directory / "proof").exists()


def test_an_offset_beyond_a_live_end_is_said(bench: Bench) -> None:
    """Following from bytes that do not exist yet is an error, not a wait."""
    start = bench.start(job := bench.job("echo x; exec sleep 600"))
    expect(start.output, b"x\n")
    with pytest.raises(OffsetBeyondEnd) as raised:
        bench.workspace.follow(bench.place, job.run_id, "merged", 3).read(1, PATIENCE_S)
    assert raised.value.end == 2


def test_gc_ends_the_followers_of_what_it_removes(bench: Bench) -> None:
    """A follower that is stuck on a removed run is killed with it."""
    job = bench.job("seq 1 400000")
    stuck = bench.start(job).output
    bench.record(job.run_id)
    again = bench.workspace.follow(bench.place, job.run_id, "merged")
    assert again.read(1, PATIENCE_S)
    assert bench.workspace.gc(bench.place, 0) == 1
    settled(job.run_id)
    assert stuck is not None
    stuck.close()
    again.close()


def test_output_that_nobody_follows_is_kept(bench: Bench) -> None:
    """A run whose starter closed at once has all of its output for who comes later."""
    start = bench.start(job := bench.job("seq 1 100000"))
    assert start.output is not None
    start.output.close()
    data = rest(bench.workspace.follow(bench.place, job.run_id, "merged"))
    assert data == subprocess.run(["seq", "1", "100000"], capture_output=True, check=True).stdout
