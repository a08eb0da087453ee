"""Port: the files below a workspace's `.claude`, each replaced as a whole or not at all.

Implemented over any Transport by `services/claude_files.py`, and in dicts by
`adapters/memory/claude_files.py`; `tests/contract/test_claude_files.py` holds both to this text.
Every method may raise TransportLost (in doubt), WorkspaceUnreachable and WorkspaceGone (nothing
happened), WorkspaceBroken, and Refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from common.domain.claude_config import Definition, Kind, Tree
from common.domain.workspace import Place, WorkspaceError


class Refused(WorkspaceError):
    """The workspace would not, and nothing was changed unless it says `moved`.

    Codes: `linked` (a link, or no plain file or folder, is in the way), `missing` (no workspace),
    `busy` (somebody else's turn), `failed` (it cannot be written), `moved` (it was done, and in
    that moment somebody moved the folder away or put something else there).
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True)
class Item:
    """A definition as it is there. `odd`: names of links and other things that rdev leaves alone.

    `large`: it is beyond the limits, and what it holds is not shown.
    """

    definition: Definition
    odd: tuple[str, ...] = ()
    large: bool = False


@dataclass(frozen=True)
class Reading:
    """Everything that is there, and in full the one thing that was asked for, if it is there."""

    tree: Tree
    item: Item | None = None


class ClaudeFiles(Protocol):
    def read(self, place: Place, kind: Kind | None = None, name: str = "") -> Reading:
        """Look at everything, and at one thing in full.

        Raises Refused (`linked`) when that one thing is no plain file or folder.
        """
        ...

    def put(self, place: Place, definition: Definition, expected: str) -> str:
        """Put it there if what is there now has the fingerprint `expected` (ABSENT: nothing is).

        Answers the fingerprint that was there: `expected` when it was done, else another.
        """
        ...

    def remove(self, place: Place, kind: Kind, name: str, expected: str) -> str:
        """Remove it if it still has this fingerprint; answers as `put` does."""
        ...
