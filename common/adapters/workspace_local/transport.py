"""Transport over processes of this machine: the workspace is the directory `Place.path`.

What is started here is only the caller's end of the wire. It gets a session of its own, so that a
Ctrl-C in the terminal does not reach it, and it dies with the channel; the supervisor it starts has
left that session by then. Run directories live under rdev's own state directory, never in the
project's: `git status` would list them there and `git clean -fdx` would destroy a live run.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from common.domain.workspace import Place, TransportLost, WorkspaceUnreachable

_STDERR_KEPT: Final = 64 * 1024
# Four times the default: bulk output then needs a quarter of the switches between the processes.
_PIPE_BYTES: Final = 256 * 1024
# Ours, not for the programs of a workspace; what a command inherits is the supervisor's business.
_OURS: Final = ("RDEV_", "FUNCTION_", "OTEL_", "PG")


class LocalTransport:
    """Opens channels to directories of this machine; `runs` holds one directory per project."""

    def __init__(self, runs: Path, environment: Mapping[str, str] | None = None) -> None:
        self._runs = runs.absolute()
        self._environment = dict(_workspace_environment() if environment is None else environment)

    def runs(self, place: Place) -> str:
        """See `Transport.runs`."""
        return str(self._runs / place.project)

    def verify(self, place: Place) -> None:
        """See `Transport.verify`: a directory has one life, and the supervisor looks at it."""

    def open(self, place: Place, argv: Sequence[str], stdin: bytes = b"") -> LocalChannel:
        """See `Transport.open`. The directory itself is the supervisor's to check."""
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd="/",
                env=self._environment,
                start_new_session=True,
            )
        except OSError as error:
            raise WorkspaceUnreachable(f"{place.project}: {error}") from error
        return LocalChannel(process, stdin)


class LocalChannel:
    """The pipes of one process, as a Channel. Its stdin stays open, as it does on other wires."""

    def __init__(self, process: subprocess.Popen[bytes], stdin: bytes) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self._unsent = memoryview(stdin)
        self._said = bytearray()
        self._finished = False
        self._closed = threading.Event()
        self._reading = threading.Lock()
        self._waker, self._wake = os.pipe()
        self._poll = select.poll()
        for stream in (self._stdin, self._stdout, self._stderr):
            os.set_blocking(stream.fileno(), False)
        with contextlib.suppress(OSError):  # a user has a quota of pipe memory; 64 KiB work too
            fcntl.fcntl(self._stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._poll.register(self._stdout, select.POLLIN)
        self._poll.register(self._stderr, select.POLLIN)
        self._poll.register(self._waker, select.POLLIN)
        if self._unsent:
            self._poll.register(self._stdin, select.POLLOUT)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes | None:
        """See `Channel.read`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._reading:
            while not self._finished:
                self._check_open()
                ready = dict(self._poll.poll(_milliseconds_until(deadline)))
                self._check_open()
                if self._stdin.fileno() in ready:
                    self._send()
                if self._stderr.fileno() in ready:
                    self._listen()
                if self._stdout.fileno() in ready:
                    data = os.read(self._stdout.fileno(), max_bytes)
                    if data:
                        return data
                    self._finish()
                elif not ready and deadline is not None and time.monotonic() >= deadline:
                    return None
            return b""

    def result(self, timeout: float | None = None) -> int:
        """See `Channel.result`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            data = self.read(1024 * 1024, left)
            if data is None:
                raise TimeoutError
            if not data:
                return self._process.returncode

    @property
    def stderr(self) -> bytes:
        """See `Channel.stderr`."""
        return bytes(self._said)

    def close(self) -> None:
        """See `Channel.close`."""
        if self._closed.is_set():
            return
        self._closed.set()
        os.write(self._wake, b"x")
        with self._reading:
            self._end_process()
            for stream in (self._stdin, self._stdout, self._stderr):
                stream.close()
            os.close(self._waker)
            os.close(self._wake)

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise TransportLost("the channel was closed here")

    def _send(self) -> None:
        try:
            sent = os.write(self._stdin.fileno(), self._unsent[:65536])
            self._unsent = self._unsent[sent:]
        except BlockingIOError:
            return
        except BrokenPipeError:  # the far side took what it wanted; its answer says what came of it
            self._unsent = memoryview(b"")
        if not self._unsent:
            self._poll.unregister(self._stdin)

    def _listen(self) -> None:
        try:
            data = os.read(self._stderr.fileno(), 65536)
        except BlockingIOError:
            return
        if not data:
            self._poll.unregister(self._stderr)
            return
        self._said += data
        del self._said[:-_STDERR_KEPT]

    def _finish(self) -> None:
        """stdout has ended: so has the process, or it is about to."""
        self._process.wait()
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._stderr.fileno(), 65536):
                self._said += data
        del self._said[:-_STDERR_KEPT]
        if self._process.returncode < 0:
            raise TransportLost(f"the channel's process died of signal {-self._process.returncode}")
        self._finished = True

    def _end_process(self) -> None:
        """Our end of the wire and what it waits on: its process group is only that."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _milliseconds_until(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, (deadline - time.monotonic()) * 1000)


def _workspace_environment() -> dict[str, str]:
    """Our environment without what is ours alone: addresses, keys, how to export telemetry."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
