"""common/entrypoints/strict_json.py: what is refused before anybody looks at its meaning."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from common.domain.errors import InvalidField, InvalidRequest
from common.entrypoints import strict_json
from common.entrypoints.strict_json import MAX_DEPTH, MAX_INT_DIGITS

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(JSON, st.booleans())
def test_json_is_read_as_the_standard_parser_reads_it(value: Any, ascii_only: bool) -> None:
    """Whatever is fine is unchanged."""
    assert strict_json.loads(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_refused(body: bytes) -> None:
    """No body at all is an error of ours."""
    with suppress(InvalidRequest):
        strict_json.loads(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"{'a':1}",
        b'{"a":1,}',
        b"{} {}",
        b"// c\n{}",
        b"NaN",
        b'{"a":Infinity}',
        b'{"a":[-Infinity]}',
        b'{"a":1e999}',
        b'{"a":-1e999}',
        b'{"a":1,"a":2}',
        b'{"a":{"b":1,"\\u0062":2}}',
        b'{"a":"\\ud800"}',
        b'{"a":["x\\udfff"]}',
        b'{"\\ud800":1}',
        b'{"a":"\\u0000"}',
        b'{"\\u0000":1}',
        b'"\x00"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\xc0\xaf"',
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        b'{"a":' + b"9" * (MAX_INT_DIGITS + 1) + b"}",
        b'{"a":' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_is_not_our_json_is_a_bad_request(body: bytes) -> None:
    """400, with a short text that can itself be sent."""
    with pytest.raises(InvalidRequest) as caught:
        strict_json.loads(body)
    assert len(caught.value.detail.encode()) < 300


@pytest.mark.parametrize(
    "body",
    [
        b"[" * MAX_DEPTH + b"]" * MAX_DEPTH,
        b'{"a":' + b"9" * MAX_INT_DIGITS + b"}",
        b'"\\ud83d\\ude00"',
        b" {} ",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_is_just_allowed_is_read(body: bytes) -> None:
    """The limits themselves are inside; a pair of surrogates is a character."""
    strict_json.loads(body)


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    count: int = 0
    inner: list[Annotated[int, Field(ge=0)]] = []
    labels: dict[str, str] = {}


MODEL = TypeAdapter(Thing)


def refused(body: bytes) -> list[tuple[str, str]]:
    with pytest.raises(InvalidField) as caught:
        strict_json.model(MODEL, body)
    assert all(e.message for e in caught.value.errors)
    return [(e.field, e.code) for e in caught.value.errors]


def test_a_body_becomes_a_model() -> None:
    """What fits is taken as it is."""
    assert strict_json.model(MODEL, b'{"name":"x","count":3}') == Thing(name="x", count=3)


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"1", b"null", b"true"])
def test_a_body_that_is_no_object_is_a_bad_request(body: bytes) -> None:
    """JSON, but nothing that could have fields."""
    with pytest.raises(InvalidRequest):
        strict_json.model(MODEL, body)


def test_every_wrong_field_is_named() -> None:
    """With its path, a code, and a sentence."""
    body = b'{"count":"3","inner":[1,-1],"labels":{"a":1},"extra":1}'
    assert sorted(refused(body)) == [
        ("count", "int_type"),
        ("extra", "unknown_field"),
        ("inner[1]", "greater_than_equal"),
        ("labels.a", "string_type"),
        ("name", "missing"),
    ]


def test_a_thousand_mistakes_are_answered_with_the_first_few() -> None:
    """The answer does not grow with the attack."""
    body = json.dumps({"name": "x"} | {f"f{n}": 1 for n in range(1000)}).encode()
    assert len(refused(body)) == 20


def test_a_very_long_field_name_is_cut() -> None:
    """In the path at least."""
    [(field, code)] = refused(json.dumps({"name": "x", "y" * 10_000: 1}).encode())
    assert (len(field), code) == (200, "unknown_field")


def test_a_query_is_held_to_the_same_rules() -> None:
    """NUL and surrogates in names and values are 400, wrong values 422."""

    class Wanted(BaseModel):
        model_config = ConfigDict(extra="forbid")
        limit: int = 50
        label: list[str] = []

    assert strict_json.query(Wanted, {"limit": "7"}) == Wanted(limit=7)
    for bad in ({"limit\0": "1"}, {"limit": "\0"}, {"label": ["ok", "\ud800"]}):
        with pytest.raises(InvalidRequest):
            strict_json.query(Wanted, bad)
    for wrong in ({"limit": "x"}, {"other": "1"}):
        with pytest.raises(InvalidField):
            strict_json.query(Wanted, wrong)
