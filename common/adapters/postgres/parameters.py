"""Values on their way into a statement, as PostgreSQL's text format.

pg8000 is given only text and None. What cannot be encoded is refused here, before a byte is sent:
inside pg8000 a lone surrogate leaves the connection out of step, and then every later query gets
the reply of the one before it. Its own array writer also turns the text `null` into NULL.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any
from uuid import UUID

from common.domain.errors import InvalidRequest

Parameter = Any


def encode(value: Parameter) -> str | None:
    """The text form of a parameter. Raises InvalidRequest for text PostgreSQL cannot hold."""
    if value is None:
        return None
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | UUID):
        return str(value)
    return _encode_rarer(value)


def encode_all(parameters: Mapping[str, Parameter]) -> dict[str, str | None]:
    """The text forms of all parameters of a statement."""
    return {name: encode(value) for name, value in parameters.items()}


def _encode_rarer(value: Parameter) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return "\\x" + value.hex()
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, list | tuple | set | frozenset):
        return "{" + ",".join(map(_element, value)) + "}"
    raise TypeError(f"no SQL form for {type(value).__name__}: pass JSON through jsonb()")


def _element(value: Parameter) -> str:
    text = encode(value)
    if text is None:
        return "NULL"
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def storable(text: str) -> str:
    """`text` itself. Raises InvalidRequest when it holds NUL or a lone surrogate."""
    if "\0" in text or not _is_unicode(text):
        raise InvalidRequest("text must be Unicode without NUL")
    return text


def printable(text: str) -> str:
    """`text` with what PostgreSQL cannot hold written out, for records of what was wrong."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def jsonb(value: Any) -> str:
    """JSON text for a jsonb parameter. Raises InvalidRequest for text jsonb cannot hold."""
    _check(value)
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _check(value: Any) -> None:
    if isinstance(value, str):
        storable(value)
    elif isinstance(value, dict):
        _check_all(value)
        _check_all(value.values())
    elif isinstance(value, list | tuple):
        _check_all(value)


def _check_all(values: Iterable[Any]) -> None:
    for value in values:
        _check(value)
