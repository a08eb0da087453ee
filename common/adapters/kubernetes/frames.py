"""The exec protocol `v5.channel.k8s.io` and `v4.channel.k8s.io`, without a network.

A frame is one byte that says which channel, then its bytes. Both versions end with a Status object
on channel 3; v5 could close stdin besides, which we never rely on because v4 cannot.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

STDIN, STDOUT, STDERR, ERROR = range(4)
VERSIONS: Final = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN_BYTES: Final = 64 * 1024  # of a frame that we send


@dataclass(frozen=True)
class Exited:
    """The program ran and ended."""

    code: int


@dataclass(frozen=True)
class RuntimeFailed:
    """The container runtime could not run it, or lost sight of it."""

    detail: str


def outcome(status: bytes) -> Exited | RuntimeFailed | None:
    """What a Status says; None when it is none, and nothing can be said."""
    try:
        found = json.loads(status)
        if found["status"] == "Success":
            return Exited(0)
        if found.get("reason") == "NonZeroExitCode":
            causes = found["details"]["causes"]
            return Exited(next(int(c["message"]) for c in causes if c["reason"] == "ExitCode"))
        return RuntimeFailed(str(found.get("message") or found.get("reason") or "no message"))
    except (ValueError, KeyError, TypeError, StopIteration):
        return None
