"""common/domain/event_filters.py: the filters of CloudEvents Subscriptions, and what is refused."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.domain.event_filters import MAX_DEPTH, MAX_PARTS, MAX_TEXT, flaws, matches

EVENT = {"type": "com.github.push", "source": "https://github.com/acme/site", "x": "1"}
TYPE = {"exact": {"type": "com.github.push"}}
OTHER = {"exact": {"type": "other"}}


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        (TYPE, True),
        (OTHER, False),
        ({"exact": {"type": "com.github.push", "x": "1"}}, True),
        ({"exact": {"type": "com.github.push", "x": "2"}}, False),
        ({"exact": {"missing": "1"}}, False),
        ({"prefix": {"source": "https://github.com/acme/"}}, True),
        ({"prefix": {"source": "github.com"}}, False),
        ({"prefix": {"missing": "1"}}, False),
        ({"suffix": {"type": ".push"}}, True),
        ({"suffix": {"type": ".PUSH"}}, False),
        ({"all": [TYPE, {"suffix": {"source": "site"}}]}, True),
        ({"all": [TYPE, OTHER]}, False),
        ({"any": [OTHER, TYPE]}, True),
        ({"any": [OTHER]}, False),
        ({"not": OTHER}, True),
        ({"not": TYPE}, False),
        ({"not": {"exact": {"missing": "1"}}}, True),
        ({"all": [{"any": [OTHER, TYPE]}, {"not": {"any": [OTHER]}}]}, True),
    ],
)
def test_a_filter_fits_or_does_not(wanted: dict[str, Any], fits: bool) -> None:
    """As the specification says; an attribute that is not there fits nothing."""
    assert flaws(wanted) == []
    assert matches(wanted, EVENT) is fits


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({}, "filter"),
        ([], "filter"),
        ("type = 'x'", "filter"),
        (None, "filter"),
        (TYPE | {"any": [TYPE]}, "filter"),
        ({"sql": "type = 'x'"}, "filter"),
        ({"cesql": "1"}, "filter"),
        ({"all": []}, "filter.all"),
        ({"all": TYPE}, "filter.all"),
        ({"any": [TYPE, 1]}, "filter.any[1]"),
        ({"not": [TYPE]}, "filter.not"),
        ({"exact": {}}, "filter.exact"),
        ({"exact": []}, "filter.exact"),
        ({"exact": {"Type": "x"}}, "filter.exact"),
        ({"exact": {"data.ref": "x"}}, "filter.exact"),
        ({"exact": {"type": ""}}, "filter.exact.type"),
        ({"exact": {"type": 1}}, "filter.exact.type"),
        ({"prefix": {"type": "x" * (MAX_TEXT + 1)}}, "filter.prefix.type"),
        ({"all": [TYPE] * (MAX_PARTS + 1)}, "filter"),
    ],
)
def test_what_is_no_filter_is_named(wanted: Any, field: str) -> None:
    """By its path, so that it can be mended."""
    assert flaws(wanted)[0].field == field


def test_depth_is_bounded() -> None:
    """Up to the limit and not beyond."""

    def nested(times: int) -> dict[str, Any]:
        return functools.reduce(lambda inner, _: {"not": inner}, range(times), dict(TYPE))

    assert flaws(nested(MAX_DEPTH - 1)) == []
    assert "nested deeper" in flaws(nested(MAX_DEPTH))[0].message


NAMES = st.sampled_from(["type", "source", "x", "missing"])
LEAVES = st.dictionaries(NAMES, st.text("ab.", min_size=1, max_size=3), min_size=1).flatmap(
    lambda wanted: st.sampled_from([{d: wanted} for d in ("exact", "prefix", "suffix")])
)
FILTERS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"all": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"any": parts}),
        inner.map(lambda part: {"not": part}),
    ),
    max_leaves=8,
)
EVENTS = st.dictionaries(NAMES, st.text("ab.", max_size=3))


@given(FILTERS, EVENTS)
def test_filters_obey_the_laws_of_logic(wanted: dict[str, Any], event: dict[str, str]) -> None:
    """De Morgan, double negation, and one part is the part itself."""
    if flaws(wanted):
        return  # nested too deep
    fits = matches(wanted, event)
    assert matches({"not": wanted}, event) is not fits
    assert matches({"all": [wanted]}, event) is matches({"any": [wanted]}, event) is fits
    both = [wanted, TYPE]
    negated = {"any": [{"not": part} for part in both]}
    assert matches({"not": {"all": both}}, event) is matches(negated, event)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(
    st.sampled_from(["exact", "all", "any", "not", "prefix", "x"]), x), max_leaves=10))  # fmt: skip
def test_whatever_is_accepted_can_be_asked(wanted: Any) -> None:
    """A filter without a flaw never breaks on an event."""
    if not flaws(wanted):
        matches(wanted, EVENT)
