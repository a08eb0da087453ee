"""A Workspace in dicts and threads, for the tests of services: same port, same contract tests.

A command is a Python function that gets a `Process` (write, read, wait, be killed). Nothing here
knows time: a test lets a function wait for an event, expires a run, loses a wire or kills a
supervisor, and says when.
"""

from __future__ import annotations

import hashlib
import posixpath
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from common.domain.workspace import (
    Argument,
    ExitRecord,
    Job,
    KillMode,
    OffsetBeyondEnd,
    Place,
    RunAbsent,
    RunState,
    RunStatus,
    Stream,
    StreamTotal,
    Superseded,
    TransportLost,
    check_reason,
    check_run_id,
)
from common.ports.workspace import Output, Start

_BLOCK = 512  # the supervisor's cap counts these


class Signalled(BaseException):
    """Raised inside a program that is being killed. Catch it to be a program that resists."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


class When(Enum):
    """Where a planned failure strikes: before the workspace heard of it, or after it was done."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(eq=False)
class _Run:
    job: Job
    state: RunState
    exit: ExitRecord | None = None
    spools: dict[str, bytearray] = field(
        default_factory=lambda: {"out": bytearray(), "err": bytearray()}
    )
    cut: set[str] = field(default_factory=set)
    followers: dict[str, object] = field(default_factory=dict)
    input: bytearray = field(default_factory=bytearray)
    pieces: dict[int, bytes] = field(default_factory=dict)
    input_ended: bool = False
    why: str | None = None
    signals: list[int] = field(default_factory=list)


Program = Callable[["Process"], int]


class Process:
    """The inside of a run, for the program. Its methods raise Signalled when the run is killed."""

    def __init__(self, run: _Run, changed: threading.Condition) -> None:
        self._run = run
        self._changed = changed
        self._read = 0
        self.job = run.job

    def write(self, data: bytes, stream: str = "stdout") -> None:
        """Output; what exceeds the job's cap is dropped, as the supervisor drops it."""
        with self._changed:
            self._heed()
            name = "err" if stream == "stderr" and self.job.streams == "separate" else "out"
            cap = max(1, self.job.output_cap // _BLOCK) * _BLOCK
            spool = self._run.spools[name]
            kept = data[: cap - len(spool)]
            spool += kept
            if len(kept) < len(data):
                self._run.cut.add(name)
            self._changed.notify_all()

    def read(self) -> bytes:
        """The next input there is, waiting for it; b"" at its end."""
        with self._changed:
            while True:
                self._heed()
                data = bytes(self._run.input[self._read :])
                if data or self._run.input_ended:
                    self._read += len(data)
                    return data
                self._changed.wait()

    def wait(self, event: threading.Event) -> None:
        """Wait for the test to set the event (through `MemoryWorkspace.set`)."""
        with self._changed:
            while not event.is_set():
                self._heed()
                self._changed.wait()
            self._heed()

    def _heed(self) -> None:
        if self._run.state is RunState.DONE:
            raise Signalled(9)
        if self._run.signals:
            raise Signalled(self._run.signals.pop(0))


class MemoryWorkspace:
    """Every run of every place. Programs are found by the whole argv; unknown ones exit 0."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._programs: dict[tuple[Argument, ...], Program] = {}
        self._runs: dict[tuple[str, str], _Run] = {}
        self._directories: dict[str, set[str]] = {}
        self._failures: list[tuple[str, When, Exception]] = []
        self._broken_wires = 0
        self.threads: list[threading.Thread] = []

    # What a test plans.

    def on(self, argv: Sequence[Argument], program: Program) -> None:
        """From now on, this argv is that program."""
        self._programs[tuple(argv)] = program

    def mkdir(self, place: Place, path: str) -> None:
        """A directory of the workspace that jobs may name as cwd (`.` always exists)."""
        self._directories.setdefault(place.path, set()).add(posixpath.normpath(path))

    def set(self, event: threading.Event) -> None:
        """Set an event that programs wait for."""
        with self._changed:
            event.set()
            self._changed.notify_all()

    def fail(self, method: str, error: Exception, when: When = When.BEFORE) -> None:
        """The next call of `method` fails; AFTER is the ambiguous kind: done, the answer lost."""
        self._failures.append((method, when, error))

    def lose_wires(self) -> None:
        """Every output that is open now breaks with TransportLost."""
        with self._changed:
            self._broken_wires += 1
            self._changed.notify_all()

    def expire(self, place: Place, run_id: str, reason: str) -> None:
        """The supervisor's own limit strikes: `run_timeout` or `idle_timeout`."""
        self.kill(place, run_id, KillMode.GRACEFUL, reason)

    def kill_supervisor(self, place: Place, run_id: str, *, command_lives: bool) -> None:
        """The run's supervisor dies; its command may live on as an orphan."""
        with self._changed:
            run = self._runs[place.path, run_id]
            run.state = RunState.ORPHAN if command_lives else RunState.LOST
            self._changed.notify_all()

    # The port.

    def start(self, place: Place, job: Job) -> Start:
        """See `Workspace.start`."""
        self._strike("start", When.BEFORE)
        with self._changed:
            run = self._runs.get((place.path, job.run_id))
            if run is not None:
                answer = Start(False, self._status(run))
            else:
                run = _Run(job, RunState.RUNNING, input=bytearray(job.stdin))
                run.input_ended = not job.input_open
                self._runs[place.path, job.run_id] = run
                detail = self._cwd_error(place, job)
                if detail:
                    self._end(run, "start_failed", None, detail)
                output = _Reading(self, run, "out", 0)
                answer = Start(True, self._status(run), output)
                self._launch(run)
        self._strike("start", When.AFTER)
        return answer

    def follow(self, place: Place, run_id: str, stream: Stream, offset: int = 0) -> Output:
        """See `Workspace.follow`."""
        self._strike("follow", When.BEFORE)
        with self._changed:
            run = self._runs.get((place.path, check_run_id(run_id)))
            if run is None:
                raise RunAbsent(run_id)
            name = "err" if stream == "stderr" else "out"
            if offset > len(run.spools[name]):
                raise OffsetBeyondEnd(len(run.spools[name]))
            return _Reading(self, run, name, offset)

    def status(self, place: Place, run_id: str) -> RunStatus:
        """See `Workspace.status`."""
        self._strike("status", When.BEFORE)
        with self._changed:
            run = self._runs.get((place.path, check_run_id(run_id)))
            return RunStatus(RunState.ABSENT) if run is None else self._status(run)

    def kill(
        self,
        place: Place,
        run_id: str,
        mode: KillMode,
        reason: str,
        *,
        interrupt_first: bool = False,
    ) -> RunStatus:
        """See `Workspace.kill`. A program that resists is left to a later `force`: no time here."""
        self._strike("kill", When.BEFORE)
        check_reason(reason)
        with self._changed:
            run = self._runs.get((place.path, check_run_id(run_id)))
            if run is None:
                return RunStatus(RunState.ABSENT)
            found = self._status(run)
            if run.state in {RunState.STARTING, RunState.RUNNING, RunState.ORPHAN}:
                run.why = run.why or reason
                self._signal(run, mode, interrupt_first)
        self._strike("kill", When.AFTER)
        return found

    def refuse(self, place: Place, run_id: str) -> bool:
        """See `Workspace.refuse`."""
        self._strike("refuse", When.BEFORE)
        with self._changed:
            job = Job(check_run_id(run_id), ("true",))
            run = self._runs.setdefault((place.path, run_id), _Run(job, RunState.REFUSED))
            won = run.state is RunState.REFUSED
        self._strike("refuse", When.AFTER)
        return won

    def send(
        self, place: Place, run_id: str, offset: int, data: bytes, *, last: bool = False
    ) -> int:
        """See `Workspace.send`."""
        self._strike("send", When.BEFORE)
        with self._changed:
            run = self._runs.get((place.path, check_run_id(run_id)))
            if run is None or not run.job.input_open:
                raise RunAbsent(run_id)
            end = len(run.input)
            repeated = bool(data) and run.pieces.get(offset) == data
            if not repeated and (offset != end or (run.input_ended and data)):
                raise OffsetBeyondEnd(end)
            if not repeated and data:
                run.pieces[offset] = data
                run.input += data
            run.input_ended = run.input_ended or last
            self._changed.notify_all()
            end = len(run.input)
        self._strike("send", When.AFTER)
        return end

    def verify(self, place: Place) -> None:
        """See `Workspace.verify`: this one has one life."""

    def gc(self, place: Place, older_than_s: int) -> int:
        """See `Workspace.gc`. Nothing grows old here: only 0 finds something to remove."""
        self._strike("gc", When.BEFORE)
        ended = {RunState.DONE, RunState.LOST, RunState.REFUSED}
        with self._changed:
            old = [
                key
                for key, run in self._runs.items()
                if key[0] == place.path and run.state in ended and older_than_s == 0
            ]
            for key in old:
                del self._runs[key]
            return len(old)

    def _strike(self, method: str, when: When) -> None:
        for failure in self._failures:
            if failure[:2] == (method, when):
                self._failures.remove(failure)
                raise failure[2]

    def _cwd_error(self, place: Place, job: Job) -> str:
        path = posixpath.normpath(posixpath.join(place.path, job.cwd))
        relative = posixpath.relpath(path, place.path)
        if relative == ".":
            return ""
        if relative.startswith(".."):
            return "cwd_outside"
        return "" if relative in self._directories.get(place.path, ()) else "cwd_missing"

    def _launch(self, run: _Run) -> None:
        if run.state is not RunState.RUNNING:
            return
        program = self._programs.get(run.job.argv, lambda _: 0)
        thread = threading.Thread(target=self._execute, args=(run, program), daemon=True)
        self.threads.append(thread)
        thread.start()

    def _execute(self, run: _Run, program: Program) -> None:
        try:
            code = program(Process(run, self._changed))
        except Signalled as signalled:
            code = 128 + signalled.number
        with self._changed:
            if run.state is RunState.ORPHAN:
                # Nobody was there to see the exit code; a kill still leaves a record.
                if run.why:
                    self._end(run, run.why, None, "supervisor_died")
                else:
                    run.state = RunState.LOST
            elif run.state is RunState.RUNNING:
                self._end(run, run.why or "exited", code, "")
            self._changed.notify_all()

    def _signal(self, run: _Run, mode: KillMode, interrupt_first: bool) -> None:
        if mode is KillMode.FORCE:
            code, detail = (137, "") if run.state is RunState.RUNNING else (None, "supervisor_died")
            self._end(run, run.why or "killed", code, detail)
        else:
            run.signals.append(2 if interrupt_first and mode is KillMode.GRACEFUL else 15)
        self._changed.notify_all()

    def _end(self, run: _Run, reason: str, code: int | None, detail: str) -> None:
        signal = code - 128 if code is not None and 128 < code <= 192 else None
        stdout, stderr = self._total(run, "out"), self._total(run, "err")
        run.exit = ExitRecord(reason, code, signal, stdout, stderr, detail=detail)
        run.state = RunState.DONE

    def _total(self, run: _Run, name: str) -> StreamTotal:
        data = bytes(run.spools[name])
        cut = "cap" if name in run.cut else ""
        return StreamTotal(len(data), hashlib.sha256(data).hexdigest(), cut)

    def _status(self, run: _Run) -> RunStatus:
        return RunStatus(run.state, run.exit, len(run.spools["out"]), len(run.spools["err"]))


class _Reading:
    """One follower of one spool."""

    def __init__(self, workspace: MemoryWorkspace, run: _Run, name: str, offset: int) -> None:
        self._workspace = workspace
        self._changed = workspace._changed
        self._run = run
        self._name = name
        self._offset = offset
        self._wires = workspace._broken_wires
        self._closed = False
        self.status: RunStatus | None = None
        run.followers[name] = self
        self._changed.notify_all()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes | None:
        with self._changed:
            if self.status is not None:
                return b""
            if not self._changed.wait_for(self._has_news, timeout):
                return None
            if self._closed or self._wires != self._workspace._broken_wires:
                raise TransportLost("the wire of this output broke")
            if self._run.followers.get(self._name) is not self:
                raise Superseded("another follower reads this stream")
            data = bytes(self._run.spools[self._name][self._offset : self._offset + max_bytes])
            self._offset += len(data)
            if not data:
                self.status = self._workspace._status(self._run)
            return data

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _has_news(self) -> bool:
        return (
            self._closed
            or self._wires != self._workspace._broken_wires
            or self._run.followers.get(self._name) is not self
            or self._offset < len(self._run.spools[self._name])
            or self._run.state in {RunState.DONE, RunState.LOST, RunState.REFUSED}
        )
