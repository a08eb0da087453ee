"""PID 1 of a fake pod: starts what exec asks for, reaps what it left, and takes all of it along.

As a subreaper it inherits every process of the pod that lost its parent, whatever session that is
in; so ending the pod ends them all, as a PID namespace would, without the right to make one.

On its socket: a JSON request with the descriptors of stdin, stdout and stderr; back comes one line
with the exit code. `python -S -E pod.py FD`.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
PR_SET_PDEATHSIG = 1


def main(control: socket.socket) -> None:
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    waker, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    callers: dict[int, int] = {}  # pid → the request's number
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(waker, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == waker:
                os.read(waker, 4096)
                reap(control, callers)
            elif not serve(control, callers):
                end_everything()
                return


def serve(control: socket.socket, callers: dict[int, int]) -> bool:
    """Start one process; False when the pod is over."""
    data, ancillary, _, _ = control.recvmsg(1 << 20, socket.CMSG_SPACE(3 * 4))
    if not data:
        return False
    descriptors = array.array("i")
    for level, kind, raw in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(raw)
    request = json.loads(data)
    pid = os.fork()
    if pid == 0:
        become(request, list(descriptors))
    callers[pid] = request["number"]
    for descriptor in descriptors:
        os.close(descriptor)
    return True


def become(request: dict[str, object], descriptors: list[int]) -> None:
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        os.closerange(3, 1024)
        os.chdir("/")
        argv, env = list(request["argv"]), dict(request["env"])  # type: ignore[call-overload]
        os.execvpe(argv[0], argv, env)
    except OSError:
        os._exit(127)


def reap(control: socket.socket, callers: dict[int, int]) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if pid in callers:
                code = os.waitstatus_to_exitcode(status)
                answer = {"number": callers.pop(pid), "code": code if code >= 0 else 128 - code}
                with contextlib.suppress(OSError):
                    control.send(json.dumps(answer).encode())


def end_everything() -> None:
    """KILL every descendant, again and again: a process may fork while it is looked at."""
    while found := descendants():
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in found:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def descendants() -> list[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int(
                    (entry / "stat").read_text().rpartition(")")[2].split()[1]
                )
    found: list[int] = []
    level = {os.getpid()}
    while level := {pid for pid, parent in parents.items() if parent in level}:
        found += level
    return found


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
