"""What the server's errors mean to us, by SQLSTATE (PostgreSQL manual, appendix A).

Unavailable (503, nothing was changed)
├── Conflicted     serialization failure or deadlock: the whole transaction may be tried again
└── everything the operator must mend or time mends: connection, shutdown, disk, timeouts, read-only
Anything else is a mistake of ours and stays a pg8000 DatabaseError.
"""

from __future__ import annotations

from typing import Any, Final

from pg8000.exceptions import DatabaseError

from common.domain.errors import Unavailable

SERIALIZATION: Final = frozenset({"40001", "40P01"})
STALE_PLAN: Final = frozenset({"0A000", "26000"})  # a prepared statement outlived a migration

_OUR_TROUBLE_CLASSES: Final = frozenset(
    {
        "08",  # connection exception
        "28",  # not authenticated
        "3D",  # no such database
        "53",  # disk full, out of memory, too many connections
        "57",  # shutdown, starting up, statement timeout
        "58",  # I/O error
    }
)
_OUR_TROUBLE: Final = frozenset(
    {
        "25006",  # read-only: a standby, or a server that protects itself
        "25P03",  # idle in transaction for too long
        "55P03",  # lock not available in time
    }
)
_USABLE_AFTER: Final = frozenset(
    {"57014", "55P03"}
)  # a timeout ends the statement, not the session


class Conflicted(Unavailable):
    """Two transactions wanted each other's rows; this one was rolled back whole."""


def sqlstate(error: DatabaseError) -> str:
    """The five characters that say what went wrong; empty when the server said none."""
    return str(_fields(error).get("C", ""))


def is_fatal(error: DatabaseError) -> bool:
    """Whether the session cannot be used any more."""
    state = sqlstate(error)
    if _fields(error).get("V") in ("FATAL", "PANIC"):
        return True
    return state[:2] in ("08", "57") and state not in _USABLE_AFTER


def translated(error: DatabaseError) -> Exception:
    """The error callers get for what the server said."""
    meaning: Exception = error
    state = sqlstate(error)
    if state in SERIALIZATION:
        return Conflicted("the database is busy with a conflicting change", retry_after=1)
    if state == "53100":
        return Unavailable("the database has no disk space left", retry_after=10)
    if state[:2] in _OUR_TROUBLE_CLASSES or state in _OUR_TROUBLE:
        return Unavailable("the database cannot answer now")
    return meaning


def _fields(error: DatabaseError) -> dict[str, Any]:
    said = error.args[0] if error.args else {}
    return said if isinstance(said, dict) else {}
