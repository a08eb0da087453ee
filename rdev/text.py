"""Small questions about text: what may be shown on a terminal, durations, ages, NAME=VALUE."""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from typing import Final

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"([0-9]{1,9})([smhd]?)")


def printable(text: str) -> str:
    """`text` on one line and without characters that would steer a terminal.

    Summaries and messages hold what other people typed; an escape sequence in a prompt must not
    rewrite the screen of whoever lists it.
    """
    line = " ".join(text.split())
    return "".join(c for c in line if unicodedata.category(c) not in ("Cc", "Cf", "Cs"))


def clipped(text: str, width: int) -> str:
    """`text` in at most `width` characters, with an ellipsis where it was cut."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def parse_duration(text: str) -> int:
    """Seconds from `90`, `30s`, `5m`, `2h` or `1d`, or several in a row (`1h30m`).

    Raises ValueError for anything else.
    """
    compact = text.strip().lower()
    parts = _DURATION.findall(compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise ValueError(f"{text!r} is not a duration such as 90, 30s, 5m, 2h or 1d")
    if len(parts) > 1 and any(not unit for _, unit in parts):
        raise ValueError(f"{text!r} needs a unit (s, m, h, d) after each number")
    return sum(int(number) * _UNITS[unit or "s"] for number, unit in parts)


def parse_time(text: object) -> dt.datetime | None:
    """An instant as the API writes it; None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        instant = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    return instant if instant.tzinfo is not None else None


def age(then: dt.datetime | None, now: dt.datetime) -> str:
    """How long ago in one unit: `12s`, `5m`, `3h`, `2d`; `-` when unknown."""
    if then is None:
        return "-"
    return seconds_as_text((now - then).total_seconds())


def seconds_as_text(seconds: float) -> str:
    """A duration in the largest unit that fits, rounded down."""
    whole = max(int(seconds), 0)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if whole >= size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def require_utf8(text: str) -> str:
    """`text`, when UTF-8 can hold it.

    Raises ValueError for bytes from the shell that are not UTF-8: JSON could not carry them, and
    changing them silently would run another command than the one that was typed.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{printable(text)!r} is not valid UTF-8") from error
    return text
