"""What an event may carry: ids and an outcome, never output, and never more than others forward.

CloudEvents intermediaries must forward events of 64 KiB, and no more (CloudEvents 1.0.2, "Size
Limits"). Nothing of ours is that large by itself, but a program that calls itself claude may report
what it likes.
"""

from __future__ import annotations

from typing import Any, Final

from common.domain.events import dumps

MAX_DATA_BYTES: Final = 48 * 1024  # of 64 KiB; the attributes take the rest
_KEPT: Final = ("reason", "exit_code", "signal", "orphans_killed", "output")


def bounded(data: dict[str, Any]) -> dict[str, Any]:
    """`data` itself, or with the outcome cut to its fixed parts when it would be too large."""
    outcome = data.get("outcome")
    if not isinstance(outcome, dict) or len(dumps(data)) <= MAX_DATA_BYTES:
        return data
    kept = {name: outcome[name] for name in _KEPT if name in outcome}
    return data | {"outcome": kept | {"agent": None}}
