"""The exit codes of `rdev`, and which one a command's outcome asks for.

The remote exit code passes through, so scripts can treat `rdev run -- CMD` like `CMD`. rdev's own
codes are those of sysexits.h (64-77), GNU timeout (124), docker run (125) and the shell (128 + n).
`-o json` carries the outcome, so that a remote 75 and our 75 are never confused.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any, Final

OK: Final = 0
FAILED: Final = 1
"""The command failed without saying so in its exit code (claude exits 0 on some errors)."""
USAGE: Final = 64
UNREACHABLE: Final = 69
SERVER_FAULT: Final = 70
OUTCOME_UNKNOWN: Final = 75
NOT_ALLOWED: Final = 77
TIMED_OUT: Final = 124
REFUSED: Final = 125
SIGNALLED: Final = 128
INTERRUPTED: Final = 130
READER_GONE: Final = SIGNALLED + signal.SIGPIPE

MEANINGS: Final[Mapping[int, str]] = {
    OK: "the command succeeded",
    USAGE: "the command line is wrong, or names something that is not there",
    UNREACHABLE: "no server could be reached",
    SERVER_FAULT: "the server failed",
    OUTCOME_UNKNOWN: "the outcome is unknown, or part of the output was lost",
    NOT_ALLOWED: "the key is missing, invalid, or may not do this",
    TIMED_OUT: "the command ran out of time (queue, run or idle)",
    REFUSED: "the command was refused before it started",
    INTERRUPTED: "interrupted, or the command was cancelled",
}
"""rdev's own codes, for the help and the reference; every other code is the remote one."""


def of_outcome(state: str, outcome: Mapping[str, Any]) -> int:
    """The exit code of a command that ended in `state` with `outcome`; 0 only if it succeeded."""
    if state == "succeeded":
        return OK
    if state == "failed":
        return _of_failure(outcome)
    if state == "timed_out":
        return TIMED_OUT
    if state == "cancelled":
        return INTERRUPTED
    return OUTCOME_UNKNOWN


def _of_failure(outcome: Mapping[str, Any]) -> int:
    if outcome.get("reason") == "start_failed":
        return REFUSED
    number = signal_number(outcome.get("signal"))
    if number is not None:
        return SIGNALLED + number
    code = outcome.get("exit_code")
    return code if isinstance(code, int) and 0 < code <= 255 else FAILED


def signal_number(value: object) -> int | None:
    """A signal given as a number or a name (`9`, `SIGKILL`, `KILL`); None when there is none."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return value if value > 0 else None
    name = str(value).upper()
    known = signal.Signals.__members__
    found = known.get(name) or known.get(f"SIG{name}")
    return int(found) if found is not None else None
