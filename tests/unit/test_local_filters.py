"""Knative's filter dialects."""

from __future__ import annotations

from typing import Any

import pytest

from infra.local.filters import FilterError, parse_attributes, parse_filters

EVENT = {"type": "a.b.created", "source": "/rdev", "id": "1", "subject": "projects/demo"}


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        ({}, True),
        ({"type": "a.b.created"}, True),
        ({"type": "a.b"}, False),
        ({"type": "a.b.created", "source": "/rdev"}, True),
        ({"type": "a.b.created", "source": "/other"}, False),
        ({"subject": ""}, True),
        ({"missing": ""}, False),
        ({"missing": "x"}, False),
    ],
)
def test_attributes_must_be_there_and_equal_and_empty_means_any(
    wanted: dict[str, str], matches: bool
) -> None:
    """`filter.attributes` compares exactly, and an empty value asks only for presence."""
    assert parse_attributes(wanted)(EVENT) is matches


@pytest.mark.parametrize(
    ("dialects", "matches"),
    [
        ([{"exact": {"type": "a.b.created"}}], True),
        ([{"exact": {"type": "a.b"}}], False),
        ([{"prefix": {"type": "a.b."}}], True),
        ([{"prefix": {"type": "b."}}], False),
        ([{"suffix": {"type": ".created"}}], True),
        ([{"suffix": {"type": ".gone"}}], False),
        ([{"prefix": {"type": "a", "source": "/r"}}], True),
        ([{"prefix": {"type": "a", "source": "/x"}}], False),
        ([{"prefix": {"missing": "a"}}], False),
        ([{"exact": {"type": "a.b.created"}}, {"exact": {"source": "/x"}}], False),
        ([{"any": [{"exact": {"type": "x"}}, {"suffix": {"type": ".created"}}]}], True),
        ([{"any": [{"exact": {"type": "x"}}, {"exact": {"type": "y"}}]}], False),
        ([{"all": [{"prefix": {"type": "a"}}, {"suffix": {"type": "created"}}]}], True),
        ([{"all": [{"prefix": {"type": "a"}}, {"suffix": {"type": "gone"}}]}], False),
        ([{"not": {"prefix": {"type": "a"}}}], False),
        ([{"not": {"any": [{"exact": {"type": "x"}}, {"exact": {"id": "2"}}]}}], True),
    ],
)
def test_dialects_nest_and_all_of_a_list_must_agree(
    dialects: list[dict[str, Any]], matches: bool
) -> None:
    """Each dialect compares as Knative says, alone, nested and in a list."""
    assert parse_filters(dialects)(EVENT) is matches


@pytest.mark.parametrize(
    "dialect", [{"cesql": "type = 'a'"}, {"exact": {}}, {}, {"exact": {"a": "b"}, "prefix": {}}]
)
def test_what_cannot_be_followed_is_refused(dialect: dict[str, Any]) -> None:
    """An unknown dialect, two in one, or none are errors instead of a guess."""
    with pytest.raises(FilterError):
        parse_filters([dialect])
