"""common/entrypoints/conditions.py: which versions an If-Match names."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from common.domain.errors import InvalidRequest
from common.entrypoints.conditions import etag, if_match


def of(*lines: str) -> frozenset[str] | None:
    return if_match(Headers(raw=[(b"if-match", line.encode()) for line in lines]))


def test_an_etag_comes_back() -> None:
    """What was given out is understood."""
    assert of(etag("abc")) == {"abc"}


def test_one_several_any_or_none() -> None:
    """As RFC 9110 writes them, on one line or more."""
    assert of() is None
    assert of("*") == {"*"}
    assert of('"a", "b"') == {"a", "b"}
    assert of('"a"', '"b"') == {"a", "b"}
    assert of('W/"a", "b"') == {"b"}
    assert of('W/"a"') == frozenset()


@pytest.mark.parametrize("text", ["", "abc", '"a', '"a" "b"', '*, "a"', '"é"', 'w/"a"', '"a",'])
def test_anything_else_is_refused(text: str) -> None:
    """400: a condition that is misread is none."""
    with pytest.raises(InvalidRequest):
        of(text)


def test_there_is_a_bound() -> None:
    """Nobody has that many versions in mind."""
    with pytest.raises(InvalidRequest):
        of(", ".join(f'"{n}"' for n in range(101)))
