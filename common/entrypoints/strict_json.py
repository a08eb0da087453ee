"""Bodies: parsed strictly, in one place, so that the same mistake gets the same answer everywhere.

The standard parser lets NaN, duplicate keys, lone surrogates and NUL pass, and pg8000 serves
another caller's rows after a lone surrogate (docs/decisions/0003). So a body is read twice: once
for its form, here, and once by pydantic for its meaning.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from common.domain.errors import FieldError, InvalidField, InvalidRequest

MAX_DEPTH: Final = 64
MAX_INT_DIGITS: Final = 32

T = TypeVar("T")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(f"the key {twice[:80]!r} appears twice in one object")
    return found


def _integer(text: str) -> int:
    if len(text) > MAX_INT_DIGITS:
        raise InvalidRequest(f"an integer has more than {MAX_INT_DIGITS} digits")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise InvalidRequest(f"{text[:40]} is too large a number")
    return value


def _constant(text: str) -> float:
    raise InvalidRequest(f"{text} is not JSON")


def _check_text(text: str) -> None:
    if "\x00" in text:
        raise InvalidRequest("a string holds NUL")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidRequest("a string holds a lone surrogate") from None


def _check(value: Any) -> None:
    """Refuse NUL, lone surrogates and nesting deeper than MAX_DEPTH anywhere in `value`."""
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, dict):
                for name in item:
                    _check_text(name)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        if not below:
            return
        level = below
    raise InvalidRequest(f"the JSON is nested deeper than {MAX_DEPTH} levels")


def loads(body: bytes) -> Any:
    """The JSON value of `body`. Raises InvalidRequest for what RFC 8259 or PostgreSQL refuses."""
    try:
        text = body.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_pairs,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
    except UnicodeDecodeError:
        raise InvalidRequest("the body is not UTF-8") from None
    except RecursionError:
        raise InvalidRequest(f"the JSON is nested deeper than {MAX_DEPTH} levels") from None
    except json.JSONDecodeError as error:
        raise InvalidRequest(
            f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    _check(value)
    return value


def model(kind: TypeAdapter[T], body: bytes) -> T:
    """`body` as a model. Raises InvalidRequest (form) or InvalidField (meaning)."""
    if not isinstance(loads(body), dict):
        raise InvalidRequest("the body must be a JSON object")
    try:
        return kind.validate_json(body)
    except ValidationError as error:
        raise invalid(error) from None


def query(kind: type[BaseModel], values: dict[str, Any]) -> BaseModel:
    """Query parameters as a model; the same errors as a body's."""
    for name, value in values.items():
        _check_text(name)
        for text in value if isinstance(value, list) else [value]:
            _check_text(text)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise invalid(error) from None


_CODES: Final = {
    "extra_forbidden": "unknown_field",
    "missing": "missing",
    "union_tag_not_found": "missing",
    "union_tag_invalid": "unknown_kind",
}


def invalid(error: ValidationError) -> InvalidField:
    """Pydantic's findings as our own error: paths like `labels.a` and `scopes[0]`."""
    return InvalidField(
        [
            FieldError(_path(_loc(e)), _CODES.get(e["type"], e["type"]), _message(e))
            for e in error.errors(include_url=False, include_input=False)[:20]
        ]
    )


def _loc(error: Any) -> tuple[int | str, ...]:
    """Of a kind that is none, or is missing, the field that should have said it."""
    loc: tuple[int | str, ...] = error["loc"]
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return (*loc, error["ctx"]["discriminator"].strip("'"))
    return loc


def _message(error: Any) -> str:
    field = _path(_loc(error))
    if error["type"] == "union_tag_invalid":
        return f"{field}: is none of {error['ctx']['expected_tags'].replace(chr(39), '')}"
    if error["type"] == "union_tag_not_found":
        return f"{field}: is needed"
    if error["type"] == "extra_forbidden":
        return f"{field}: there is no such field"
    if error["type"] == "missing":
        return f"{field}: is needed"
    text = error["msg"].removeprefix("Value error, ")
    return f"{field}: {text}" if field else text


_TAGS: Final = frozenset({"claude", "shell", "git"})  # tagged unions put the tag first in `loc`
_INNER: Final = "server:"  # or further in: no name of ours holds a colon there


def _path(loc: tuple[int | str, ...]) -> str:
    parts = loc[1:] if loc and loc[0] in _TAGS else loc
    text = ""
    for part in parts:
        if isinstance(part, str) and part.startswith(_INNER):
            continue
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text[:200]
