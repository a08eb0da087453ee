"""Starts one process of a function and tells when it ended.

A launcher is either `SpawnLauncher` (a new interpreter each time, on every system) or the zygote's
(a fork of one that has imported everything; `zygote.py`). Both tie the process to our own life.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from infra.local import lifeline

LOG_MAX_BYTES = 8 * 1024 * 1024


class Running(Protocol):
    """A started process."""

    pid: int
    exited: asyncio.Future[int]  # the exit status; -N when signal N ended it

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; does nothing once the process has ended."""


class Launcher(Protocol):
    """A way to start processes."""

    cheap: bool  # starting costs so little that nothing needs to be kept for the next tick

    async def close(self) -> None:
        """End what the launcher itself keeps running."""

    async def launch(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> Running: ...


class SpawnLauncher:
    """Starts each process as a new interpreter."""

    cheap = False

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def close(self) -> None:
        """Nothing is kept running."""

    async def launch(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> Running:
        process = _spawn(interpreted(command), self._directory, environment, log)
        lifeline.watch(process.pid, signal.SIGKILL)
        return _Spawned(process)


def _spawn(
    command: Sequence[str], directory: Path, environment: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes]:
    """Start a process; a millisecond or two, so the event loop can wait for it."""
    rotate(log)
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for `rdev up`, which drains functions itself
            preexec_fn=lifeline.before_exec(signal.SIGKILL),  # noqa: PLW1509 - one bound C call
        )


class _Spawned:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._process = process
        if hasattr(os, "pidfd_open"):
            watch_pid(process.pid, self._ended)
        else:
            loop = asyncio.get_running_loop()
            threading.Thread(target=self._wait, args=(loop,), daemon=True).start()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        self._process.wait()
        loop.call_soon_threadsafe(self._ended)

    def _ended(self) -> None:
        status = self._process.wait()
        lifeline.unwatch(self.pid)
        if not self.exited.done():
            self.exited.set_result(status)


def watch_pid(pid: int, ended: Callable[[], None]) -> None:
    """Call `ended` once, on the event loop, when the process ends (Linux 5.3)."""
    loop = asyncio.get_running_loop()
    descriptor = os.pidfd_open(pid)

    def readable() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        ended()

    loop.add_reader(descriptor, readable)


def interpreted(command: Sequence[str]) -> list[str]:
    """Run with this very interpreter what the image runs with its `python`."""
    first, *rest = command
    return [sys.executable if first in {"python", "python3"} else first, *rest]


def how_it_ended(status: int) -> str:
    """Say what an exit status means."""
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"exited with status {status}"


def rotate(log: Path) -> None:
    """Keep one older generation of a log that has grown too long."""
    if log.exists() and log.stat().st_size > LOG_MAX_BYTES:
        log.replace(log.with_suffix(".log.1"))


def size(log: Path) -> int:
    """Return how long a log is now, for a later `last_line`."""
    return log.stat().st_size if log.exists() else 0


def last_line(log: Path, since: int = 0) -> str:
    """Return the last line written after `since`, which is where Python says why it ended."""
    if size(log) <= since:
        return ""
    with log.open("rb") as file:
        file.seek(max(since, size(log) - 4096))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""
