"""common/entrypoints/rate_headers.py: the current IETF draft's syntax."""

from __future__ import annotations

import pytest

from common.entrypoints.rate_headers import rate_headers


@pytest.mark.parametrize(
    ("remaining", "reset", "expected"),
    [
        (12, 30.2, '"default";r=12;t=31'),
        (0, 0.0, '"default";r=0;t=0'),
        (-3, 1.0, '"default";r=0;t=1'),
    ],
)
def test_headers_are_written_as_in_api_md(remaining: int, reset: float, expected: str) -> None:
    """Whole seconds, rounded up; never less than nothing left."""
    assert rate_headers(100, 60, remaining, reset) == {
        "ratelimit-policy": '"default";q=100;w=60',
        "ratelimit": expected,
    }
