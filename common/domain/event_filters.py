"""Which events a trigger is for: the filter dialects of CloudEvents Subscriptions 1.0 (3.2.4).

`exact`, `prefix` and `suffix` compare context attributes with text, `all`, `any` and `not` put
filters together. There is no query language: what a filter says can be read at a glance, and no
event makes one slow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from common.domain.errors import FieldError

MAX_DEPTH: Final = 8
MAX_PARTS: Final = 64  # filters and compared attributes in one filter
MAX_TEXT: Final = 1024  # no attribute of an accepted event is longer

_COMPARE: Final[dict[str, Callable[[str, str], bool]]] = {
    "exact": str.__eq__,
    "prefix": str.startswith,
    "suffix": str.endswith,
}
_ATTRIBUTE: Final = re.compile(r"[a-z0-9]{1,64}")


def matches(wanted: Mapping[str, Any], attributes: Mapping[str, str]) -> bool:
    """Whether an event with these attributes fits; an attribute it lacks fits nothing."""
    ((dialect, value),) = wanted.items()
    if dialect == "all":
        return all(matches(part, attributes) for part in value)
    if dialect == "any":
        return any(matches(part, attributes) for part in value)
    if dialect == "not":
        return not matches(value, attributes)
    compare = _COMPARE[dialect]
    return all(
        name in attributes and compare(attributes[name], text) for name, text in value.items()
    )


def flaws(wanted: Any) -> list[FieldError]:
    """What is wrong with a filter somebody wrote; nothing when it can be stored."""
    found = list(_flaws(wanted, "filter", 1))
    if not found and _parts(wanted) > MAX_PARTS:
        found.append(_flaw("filter", f"has more than {MAX_PARTS} parts"))
    return found[:20]


def _flaws(wanted: Any, path: str, depth: int) -> Iterator[FieldError]:
    if not isinstance(wanted, dict) or len(wanted) != 1:
        yield _flaw(path, "must be one of exact, prefix, suffix, all, any, not")
        return
    if depth > MAX_DEPTH:
        yield _flaw(path, f"is nested deeper than {MAX_DEPTH} filters")
        return
    ((dialect, value),) = wanted.items()
    below = f"{path}.{dialect}"[:200]
    if dialect in ("all", "any"):
        yield from _flaws_of_list(value, below, depth)
    elif dialect == "not":
        yield from _flaws(value, below, depth + 1)
    elif dialect in _COMPARE:
        yield from _flaws_of_attributes(value, below)
    else:
        yield _flaw(path, f"{dialect[:40]!r} is none of exact, prefix, suffix, all, any, not")


def _flaws_of_list(value: Any, path: str, depth: int) -> Iterator[FieldError]:
    if not isinstance(value, list) or not value:
        yield _flaw(path, "must be a list with at least one filter")
        return
    for number, part in enumerate(value[: MAX_PARTS + 1]):
        yield from _flaws(part, f"{path}[{number}]", depth + 1)


def _flaws_of_attributes(value: Any, path: str) -> Iterator[FieldError]:
    if not isinstance(value, dict) or not value:
        yield _flaw(path, 'must name attributes, such as {"type": "com.github.push"}')
        return
    for name, text in value.items():
        if not _ATTRIBUTE.fullmatch(name):
            yield _flaw(path, f"{name[:60]!r} is no attribute (a to z and 0 to 9)")
        elif not isinstance(text, str) or not 0 < len(text) <= MAX_TEXT:
            yield _flaw(f"{path}.{name}", f"must be a text of 1 to {MAX_TEXT} characters")


def _parts(wanted: Mapping[str, Any]) -> int:
    ((dialect, value),) = wanted.items()
    if dialect in ("all", "any"):
        return 1 + sum(map(_parts, value))
    return 1 + (_parts(value) if dialect == "not" else len(value))


def _flaw(path: str, message: str) -> FieldError:
    return FieldError(path, "invalid_filter", f"{path}: {message}")
