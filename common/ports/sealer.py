"""Port: secrets at rest."""

from __future__ import annotations

from typing import Protocol


class Sealer(Protocol):
    def seal(self, plain: bytes) -> bytes: ...

    def unseal(self, sealed: bytes) -> bytes:
        """Raises Unavailable when no configured key opens it."""
        ...
