"""common/domain/frontmatter.py: YAML with bounds, lines, and claude's own way with broken ones."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.domain.frontmatter import Frontmatter, beginning, body_of, parse


def front(yaml: str, body: str = "body\n") -> Frontmatter:
    return parse(f"---\n{yaml}\n---\n{body}")


def test_fields_have_values_and_lines() -> None:
    """Of every type, by the line of the key in the whole file."""
    found = front(
        "# a comment\nname: a-b\nlist:\n  - x\n  - 'y'\nmap: {a: 1, b: null}\non: true\nn: 1.5\n"
        "empty:"
    )
    assert found.fields == {
        "name": "a-b", "list": ["x", "y"], "map": {"a": 1, "b": None}, "on": True, "n": 1.5,
        "empty": None,
    }  # fmt: skip
    assert found.lines == {"name": 3, "list": 4, "map": 7, "on": 8, "n": 9, "empty": 10}
    assert (found.complaints, found.guessed) == ((), False)


@pytest.mark.parametrize(
    ("text", "value"),
    [("yes", "yes"), ("on", "on"), ("No", "No"), ("2026-01-01", "2026-01-01"), ("0o7", "0o7"),
     ("1:30", "1:30"), ("True", True), ("~", None), ("-3", -3), ("1e3", 1000.0), ('"1"', "1"),
     ("0x1f", "0x1f"), ("<<", "<<"), ("=", "=")],
)  # fmt: skip
def test_words_are_words(text: str, value: Any) -> None:
    """The core schema of YAML 1.2, as claude has it, and not 1.1's wealth of booleans and dates."""
    found = front(f"a: {text}").fields["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "text", ["", "text", "--- x\na: 1\n---\n", "\n---\na: 1\n---\n", " ---\na: 1\n---\n", "----\n"]
)
def test_without_two_fences_there_is_none(text: str) -> None:
    """The first line is the fence, or nothing is."""
    assert parse(text) == Frontmatter()
    assert body_of(text) == text


def test_an_open_one_is_said() -> None:
    """claude takes it for text; whoever wrote it meant something else."""
    found = parse("---\na: 1\n")
    assert (found.present, [c.code for c in found.complaints]) == (False, ["not_closed"])


@pytest.mark.parametrize(
    "text", ["---\r\na: x\r\n---\r\nb", "\ufeff---\na: x\n---\nb", "---  \na: x\n--- \nb"]
)
def test_windows_and_spaces_do_no_harm(text: str) -> None:
    """As claude takes them."""
    assert parse(text).fields == {"a": "x"}
    assert body_of(text) == "b"


def test_an_empty_one_is_there() -> None:
    """With no fields."""
    assert parse("---\n---\nx") == Frontmatter(present=True)


@pytest.mark.parametrize(
    ("yaml", "code", "line"),
    [
        ("a: 1\na: 2", "duplicate_key", 3),
        ("a: &x 1\nb: *x", "alias", 2),
        ("a: 1\nb: [1", "invalid_yaml", 4),
        ("a: 1\nb: x: y", "invalid_yaml", 3),
        ("a: !!binary eA==", "invalid_yaml", 2),
        ("- a", "invalid_yaml", 2),
        ("just text", "invalid_yaml", 2),
        ("[a]: 1", "invalid_yaml", 2),
        ("a: 1\n--- !x\nb: 2", "invalid_yaml", 3),
        ("a: " + "[" * 9 + "]" * 9, "invalid_yaml", 2),
        ("a: [" + "1," * 1001 + "]", "invalid_yaml", 2),
        ("a: " + "x" * 17_000, "too_large", 1),
    ],
)
def test_what_is_wrong_has_a_line(yaml: str, code: str, line: int) -> None:
    """And never quotes what it is about."""
    complaint = front(yaml).complaints[0]
    assert (complaint.code, complaint.line) == (code, line)
    assert len(complaint.message) < 200


def test_aliases_do_not_multiply() -> None:
    """A thousand million values would come of this; a thousand are read."""
    lines = ["a: &a [x, x]"]
    lines += [
        f"{n}: &{n} [*{b}, *{b}]" for b, n in zip("abcdefghijklmn", "bcdefghijklmno", strict=True)
    ]
    found = front("\n".join(lines))
    assert [c.code for c in found.complaints] == ["invalid_yaml"]
    assert found.fields == {}


@pytest.mark.parametrize(
    ("yaml", "fields"),
    [
        ("name: a\ndescription: Use this: when", {"name": "a", "description": "Use this: when"}),
        ("description: [1", {"description": "[1"}),
        ('description: say "x": y', {"description": 'say "x": y'}),
        ("\tname: a\n\tdescription: b", {"name": "a", "description": "b"}),
        ('name: a\ndescription: "abc', {}),
    ],
)
def test_broken_yaml_is_guessed_as_claude_does(yaml: str, fields: dict[str, str]) -> None:
    """Values with special characters are taken as text; what still does not parse has no fields."""
    found = front(yaml)
    assert (found.fields, found.guessed) == (fields, bool(fields))
    assert found.complaints[0].code == "invalid_yaml"


@given(st.text(alphabet=st.sampled_from(" \n\t-:[]{}'\"&*!|>#%@`,ab1~\x07\u2028é"), max_size=60))
def test_nothing_breaks_it(yaml: str) -> None:
    """Whatever is between the fences, there is an answer."""
    found = front(yaml)
    assert set(found.lines) == set(found.fields)
    assert all(complaint.line >= 1 for complaint in found.complaints)


@given(st.text(alphabet=st.sampled_from("-\n a\r"), max_size=30), st.text(max_size=10))
def test_the_beginning_is_all_that_is_needed(head: str, tail: str) -> None:
    """What a workspace sends of a file reads like the file."""
    text = f"---\n{head}\n---\n{tail}"
    assert parse(beginning(text)).fields == parse(text).fields
