"""common/domain/members.py: the small members of an object that is too large to be parsed."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.domain import members as module
from common.domain.members import MAX_MEMBER, Members, loads


def fed(raw: bytes, cuts: list[int] | None = None) -> Members:
    borders = [0, *sorted(c % (len(raw) + 1) for c in cuts or []), len(raw)]
    found = Members()
    for a, b in pairwise(borders):
        found.feed(raw[a:b])
    return found


NAMES = st.text("abcdef_1", min_size=1, max_size=5)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(NAMES, VALUES, max_size=6),
    st.lists(st.integers(0, 10**4), max_size=9),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_small_members_are_what_a_parser_finds(
    value: dict[str, Any], cuts: list[int], indent: int | None, ascii_only: bool
) -> None:
    """However the bytes arrive, and however they are spaced."""
    raw = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode() + b"\n"
    found = fed(raw, cuts)
    assert found.whole
    assert found.kept == value
    assert found.too_large == set()


@pytest.mark.parametrize(
    "large",
    ["x" * 5000, "\\" * 5000, '"' * 5000, ["a,b"] * 2000, {"a": {"b": ["}"] * 3000}}, [[]] * 3000],
    ids=["text", "escapes", "quotes", "list", "object", "brackets"],
)
@given(cuts=st.lists(st.integers(0, 10**5), max_size=5))
def test_a_large_member_is_passed_over(large: Any, cuts: list[int]) -> None:
    """Those before and behind it are found."""
    found = fed(json.dumps({"type": "user", "large": large, "uuid": "u"}).encode(), cuts)
    assert (found.kept, found.too_large) == ({"type": "user", "uuid": "u"}, {"large"})
    assert found.whole


def test_what_is_kept_is_bounded() -> None:
    """Many members are small only one by one."""
    found = fed(json.dumps({f"m{n}": "x" * (MAX_MEMBER - 50) for n in range(9)}).encode())
    assert len(found.kept) == 3
    assert len(found.too_large) == 6


@pytest.mark.parametrize(
    "raw",
    [b"", b"x", b"[1]", b'"a"', b'{"a":1', b'{"a":1}{}', b'{"a":1} x', b' x{"a":1}', b"}", b"\xff"],
)
def test_what_is_no_single_object_is_not_whole(raw: bytes) -> None:
    """A torn line decides nothing."""
    assert not fed(raw).whole


def test_members_that_are_no_json_are_left_out() -> None:
    """The rest stands."""
    found = fed(b'{"a":NaN,"b":1e999,"c":tru,"d":1,"e":"\xff","a b":1}')
    assert (found.kept, found.whole) == ({"d": 1}, True)


def test_there_is_an_end_to_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that would take minutes is given up."""
    monkeypatch.setattr(module, "_MOST_TURNS", 100)
    assert not fed(b'{"a":' + b"[" * 200 + b"]" * 200 + b"}").whole


@pytest.mark.parametrize("data", [b"NaN", b"-Infinity", b"1e999", b"[" * 100_000, b"\xff", b""])
def test_what_could_not_be_written_again_is_not_read(data: bytes) -> None:
    """One error for all of it."""
    with pytest.raises(ValueError, match=r"."):
        loads(data)
