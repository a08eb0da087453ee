"""Port: the credentials that projects name for claude."""

from __future__ import annotations

from typing import Protocol

from common.domain.credentials import Credential


class Credentials(Protocol):
    def of(self, project: str) -> Credential | None:
        """The credential of a project; None: its claude uses the workspace's own.

        Raises BadCredential for one that is there and cannot be used: running with another one
        instead would spend somebody else's money.
        """
        ...
