"""Exec over v4 and v5 `channel.k8s.io`: real processes behind real frames.

The process outlives its connection, as in a cluster: a dropped connection kills only the wire.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
from collections.abc import AsyncIterator
from typing import Any, Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.fake_kubernetes.faults import Faults
from tests.fake_kubernetes.pods import Pod

STDIN, STDOUT, STDERR, ERROR, CLOSE = 0, 1, 2, 3, 255
V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
PIPE_BYTES: Final = 1 << 20
TRUE: Final = frozenset({"1", "true", "True", "TRUE", "t"})  # Go's strconv.ParseBool


class Dropped(Exception):
    """The wire was cut on purpose."""


class Exec:
    """One exec call."""

    def __init__(self, socket: WebSocket, pod: Pod, faults: Faults) -> None:
        self._socket = socket
        self._pod = pod
        self._faults = faults
        self._frames = 0
        self._sending = asyncio.Lock()

    async def run(self, argv: list[str], query: Any) -> None:
        await self._socket.accept(subprotocol=self._subprotocol())
        if self._faults.exec_mute:
            self._socket.scope["extensions"]["transport"].pause_reading()
            await asyncio.sleep(3600)
        if self._faults.exec_runtime_failure:
            await self._finish(_failure("OCI runtime exec failed: executable file not found"))
            return
        wanted = {name for name in ("stdin", "stdout", "stderr") if query.get(name) in TRUE}
        in_read, in_write = os.pipe()
        out_read, out_write = _pipe()
        err_read, err_write = _pipe()
        ended = self._pod.start(argv, [in_read, out_write, err_write])
        for descriptor in (in_read, out_write, err_write):
            os.close(descriptor)
        feeding = asyncio.ensure_future(self._feed(in_write, open_="stdin" in wanted))
        try:
            await self._carry(ended, out_read, err_read)
        except (Dropped, WebSocketDisconnect):
            self._socket.scope["extensions"]["transport"].abort()
        finally:
            feeding.cancel()
            with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect):
                await feeding

    async def _carry(self, ended: asyncio.Future[int], out_read: int, err_read: int) -> None:
        if self._faults.exec_early_success:
            await self._finish(_success())
            os.close(out_read)
            os.close(err_read)
            return
        copying = asyncio.gather(self._copy(out_read, STDOUT), self._copy(err_read, STDERR))
        try:
            code = await ended
            await copying
        except ConnectionAbortedError as error:
            copying.cancel()
            await self._finish(_failure(str(error)))
            return
        except BaseException:
            copying.cancel()
            raise
        await self._finish(_success() if code == 0 else _exit_code(code))

    def _subprotocol(self) -> str | None:
        offered = self._socket.scope["subprotocols"]
        spoken = [V4] if self._faults.exec_v4 else [V5, V4]
        return next((name for name in spoken if name in offered), None)

    async def _copy(self, descriptor: int, channel: int) -> None:
        async for data in _read(descriptor, self._faults.frame_bytes):
            await self._send(channel, data)

    async def _send(self, channel: int, data: bytes) -> None:
        async with self._sending:
            if channel in {STDOUT, STDERR}:
                self._frames += 1
                every = self._faults.exec_drop_every
                if every and self._frames > every:
                    raise Dropped
            await self._socket.send_bytes(bytes([channel]) + data)

    async def _finish(self, status: dict[str, Any]) -> None:
        if self._faults.exec_bad_status:
            await self._send(ERROR, b"\xff{not json")
        elif not self._faults.exec_no_status:
            await self._send(ERROR, json.dumps(status).encode())
        await self._socket.close()

    async def _feed(self, descriptor: int, *, open_: bool) -> None:
        """From the caller to stdin, until either is over."""
        os.set_blocking(descriptor, False)
        try:
            while open_:
                frame = await self._socket.receive_bytes()
                if frame[:1] == bytes([CLOSE]):
                    open_ = frame[1:] != bytes([STDIN])
                elif frame[:1] == bytes([STDIN]):
                    await _write(descriptor, frame[1:])
        except (BrokenPipeError, WebSocketDisconnect):
            return  # the process took what it wanted, or the caller is gone
        finally:
            os.close(descriptor)


def _pipe() -> tuple[int, int]:
    ends = os.pipe()
    with contextlib.suppress(OSError):  # a user has a quota of pipe memory
        fcntl.fcntl(ends[0], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return ends


async def _read(descriptor: int, size: int) -> AsyncIterator[bytes]:
    os.set_blocking(descriptor, False)
    try:
        while True:
            try:
                data = os.read(descriptor, size)
            except BlockingIOError:
                await _ready(descriptor, writing=False)
                continue
            if not data:
                return
            yield data
    finally:
        os.close(descriptor)


async def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            await _ready(descriptor, writing=True)


async def _ready(descriptor: int, *, writing: bool) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    (loop.add_writer if writing else loop.add_reader)(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        (loop.remove_writer if writing else loop.remove_reader)(descriptor)


def _success() -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


def _exit_code(code: int) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def _failure(message: str) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "reason": "InternalError",
        "message": f"Internal error occurred: {message}",
        "code": 500,
    }
