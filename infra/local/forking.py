"""The zygote as `rdev up` sees it: a launcher that forks, and spawns what cannot be forked."""

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.local import lifeline
from infra.local.process import Running, SpawnLauncher, how_it_ended, rotate

log = logging.getLogger("rdev.zygote")


class ZygoteLauncher:
    """Forks `python -m <module>` from a warm process; other commands are spawned.

    A zygote that died is started again by the next launch, which spawns meanwhile.
    """

    cheap = True

    def __init__(self, module: str, directory: Path, log_file: Path) -> None:
        self._command = ("python", "-m", module)
        self._module = module
        self._directory = directory
        self._log_file = log_file
        self._spawn = SpawnLauncher(directory)
        self._zygote: _Zygote | None = None

    @property
    def pid(self) -> int | None:
        return self._zygote.pid if self._zygote else None

    def warm_up(self) -> None:
        """Start the zygote; it imports while others start."""
        self._zygote = _Zygote(self._module, self._directory, self._log_file)

    async def launch(
        self, command: Sequence[str], environment: Mapping[str, str], log_file: Path
    ) -> Running:
        if tuple(command) != self._command:
            return await self._spawn.launch(command, environment, log_file)
        if self._zygote is None or self._zygote.closed:
            self.warm_up()
        assert self._zygote is not None
        rotate(log_file)
        try:
            return await self._zygote.fork(environment, log_file)
        except ConnectionError as error:
            log.warning("%s; %s is spawned instead", error, " ".join(command))
            return await self._spawn.launch(command, environment, log_file)

    async def close(self) -> None:
        """End the zygote; its children are ended by their functions before."""
        if self._zygote is not None:
            await self._zygote.close()


class _Forked:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def signal(self, number: signal.Signals) -> None:
        # The zygote reaps and tells; until it has told, the pid cannot belong to another process
        # unless the zygote itself died, and then the kernel has killed this one.
        if not self.exited.done():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                log.debug("pid %s has ended already", self.pid)


class _Zygote:
    """One zygote process and the conversation with it."""

    def __init__(self, module: str, directory: Path, log_file: Path) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = _start(module, directory, log_file, theirs)
        lifeline.watch(self._process.pid, signal.SIGKILL)
        self.pid = self._process.pid
        self.closed = False
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[asyncio.StreamWriter] = loop.create_future()
        self._answers: dict[int, asyncio.Future[_Forked]] = {}
        self._children: dict[int, _Forked] = {}
        self._last_id = 0
        self._conversation = loop.create_task(self._converse(ours))

    async def fork(self, environment: Mapping[str, str], log_file: Path) -> _Forked:
        """Return a new child; raise ConnectionError when the zygote cannot give one."""
        writer = await asyncio.shield(self._ready)
        self._last_id += 1
        answer: asyncio.Future[_Forked] = asyncio.get_running_loop().create_future()
        self._answers[self._last_id] = answer
        request = {"id": self._last_id, "environment": dict(environment), "log": str(log_file)}
        writer.write(json.dumps(request).encode() + b"\n")
        return await answer

    async def close(self) -> None:
        self._process.kill()
        await self._conversation

    async def _converse(self, ours: socket.socket) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        while line := await reader.readline():
            self._hear(json.loads(line), writer)
        writer.close()
        status = self._process.wait()  # it closed its end by ending
        lifeline.unwatch(self.pid)
        self._gone(ConnectionError(f"the zygote {how_it_ended(status)}"))

    def _hear(self, message: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if "ready" in message:
            self._ready.set_result(writer)
        elif "exited" in message:
            child = self._children.pop(message["exited"])
            child.exited.set_result(message["status"])
        elif "pid" in message:
            child = self._children[message["pid"]] = _Forked(message["pid"])
            answer = self._answers.pop(message["id"])
            if answer.cancelled():
                child.signal(signal.SIGKILL)  # whoever asked for it has left
            else:
                answer.set_result(child)
        else:
            answer = self._answers.pop(message["id"])
            if not answer.cancelled():
                answer.set_exception(ConnectionError(message["error"]))

    def _gone(self, error: ConnectionError) -> None:
        """The zygote ended, and the kernel ended its children with it."""
        self.closed = True
        waiting: list[asyncio.Future[Any]] = [self._ready, *self._answers.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()  # nobody may be waiting, and that is no mistake
        self._answers.clear()
        for child in self._children.values():
            child.exited.set_result(-signal.SIGKILL)
        self._children.clear()


def _start(
    module: str, directory: Path, log_file: Path, control: socket.socket
) -> subprocess.Popen[bytes]:
    """Start a zygote without our settings in its environment: its children get theirs later."""
    rotate(log_file)
    environment = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith("RDEV_") and name != "PYTHONDONTWRITEBYTECODE"
    }
    with log_file.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "infra.local.zygote", module],
            cwd=directory,
            env=environment,
            stdin=control.fileno(),
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=lifeline.before_exec(signal.SIGKILL),  # noqa: PLW1509 - one bound C call
        )
