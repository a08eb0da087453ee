"""One process of one function, from the choice of its port to its end."""

import asyncio
import logging
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from infra.local.manifests import FunctionSpec
from infra.local.process import Launcher, Running, how_it_ended, last_line, size
from infra.local.wire import ClientPool, Headers, PeerGoneError, complete_body

log = logging.getLogger("rdev.functions")

START_TIMEOUT_S = 60.0
_PROBE_S = 0.003  # readiness can only be polled; a fork answers after about 15 ms
_PROBE_SLOW_S = 0.02
_PROBE_FAST_FOR_S = 1.0
_PROBE_TIMEOUT_S = 1.0  # a kubelet's default
_COMPLAIN_EVERY_S = 10.0
_SHOWN_BYTES = 500  # of what a readiness probe answered
_PROBE_HEADERS: Headers = [(b"host", b"127.0.0.1"), (b"user-agent", b"kube-probe/local")]
# What was written to an instance before it is told to stop has been read by it after this time.
_SETTLE_S = 0.5
_HOST = "127.0.0.1"


class StartError(Exception):
    """An instance ended, or stayed silent, before it was ready; the message is for people."""


class Instance:
    """A ready process of a function, its connections and how many requests it has."""

    def __init__(self, process: Running, port: int, log_file: Path, log_size: int) -> None:
        self.process = process
        self.port = port
        self._log_file = log_file
        self._log_size = log_size  # when it was started
        self.pool = ClientPool(_HOST, port)
        self.ready_at = 0.0
        self.ready = True  # False while it does not answer its readiness probe
        self.in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def take(self) -> None:
        self.in_flight += 1
        self._idle.clear()

    def give_back(self) -> None:
        self.in_flight -= 1
        if self.in_flight == 0:
            self._idle.set()

    def last_words(self) -> str:
        """Return the last line of its log."""
        return last_line(self._log_file, self._log_size)

    async def stop(
        self,
        grace_s: float,
        settle_s: float = _SETTLE_S,
        number: signal.Signals = signal.SIGTERM,
    ) -> None:
        """Let requests be read, send `number`, and SIGKILL after `grace_s` (or when cancelled)."""
        try:
            if self.in_flight:
                with suppress(TimeoutError):  # streams stay open; the function ends them itself
                    await asyncio.wait_for(self._idle.wait(), settle_s)
            self.pool.close()
            self.process.signal(number)
            await asyncio.wait([self.process.exited], timeout=grace_s)
        finally:
            if not self.process.exited.done():
                log.warning("pid %s did not stop in time and is killed", self.process.pid)
                self.process.signal(signal.SIGKILL)
        await asyncio.wait([self.process.exited])


async def start(
    spec: FunctionSpec, environment: Mapping[str, str], launcher: Launcher, log_file: Path
) -> Instance:
    """Start a process of a function and return it once it is ready; raise StartError."""
    with _reserved_port() as reservation:
        port = reservation.getsockname()[1]
        if sys.platform != "linux":
            reservation.close()  # others do not share; the function has to be quick
        environment = {**environment, "PORT": str(port)}
        log_size = size(log_file)
        try:
            process = await launcher.launch(spec.command, environment, log_file)
        except OSError as error:
            raise StartError(f"cannot be started: {error}") from error
        instance = Instance(process, port, log_file, log_size)
        try:
            await _until_ready(instance, spec.readiness_path)
        except BaseException:
            process.signal(signal.SIGKILL)
            raise
    instance.ready_at = time.monotonic()
    return instance


async def _until_ready(instance: Instance, path: str | None) -> None:
    """Return when the readiness probe succeeds; raise StartError with what it said last."""
    began = time.monotonic()
    exited = instance.process.exited
    complain_at = _COMPLAIN_EVERY_S
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                missing: str | None = "its readiness probe is not answered"  # until it is
                missing = await _probe(instance, path)
                if missing is None:
                    return
                waited = time.monotonic() - began
                if exited.done():
                    said = instance.last_words()
                    how = how_it_ended(exited.result())
                    raise StartError(f"{how} before it was ready" + (f": {said}" if said else ""))
                if waited > complain_at:
                    log.warning("pid %d is not ready yet: %s", instance.process.pid, missing)
                    complain_at += _COMPLAIN_EVERY_S
                pause_s = _PROBE_S if waited < _PROBE_FAST_FOR_S else _PROBE_SLOW_S
                await asyncio.wait([exited], timeout=pause_s)
    except TimeoutError:
        why = ": ".join(filter(None, [missing, instance.last_words()]))
        raise StartError(f"is not ready after {START_TIMEOUT_S:g} s: {why}") from None


async def still_ready(instance: Instance, path: str | None) -> bool:
    """Ask a running instance once more; a stopped or hung one accepts and never answers."""
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT_S):
            return await _probe(instance, path) is None
    except TimeoutError:
        return False


async def _probe(instance: Instance, path: str | None) -> str | None:
    """Ask as a kubelet does and return what is missing; None when nothing is.

    Ready is a status from 200 to 399, or an open port when there is no path.
    """
    try:
        connection = await instance.pool.get()
    except OSError:
        return "it accepts no connections"
    try:
        if path is None:
            return None
        answer = await connection.request("GET", path.encode(), _PROBE_HEADERS, complete_body(b""))
        said = await answer.body.read_all()
    except PeerGoneError as gone:
        return str(gone)
    finally:
        instance.pool.put(connection)
    if 200 <= answer.status < 400:
        return None
    return f"{answer.status} {said[:_SHOWN_BYTES].decode(errors='replace')}"


def _reserved_port() -> socket.socket:
    """Bind a free port that the function may bind too, and nobody else gets meanwhile.

    Linux lets two sockets with SO_REUSEADDR share an address while only one of them listens.
    """
    reservation = socket.socket()
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reservation.bind((_HOST, 0))
    return reservation
