"""Port: detached runs in a workspace: started once, spooled, re-attachable, killed whole.

Implemented over any Transport by `services/supervision.py`, and in dicts by
`adapters/memory/workspace.py`; `tests/contract/test_workspace.py` holds both to this text.
Every method may raise TransportLost, WorkspaceUnreachable and WorkspaceGone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from common.domain.workspace import Job, KillMode, Place, RunStatus, Stream


class Output(Protocol):
    """The raw bytes of one stream from an offset on, live until the run ends."""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes | None:
        """Next bytes; b"" after the last byte of an ended run; None when `timeout` s went by.

        Raises TransportLost (follow again from what you have), Superseded (stop).
        """
        ...

    @property
    def status(self) -> RunStatus | None:
        """After b"": the run's final status: done, lost or refused. None before."""
        ...

    def close(self) -> None:
        """Stop reading; the run goes on. Idempotent, from any thread."""
        ...


@dataclass(frozen=True, slots=True)
class Start:
    """The answer to a start. `won`: this very call claimed the run, so `output` follows it from 0.

    Not won: `status` tells the state of the run that was there before: attach, never start again.
    """

    won: bool
    status: RunStatus
    output: Output | None = None


class Workspace(Protocol):
    def start(self, place: Place, job: Job) -> Start:
        """Claim the run and launch it detached. One exec: `output` is its first follower.

        The output is the merged stream, or stdout when the streams are separate. A cwd that is
        missing or leads out of the workspace is a claimed run that is done with reason
        `start_failed`. Raises StartRefused when nothing was claimed; TransportLost when in doubt
        (call again: it starts at most once).
        """
        ...

    def follow(self, place: Place, run_id: str, stream: Stream, offset: int = 0) -> Output:
        """Read a stream from `offset`; its earlier follower ends with Superseded.

        Raises RunAbsent or OffsetBeyondEnd, here or at the first read.
        """
        ...

    def status(self, place: Place, run_id: str) -> RunStatus: ...

    def kill(
        self,
        place: Place,
        run_id: str,
        mode: KillMode,
        reason: str,
        *,
        interrupt_first: bool = False,
    ) -> RunStatus:
        """Begin to end a run and all it left behind; the first reason given is the one recorded.

        Answers at once with the state found; the end shows in `status` and to followers. A run
        that was claimed but not launched will never launch. Absent and ended runs are left as
        they are.
        """
        ...

    def refuse(self, place: Place, run_id: str) -> bool:
        """Take the run's directory as a tombstone. True: it never ran and never will."""
        ...

    def send(
        self, place: Place, run_id: str, offset: int, data: bytes, *, last: bool = False
    ) -> int:
        """Append to the input of an `input_open` run exactly at `offset`; a repeat does nothing.

        `last` ends the input after `data`. Answers the input's new end. `offset` counts Job.stdin.
        Raises OffsetBeyondEnd when the input ends elsewhere, RunAbsent when no such run takes
        input.
        """
        ...

    def verify(self, place: Place) -> None:
        """Ask live whether the workspace is still the one `place` means; raises WorkspaceGone."""
        ...

    def gc(self, place: Place, older_than_s: int) -> int:
        """Remove runs that ended more than `older_than_s` seconds ago; answers how many."""
        ...
