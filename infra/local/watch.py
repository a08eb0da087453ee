"""Notices new projects: a directory in `workspaces/`, or a change of `projects.yaml`.

It stands in for the pod events of a cluster, and like them it is only a doorbell: what is really
there is for the tick to find. Linux tells by inotify; elsewhere the directories are looked at twice
a second.
"""

import asyncio
import ctypes
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

_POLL_S = 0.5
# <sys/inotify.h>
_IN_CLOSE_WRITE, _IN_MOVED_FROM, _IN_MOVED_TO = 0x8, 0x40, 0x80
_IN_CREATE, _IN_DELETE = 0x100, 0x200
_MASK = _IN_CLOSE_WRITE | _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE
_HEADER = struct.Struct("iIII")  # watch, mask, cookie, length of the name


class Watch(Protocol):
    def close(self) -> None: ...


def watch_projects(home: Path, changed: Callable[[], None]) -> Watch:
    """Call `changed` on the event loop whenever the projects of a home may have changed."""
    kind = _Inotify if sys.platform == "linux" else _Polling
    return kind(home, changed)


class _Inotify:
    def __init__(self, home: Path, changed: Callable[[], None]) -> None:
        self._changed = changed
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        watches = [
            libc.inotify_add_watch(self._descriptor, os.fsencode(path), _MASK)
            for path in (home, home / "workspaces")
        ]
        if self._descriptor < 0 or min(watches) < 0:
            error = ctypes.get_errno()
            raise OSError(error, f"cannot watch {home}: {os.strerror(error)}")
        self._home = watches[0]
        asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _read(self) -> None:
        events = os.read(self._descriptor, 1 << 16)
        offset, concerned = 0, False
        while offset < len(events):
            where, _, _, length = _HEADER.unpack_from(events, offset)
            offset += _HEADER.size + length
            name = events[offset - length : offset].rstrip(b"\0")
            # The home also holds logs and the status, which change all the time.
            concerned = concerned or where != self._home or name == b"projects.yaml"
        if concerned:
            self._changed()


class _Polling:
    def __init__(self, home: Path, changed: Callable[[], None]) -> None:
        self._paths = (home / "workspaces", home / "projects.yaml")
        self._changed = changed
        self._seen = self._look()
        self._timer = asyncio.get_running_loop().call_later(_POLL_S, self._poll)

    def close(self) -> None:
        self._timer.cancel()

    def _poll(self) -> None:
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            self._changed()
        self._timer = asyncio.get_running_loop().call_later(_POLL_S, self._poll)

    def _look(self) -> list[int]:
        return [path.stat().st_mtime_ns if path.exists() else 0 for path in self._paths]
