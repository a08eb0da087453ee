"""A claude session of a project: what its commands come to. No prompt is shown, and no answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

# One spelling only, or two commands could hold one session.
SESSION_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Session:
    """`busy_with` holds it now, `waiting` commands come after that.

    `turns` and `cost_usd` are sums over the commands that rdev still keeps; `forked_from` is the
    session it was copied from, `model` the one that its newest command used most.
    """

    id: str
    project: str
    busy_with: UUID | None
    waiting: int
    forked_from: str | None
    model: str | None
    commands: int
    turns: int
    cost_usd: float
    first_command: UUID
    last_command: UUID
    started_at: datetime
    last_used_at: datetime
