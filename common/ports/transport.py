"""Port: run one argv in a workspace and carry its bytes.

The whole of what differs between a directory on this machine and a pod behind an exec WebSocket.
A channel is a wire, not a process: closing it, losing it, or our death never ends a command, since
what must live on has detached itself from the channel (`services/supervisor.sh`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from common.domain.workspace import Place


class Channel(Protocol):
    """The output of one argv. Used by one thread at a time; `close` may come from any thread."""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes | None:
        """Next bytes of stdout, at most `max_bytes`, as soon as there are any.

        b"" at the end, which is reached only when the far side ended by itself; None when nothing
        came for `timeout` seconds (None waits). Raises TransportLost when the wire broke or was
        closed here.
        """
        ...

    def result(self, timeout: float | None = None) -> int:
        """The exit code; drops what is left of stdout. Raises TransportLost, TimeoutError."""
        ...

    @property
    def stderr(self) -> bytes:
        """The last 64 KiB of stderr so far; complete after the end."""
        ...

    def close(self) -> None:
        """Let go of the wire. Idempotent; wakes a reader."""
        ...


class Transport(Protocol):
    def open(self, place: Place, argv: Sequence[str], stdin: bytes = b"") -> Channel:
        """Start `argv` in the workspace with `stdin` on its stdin.

        Raises WorkspaceUnreachable only when nothing was started, TransportLost when in doubt.
        The far side must not rely on end-of-file on stdin: some wires cannot half-close.
        """
        ...

    def verify(self, place: Place) -> None:
        """Ask live, before a start, whether the workspace is still the one `place` means.

        Raises WorkspaceGone, WorkspaceUnreachable. Every `open` may raise WorkspaceGone as well.
        """
        ...

    def runs(self, place: Place) -> str:
        """The absolute directory, as seen in the workspace, that holds its run directories.

        Never inside the project's work tree: `git status` would list it, `git clean` destroy it.
        """
        ...
