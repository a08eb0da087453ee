"""The warm process that functions are forked from: `python -m infra.local.zygote MODULE`.

It imports MODULE, calls its `preload()` when it has one, and then forks on request. A child takes
over the environment it was sent and runs MODULE's `main()`, so a function is ready in the time of a
fork instead of that of its imports. What must not be shared by children (threads, connections,
environment, settings) does not exist here: being single-threaded is checked before every fork.

Requests and answers are JSON lines on the socket that is file descriptor 0:

    → {"id": 1, "environment": {…}, "log": "/path"}
    ← {"ready": true}   {"id": 1, "pid": 42}   {"id": 1, "error": "…"}   {"exited": 42, "status": 0}
"""

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from infra.local.lifeline import die_with_parent

Main = Callable[[], Any]


class ForkServer:
    """Forks children of one module until the other end of its socket closes."""

    def __init__(self, control: socket.socket, run: Main) -> None:
        self._control = control
        self._run = run
        # A signal handler writes here, so that one `select` waits for requests and for exits.
        self._child_ended, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._buffer = b""

    def serve(self) -> Main | None:
        """Serve requests; return None at the end, and in a child what it has to run."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        self._say({"ready": True})
        while True:
            control = self._control.fileno()
            ready, _, _ = select.select([control, self._child_ended], [], [])
            if self._child_ended in ready:
                self._reap()
            if control in ready:
                received = self._control.recv(1 << 16)
                if not received:
                    return None
                *lines, self._buffer = (self._buffer + received).split(b"\n")
                for line in lines:
                    if self._fork(json.loads(line)):
                        return self._run

    def _fork(self, request: dict[str, Any]) -> bool:
        """Fork a child; return True in it."""
        if _threads() != 1:
            self._say({"id": request["id"], "error": "the zygote has threads: it must not fork"})
            return False
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._say({"id": request["id"], "error": f"fork: {error}"})
            return False
        if pid:
            self._say({"id": request["id"], "pid": pid})
            return False
        die_with_parent(signal.SIGKILL)
        if os.getppid() != parent:  # it died before the kernel was told to watch it
            os._exit(1)
        self._become(request)
        return True

    def _become(self, request: dict[str, Any]) -> None:
        """Turn a fresh child into a process of its own: signals, session, output, environment."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._control.close()
        os.close(self._child_ended)
        os.close(self._wake)
        os.setsid()
        output = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for descriptor, source in ((0, nothing), (1, output), (2, output)):
            os.dup2(source, descriptor)
        os.close(output)
        os.close(nothing)
        os.environ.clear()
        os.environ.update(request["environment"])

    def _reap(self) -> None:
        while True:
            try:
                if not os.read(self._child_ended, 512):
                    break
            except BlockingIOError:
                break
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._say({"exited": pid, "status": os.waitstatus_to_exitcode(status)})

    def _say(self, message: dict[str, Any]) -> None:
        self._control.sendall(json.dumps(message).encode() + b"\n")


def _threads() -> int:
    """Count the threads of this process, those that Python does not know of included."""
    tasks = Path("/proc/self/task")
    if tasks.exists():
        return sum(1 for _ in tasks.iterdir())
    return threading.active_count()


def main() -> None:
    name = sys.argv[1]
    control = socket.socket(fileno=os.dup(0))
    sys.argv = [name]
    # Written as soon as said, as an unbuffered interpreter does: the log tells why a child died.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(write_through=True)  # type: ignore[union-attr]
    module = importlib.import_module(name)
    getattr(module, "preload", lambda: None)()
    # What is here now stays shared: the collector must not write into pages of the parent.
    gc.collect()
    gc.freeze()
    run = ForkServer(control, module.main).serve()
    if run is not None:
        _run_and_leave(run)


def _run_and_leave(run: Main) -> NoReturn:
    """Run a child's program and end without tearing down what was imported for everybody.

    Freeing every object would copy each shared page first, which costs more than a start.
    """
    status = 0
    try:
        run()
    except SystemExit as leave:
        status = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
        if isinstance(leave.code, str):
            print(leave.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - joins threads
        atexit._run_exitfuncs()  # noqa: SLF001 - what the interpreter does before it frees
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for `rdev up`
    main()
