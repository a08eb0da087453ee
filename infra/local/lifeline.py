"""Ties a child process to the life of its parent, so that a SIGKILL of `rdev up` leaves no orphan.

Linux does this in the kernel (`PR_SET_PDEATHSIG`). The kernel watches the *thread* that forked, so
children are started from the main thread or from one that lives as long as the process does.
Elsewhere `Reaper` does it: a shell that reads pids from a pipe and ends them when the pipe closes.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_ON_LINUX = sys.platform == "linux"

# Loaded here because nothing may be imported between fork and exec.
_libc = ctypes.CDLL(None, use_errno=True) if _ON_LINUX else None

# `+ PID SIGNAL` adds a process, `- PID` forgets one; the end of input ends those that are left.
_REAPER = r"""
trap '' INT TERM HUP
alive=' '
while read -r op pid sig; do
  case $op in
    +) alive="$alive$pid:$sig " ;;
    -) rest=' '; for one in $alive; do case $one in $pid:*) ;; *) rest="$rest$one " ;; esac; done
       alive=$rest ;;
  esac
done
for one in $alive; do kill -s "${one#*:}" "${one%%:*}" 2>/dev/null; done
"""


def die_with_parent(death_signal: signal.Signals) -> None:
    """Ask the kernel to send `death_signal` to this process when the thread that forked it ends.

    Called in the child, after `fork` and before `exec`.
    """
    if _libc is not None and _libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def before_exec(death_signal: signal.Signals) -> Callable[[], None] | None:
    """Return what `subprocess` must run between fork and exec (`preexec_fn`); None off Linux."""
    if not _ON_LINUX:
        return None
    parent = os.getpid()

    def tie() -> None:
        die_with_parent(death_signal)
        if os.getppid() != parent:  # it died before the kernel was told to watch it
            os._exit(1)

    return tie


class Reaper:
    """Ends registered processes when this process dies, on systems without `PR_SET_PDEATHSIG`."""

    def __init__(self) -> None:
        self._shell = subprocess.Popen(
            ["sh", "-c", _REAPER],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C in the terminal must not end the last safeguard
        )

    def add(self, pid: int, death_signal: signal.Signals) -> None:
        self._say(f"+ {pid} {death_signal.name.removeprefix('SIG')}\n")

    def forget(self, pid: int) -> None:
        self._say(f"- {pid}\n")

    def close(self) -> None:
        """End the reaper, and with it every process still registered."""
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        self._shell.wait()

    def _say(self, line: str) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.write(line.encode())
        self._shell.stdin.flush()


_reaper: Reaper | None = None


def watch(pid: int, death_signal: signal.Signals) -> None:
    """Tie a started process to this one where the kernel cannot; nothing to do on Linux."""
    global _reaper
    if _ON_LINUX:
        return
    _reaper = _reaper or Reaper()
    _reaper.add(pid, death_signal)


def unwatch(pid: int) -> None:
    """Forget an ended process, so that its reused pid is never signalled."""
    if _reaper is not None:
        _reaper.forget(pid)
