"""A project: a workspace that commands run in, and the settings that go with it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

DEFAULT_MAX_CONCURRENT: Final = 5
NAME: Final = re.compile(
    r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
)  # a DNS label: it names a directory too


class Phase(StrEnum):
    READY = "ready"
    PENDING = "pending"
    UNREACHABLE = "unreachable"
    GONE = "gone"


@dataclass(frozen=True)
class FoundProject:
    """A project as its source (directories, pods) shows it now."""

    name: str
    workspace: str
    phase: Phase = Phase.READY
    description: str = ""
    namespace: str | None = None
    pod: str | None = None
    pod_uid: str | None = None
    container: str | None = None
    allowed_commands: tuple[str, ...] | None = None
    max_concurrent_commands: int = DEFAULT_MAX_CONCURRENT
    issues: tuple[str, ...] = ()


@dataclass(frozen=True)
class Project:
    """A project as it is stored, with what runs and waits there."""

    name: str
    workspace: str
    phase: Phase
    description: str = ""
    namespace: str | None = None
    pod: str | None = None
    pod_uid: str | None = None
    container: str | None = None
    allowed_commands: tuple[str, ...] | None = None
    max_concurrent_commands: int = DEFAULT_MAX_CONCURRENT
    paused_at: datetime | None = None
    issues: tuple[str, ...] = ()
    running: int = field(default=0)
    queued: int = field(default=0)
