"""Which events a Trigger wants: Knative's filter dialects over CloudEvents attributes.

`filter.attributes` is the old form; `filters` a list of dialects that must all agree (exact,
prefix, suffix, all, any, not). CESQL is refused rather than misread.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Attributes = Mapping[str, str]
Filter = Callable[[Attributes], bool]


class FilterError(ValueError):
    """A filter that this broker cannot follow."""


def parse_attributes(wanted: Mapping[str, str]) -> Filter:
    """Read `filter.attributes`: each must be there and equal; the empty value means any value."""

    def matches(event: Attributes) -> bool:
        return all(name in event and value in {"", event[name]} for name, value in wanted.items())

    return matches


def parse_filters(dialects: Sequence[Mapping[str, Any]]) -> Filter:
    """Read `filters`, or the list under `all`: every one must agree."""
    parts = [_parse_dialect(dialect) for dialect in dialects]
    return lambda event: all(part(event) for part in parts)


def _parse_dialect(dialect: Mapping[str, Any]) -> Filter:
    if len(dialect) != 1:
        raise FilterError(f"a filter has exactly one dialect, this one has {sorted(dialect)}")
    ((name, argument),) = dialect.items()
    if name not in _DIALECTS:
        raise FilterError(f"filter dialect {name!r} is not one of {', '.join(sorted(_DIALECTS))}")
    return _DIALECTS[name](argument)


def _comparing(compare: Callable[[str, str], bool]) -> Callable[[Mapping[str, str]], Filter]:
    def parse(wanted: Mapping[str, str]) -> Filter:
        if not wanted:
            raise FilterError("a filter must name at least one attribute")
        return lambda event: all(
            name in event and compare(event[name], value) for name, value in wanted.items()
        )

    return parse


def _any(dialects: Sequence[Mapping[str, Any]]) -> Filter:
    parts = [_parse_dialect(dialect) for dialect in dialects]
    return lambda event: any(part(event) for part in parts)


def _not(dialect: Mapping[str, Any]) -> Filter:
    part = _parse_dialect(dialect)
    return lambda event: not part(event)


_DIALECTS: Mapping[str, Callable[[Any], Filter]] = {
    "exact": _comparing(str.__eq__),
    "prefix": _comparing(str.startswith),
    "suffix": _comparing(str.endswith),
    "all": parse_filters,
    "any": _any,
    "not": _not,
}
