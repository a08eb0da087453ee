"""Standard output and standard error, kept apart by who speaks.

What the remote command writes goes through unchanged, byte for byte. What rdev itself has to say
goes to standard error: progress only on a terminal, so that a pipe or a log holds the command's
own bytes; warnings and errors always, because losing output in silence would be worse.
"""

from __future__ import annotations

import json
import os
import select
import threading
from collections.abc import Mapping
from typing import Any, Final

from rdev.errors import ReaderGone

STDOUT: Final = 1
STDERR: Final = 2
_STYLES: Final[Mapping[str, str]] = {
    "dim": "\x1b[2m",
    "red": "\x1b[31m",
    "green": "\x1b[32m",
    "yellow": "\x1b[33m",
}
_RESET: Final = "\x1b[0m"


class Console:
    """The two streams of this process. Safe to use from several threads.

    It writes to file descriptors and not through Python's buffers: every byte leaves at once and
    in order, also on a descriptor that another program has made non-blocking.
    """

    def __init__(self, environ: Mapping[str, str], *, out: int = STDOUT, err: int = STDERR) -> None:
        self._out = out
        self._err = err
        self.out_is_terminal = _is_terminal(out)
        self.err_is_terminal = _is_terminal(err)
        self._colour = not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        self._lock = threading.Lock()
        self._mid_line = False

    def remote(self, stream: str, data: bytes) -> None:
        """Bytes of the command; `stream` is its name in the API (merged counts as stdout).

        Raises ReaderGone when nobody reads any more.
        """
        to_err = stream == "stderr"
        with self._lock:
            _write_all(self._err if to_err else self._out, data)
            if data and (self.err_is_terminal if to_err else self.out_is_terminal):
                self._mid_line = not data.endswith(b"\n")

    def line(self, text: str) -> None:
        """A line of result on standard output. Raises ReaderGone when nobody reads any more."""
        self.remote("stdout", f"{text}\n".encode("utf-8", errors="replace"))

    def json(self, value: Any, *, compact: bool = False) -> None:
        """One JSON document on standard output: indented, or on one line."""
        self.line(json.dumps(value, ensure_ascii=False, indent=None if compact else 2))

    def say(self, text: str) -> None:
        """Progress, for a person who watches; nothing is written unless it is a terminal."""
        if self.err_is_terminal:
            self._note(self._styled(f"rdev: {text}", "dim", terminal=True))

    def warn(self, text: str) -> None:
        """Something that must be known, terminal or not."""
        self._note(self._styled(f"rdev: {text}", "yellow", terminal=self.err_is_terminal))

    def error(self, text: str, hint: str | None = None) -> None:
        """Why rdev ends without the outcome that was asked for, and what to do next."""
        self._note(self._styled(f"rdev: {text}", "red", terminal=self.err_is_terminal))
        if hint is not None:
            self._note(f"rdev: {hint}")

    def styled(self, text: str, style: str) -> str:
        """`text` in a colour, if standard output shows colours."""
        return self._styled(text, style, terminal=self.out_is_terminal)

    def _styled(self, text: str, style: str, *, terminal: bool) -> str:
        if not (terminal and self._colour):
            return text
        return f"{_STYLES[style]}{text}{_RESET}"

    def _note(self, text: str) -> None:
        with self._lock:
            start = "\n" if self._mid_line and self.err_is_terminal else ""
            self._mid_line = False
            try:
                _write_all(self._err, f"{start}{text}\n".encode("utf-8", errors="replace"))
            except ReaderGone:
                # Nobody listens on standard error: there is no place left to say so, and the
                # exit code still tells how it ended.
                return


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
        except BrokenPipeError as error:
            raise ReaderGone("nobody reads the output any more") from error
