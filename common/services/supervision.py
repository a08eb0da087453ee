"""The Workspace over any Transport: speaks the verbs of `supervisor.sh`.

A warm call costs one exec: see `delivery.py` for how the script gets there.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn

from common.domain.workspace import (
    Argument,
    ExitRecord,
    Job,
    KillMode,
    OffsetBeyondEnd,
    Place,
    PrivateFile,
    RunAbsent,
    RunState,
    RunStatus,
    StartRefused,
    Stream,
    StreamTotal,
    Superseded,
    TransportLost,
    WorkspaceBroken,
    check_reason,
    check_run_id,
)
from common.ports.transport import Channel, Transport
from common.ports.workspace import Output, Start
from common.services.delivery import UNDELIVERED, Script, exit_code, first_line

SCRIPT: Final = Path(__file__).with_name("supervisor.sh")
_ANSWERED, _BAD_OFFSET, _NO_RUN, _SUPERSEDED = 0, 65, 66, 75
_BASE_ENVIRONMENT: Final = ("HOME", "USER", "PATH", "LANG", "TERM", "TMPDIR")
_KIB: Final = 1024


class SupervisedWorkspace:
    """Runs commands detached, through a transport.

    `min_free` bytes must be free on the spools' disk, and the spools together must use at most
    `budget` bytes (as counted by the last `gc`), or a start is refused with `no_space`.
    """

    def __init__(
        self, transport: Transport, *, min_free: int = 64 * 1024**2, budget: int = 16 * 1024**3
    ) -> None:
        self._transport = transport
        self._limits = (str(min_free // _KIB), str(budget // _KIB))
        self._script = Script(transport, SCRIPT)

    def start(self, place: Place, job: Job) -> Start:
        """See `Workspace.start`."""
        self._transport.verify(place)
        text = job_text(place, job)
        sizes = (str(len(text)), str(len(job.stdin)))
        arguments = ("start", job.run_id, *sizes, *self._limits)

        start = self._try_start(place, arguments, text + job.stdin)
        if start is None:
            self._deliver_for_start(place)
            start = self._try_start(place, arguments, text + job.stdin)
        if start is None:
            raise WorkspaceBroken("the supervisor was delivered and is not there")
        return start

    def follow(self, place: Place, run_id: str, stream: Stream, offset: int = 0) -> Output:
        """See `Workspace.follow`."""
        check_run_id(run_id)

        def again() -> Channel:
            self._script.deliver(place)
            return self._script.open(place, arguments)

        arguments = ("follow", run_id, stream, str(offset))
        return _Following(self._script.open(place, arguments), b"", offset, stream, again)

    def status(self, place: Place, run_id: str) -> RunStatus:
        """See `Workspace.status`."""
        return parse_status(self._answer(place, ("status", check_run_id(run_id))))

    def kill(
        self,
        place: Place,
        run_id: str,
        mode: KillMode,
        reason: str,
        *,
        interrupt_first: bool = False,
    ) -> RunStatus:
        """See `Workspace.kill`."""
        arguments = (check_run_id(run_id), mode.value, check_reason(reason))
        return parse_status(self._answer(place, ("kill", *arguments, _flag(interrupt_first))))

    def refuse(self, place: Place, run_id: str) -> bool:
        """See `Workspace.refuse`."""
        answer = self._answer(place, ("refuse", check_run_id(run_id)))
        return parse_status(answer).state is RunState.REFUSED

    def send(
        self, place: Place, run_id: str, offset: int, data: bytes, *, last: bool = False
    ) -> int:
        """See `Workspace.send`."""
        more = "last" if last else "more"
        arguments = ("send", check_run_id(run_id), str(offset), str(len(data)), more)
        return _number(self._answer(place, arguments, data), "end")

    def verify(self, place: Place) -> None:
        """See `Workspace.verify`."""
        self._transport.verify(place)

    def gc(self, place: Place, older_than_s: int) -> int:
        """See `Workspace.gc`."""
        return _number(self._answer(place, ("gc", "-", str(older_than_s))), "removed")

    def _try_start(self, place: Place, arguments: Sequence[str], stdin: bytes) -> Start | None:
        """One attempt; None when the script is not there yet."""
        channel = self._script.open(place, arguments, stdin)
        followed = False
        try:
            line, rest = first_line(channel)
            if not line and exit_code(channel) == UNDELIVERED:
                return None
            verdict, _, found = _text(line).partition(" ")
            if verdict != "won" or not found.startswith("running "):
                return _not_followed(verdict, found, channel)
            status = parse_status(found)
            followed = True
            return Start(True, status, _Following(channel, rest, 0, "merged", None))
        finally:
            if not followed:
                channel.close()

    def _answer(self, place: Place, arguments: Sequence[str], stdin: bytes = b"") -> str:
        """The one line a verb answers with."""
        line, code, said = self._script.ask(place, arguments, _one_line, stdin)
        if code == _NO_RUN:
            raise RunAbsent(arguments[1])
        if code == _BAD_OFFSET:
            raise OffsetBeyondEnd(_number(line, "end"))
        if code != _ANSWERED or not line:
            _broken(code, line, said)
        return line

    def _deliver_for_start(self, place: Place) -> None:
        try:
            self._script.deliver(place)
        except WorkspaceBroken as error:
            full = "no space" in str(error).lower()
            raise StartRefused("no_space" if full else "read_only", str(error)) from error


class _Following:
    """The output of one channel, with the status that comes after the last byte."""

    def __init__(
        self,
        channel: Channel,
        first: bytes,
        offset: int,
        stream: Stream,
        again: Callable[[], Channel] | None,
    ) -> None:
        self._channel = channel
        self._first = first
        self._end = offset
        self._stream = stream
        self._again = again
        self._status: RunStatus | None = None

    @property
    def status(self) -> RunStatus | None:
        return self._status

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes | None:
        if self._status is not None:
            return b""
        if self._first:
            data: bytes | None = self._first[:max_bytes]
            self._first = self._first[max_bytes:]
        else:
            data = self._next(max_bytes, timeout)
        if data == b"":
            return self._ended(max_bytes, timeout)
        self._end += len(data or b"")
        return data

    def close(self) -> None:
        self._channel.close()

    def _next(self, max_bytes: int, timeout: float | None) -> bytes | None:
        try:
            return self._channel.read(max_bytes, timeout)
        except TransportLost:
            self._channel.close()
            raise

    def _ended(self, max_bytes: int, timeout: float | None) -> bytes | None:
        """The channel ended by itself: b"" when the run did, an error for every other cause."""
        try:
            code = exit_code(self._channel)
            said = self._channel.stderr
        finally:
            self._channel.close()
        if code == UNDELIVERED and self._again is not None:
            self._channel, self._again = self._again(), None
            return self.read(max_bytes, timeout)
        if code == _SUPERSEDED:
            raise Superseded("another follower reads this stream")
        if code == _NO_RUN:
            raise RunAbsent("the workspace has no such run")
        if code == _BAD_OFFSET:
            raise OffsetBeyondEnd(_number(_last_word(said), "end"))
        if code != _ANSWERED:
            _broken(code, "", said)
        status = parse_status(_last_word(said))
        # A wire can end in good order and early (kubernetes#124571): the bytes must be all there.
        if status.exit is not None and self._end < _total(status.exit, self._stream).size:
            raise TransportLost(f"the output ended early, at byte {self._end}")
        self._status = status
        return b""


class _Ended:
    """The output of a run that ended before its command was launched."""

    def __init__(self, status: RunStatus) -> None:
        self.status: RunStatus | None = status

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes | None:
        del max_bytes, timeout
        return b""

    def close(self) -> None:
        return


def job_text(place: Place, job: Job) -> bytes:
    """The job as whole lines of shell: variables, which to keep, and how to become the command."""
    exports = [f"export {name}={shlex.quote(value)}" for name, value in job.env.items()]
    files = [a.text for a in job.argv if isinstance(a, PrivateFile)]
    keeps = "|".join((*_BASE_ENVIRONMENT, *job.inherit))
    lines = [
        f"workspace={shlex.quote(place.path)}",
        f"cwd={shlex.quote(job.cwd)}",
        f"streams={job.streams}",
        f"input={'open' if job.input_open else 'closed'}",
        f"blocks={max(1, job.output_cap // 512)}",
        f"run_cs={_centiseconds(job.run_timeout_s)}",
        f"idle_cs={_centiseconds(job.idle_timeout_s)}",
        f"interrupt={_flag(job.interrupt_first)}",
        f"session={job.session or ''}",
        f"claude_config={_claude_config(job)}",
        f"job_keeps() {{ case $1 in {keeps}) return 0 ;; esac; return 1; }}",
        "job_files() {",
        *(f'printf %s {shlex.quote(t)} >"$1/private.{n}" || return 1' for n, t in enumerate(files)),
        "return 0",
        "}",
        "job_exec() {",
        *exports,
        'export RDEV_COMMAND_ID="$2;"',
        f'exec "$1" -- {_words(job.argv)}',
        "}",
    ]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def _claude_config(job: Job) -> str:
    """Where claude keeps its transcripts, as a word of shell."""
    own = job.env.get("CLAUDE_CONFIG_DIR")
    return shlex.quote(own) if own else "${CLAUDE_CONFIG_DIR:-${HOME-}/.claude}"


def _words(argv: Sequence[Argument]) -> str:
    """The arguments as words of shell; `$3` is the run's directory."""
    numbers = itertools.count()
    return " ".join(
        f'"$3/private.{next(numbers)}"' if isinstance(word, PrivateFile) else shlex.quote(word)
        for word in argv
    )


def parse_status(answer: str) -> RunStatus:
    """`running out=3 err=0`, or `done` and an exit record. Raises WorkspaceBroken."""
    word, _, rest = answer.partition(" ")
    try:
        state = RunState(word)
        fields = dict(pair.split("=", 1) for pair in rest.split())
        if state is not RunState.DONE:
            return RunStatus(state, None, int(fields.get("out", 0)), int(fields.get("err", 0)))
        record = _exit_record(fields)
    except (KeyError, ValueError) as error:
        raise WorkspaceBroken(f"not an answer of the supervisor: {answer[:200]!r}") from error
    return RunStatus(state, record, record.stdout.size, record.stderr.size)


def _exit_record(fields: dict[str, str]) -> ExitRecord:
    code = None if fields["code"] == "-" else int(fields["code"])
    return ExitRecord(
        reason=fields["reason"],
        code=code,
        # 128 + n is how a shell says "killed by signal n"; signals go up to 64.
        signal=code - 128 if code is not None and 128 < code <= 192 else None,
        stdout=_stream_total(fields, "out"),
        stderr=_stream_total(fields, "err"),
        orphans=int(fields["orphans"]),
        elapsed_ms=int(fields["elapsed_ms"]),
        ended_at=int(fields["ended"]),
        detail=_absent_dash(fields["detail"]),
    )


def _stream_total(fields: dict[str, str], name: str) -> StreamTotal:
    return StreamTotal(
        size=int(fields[name]),
        sha256=_absent_dash(fields[f"{name}_sha"]),
        truncated=_absent_dash(fields[f"{name}_cut"]),
    )


def _absent_dash(value: str) -> str:
    return "" if value == "-" else value


def _total(record: ExitRecord, stream: Stream) -> StreamTotal:
    return record.stderr if stream == "stderr" else record.stdout


def _not_followed(verdict: str, found: str, channel: Channel) -> Start:
    """What a start came to when there is nothing to follow."""
    if verdict == "refused":
        code, _, detail = found.partition(" ")
        raise StartRefused(code, detail)
    if verdict == "exists":
        return Start(False, parse_status(found))
    if verdict != "won":
        _broken(exit_code(channel), f"{verdict} {found}", channel.stderr)
    status = parse_status(found)
    if status.state is RunState.REFUSED:
        return Start(False, status)
    return Start(True, status, _Ended(status))


def _one_line(channel: Channel) -> str:
    return _text(first_line(channel)[0])


def _last_word(stderr: bytes) -> str:
    """The supervisor's last line on stderr. Without one the wire ended early."""
    lines = [line for line in stderr.splitlines() if line.startswith(b"rdev: ")]
    if not lines:
        raise TransportLost("the channel ended without the run's status")
    return _text(lines[-1].removeprefix(b"rdev: "))


def _number(answer: str, word: str) -> int:
    head, _, number = answer.partition(" ")
    if head != word or not number.isdecimal():
        raise WorkspaceBroken(f"not an answer of the supervisor: {answer[:200]!r}")
    return int(number)


def _broken(code: int, answer: str, stderr: bytes) -> NoReturn:
    said = stderr[-500:].decode("utf-8", "replace").strip()
    raise WorkspaceBroken(f"exit code {code}, answer {answer[:200]!r}: {said}")


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")


def _flag(value: bool) -> str:
    return "1" if value else "0"


def _centiseconds(seconds: float | None) -> int:
    return 0 if seconds is None else max(1, round(seconds * 100))
