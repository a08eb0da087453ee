"""The fake kubelet: one init process a pod, and processes in it on request."""

from __future__ import annotations

import array
import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

INIT = Path(__file__).with_name("pod.py")


@dataclass
class Pod:
    """A running container. `volumes` are folders that go with the pod (emptyDir)."""

    env: Mapping[str, str]
    volumes: Sequence[str] = ()
    running: dict[int, asyncio.Future[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._number = 0
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._init = subprocess.Popen(
                [sys.executable, "-S", "-E", str(INIT), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        ours.setblocking(False)
        self._control = ours
        asyncio.get_running_loop().add_reader(ours, self._answered)

    def start(self, argv: Sequence[str], descriptors: Sequence[int]) -> asyncio.Future[int]:
        """Run argv on these descriptors, which may be closed then; the future is its exit code."""
        self._number += 1
        number, loop = self._number, asyncio.get_running_loop()
        ended: asyncio.Future[int] = loop.create_future()
        self.running[number] = ended
        request = {"number": number, "argv": list(argv), "env": dict(self.env)}
        rights = array.array("i", descriptors)
        self._control.sendmsg(
            [json.dumps(request).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
        )
        return ended

    async def restart(self) -> None:
        """The container dies; its volumes stay."""
        await self._end()
        self.__post_init__()

    async def end(self) -> None:
        await self._end()
        for volume in self.volumes:
            await asyncio.to_thread(shutil.rmtree, volume, ignore_errors=True)

    async def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        await asyncio.to_thread(self._init.wait)
        for ended in self.running.values():
            ended.set_exception(ConnectionAbortedError("the container is gone"))
            ended.exception()  # nobody may be waiting any more
        self.running.clear()

    def _answered(self) -> None:
        data = self._control.recv(4096)
        if not data:
            asyncio.get_running_loop().remove_reader(self._control)
            return
        answer: dict[str, Any] = json.loads(data)
        ended = self.running.pop(answer["number"], None)
        if ended is not None and not ended.done():
            ended.set_result(answer["code"])


def environment(name: str, home: str, more: Mapping[str, str]) -> dict[str, str]:
    """What a container of this name starts with; `more` is its image's and its manifest's own."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": home,
        "HOSTNAME": name,
        "LANG": "C.UTF-8",
        "KUBERNETES_SERVICE_HOST": "10.0.0.1",
        **more,
    }
