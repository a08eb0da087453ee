"""common/entrypoints/models/base.py and the names of commands.py, over anything at all."""

from __future__ import annotations

import posixpath
import re
import sys
import unicodedata
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from common.entrypoints.models.base import ONE_LINE, WHOLE, Labels, Moment, Name
from common.entrypoints.models.commands import Folder, ProjectName

ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=110)
ODD = st.text(st.sampled_from("az09AZ-_./\\~ \n\t\x00\u202e\u200bé%"), max_size=70)
TEXTS = ANY | ODD
HIDDEN = ("Cc", "Cf", "Zl", "Zp")


def accepted(kind: Any, value: Any) -> Any:
    """The value as it is kept; None when it is refused."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return None


@pytest.mark.row(39, 40)
@given(TEXTS)
def test_a_name_is_kept_as_it_is_or_refused(text: str) -> None:
    """One visible line of 1 to 100 characters; nothing is taken out to make it one."""
    visible = not any(unicodedata.category(c) in HIDDEN for c in text)
    kept = accepted(Name, text)
    assert kept == (text if visible and 0 < len(text) <= 100 else None)
    if kept is not None:
        assert re.search(ONE_LINE, text)


def test_the_document_says_which_characters_a_name_may_not_have() -> None:
    """All of them but those for which its patterns have no escape."""
    wide = range(0x10000)
    hidden = {c for c in map(chr, wide) if unicodedata.category(c) in HIDDEN}
    assert {c for c in map(chr, wide) if not re.search(ONE_LINE, f"a{c}a")} >= hidden
    assert sum(unicodedata.category(chr(c)) in HIDDEN for c in range(0x10000, sys.maxunicode)) < 250


@pytest.mark.row(42)
@given(TEXTS)
@example("a\n")
@example("..")
def test_a_project_is_one_plain_folder(text: str) -> None:
    """Lower-case ASCII, digits and inner hyphens: no path, no option, no other case of another."""
    if accepted(ProjectName, text) is None:
        return
    assert text.isascii() and text == text.lower() and 0 < len(text) <= 63
    assert set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert text[0] != "-" and text[-1] != "-"


@pytest.mark.row(48)
@given(TEXTS | st.lists(st.sampled_from(["..", ".", "a", "", "..."]), max_size=8).map("/".join))
def test_a_folder_lies_in_the_workspace(text: str) -> None:
    """Joined to the workspace it leads nowhere else, and the document says which do."""
    kept = accepted(Folder, text)
    pattern = TypeAdapter(Folder).json_schema()["pattern"]
    if kept is not None:
        inside = posixpath.normpath(posixpath.join("/w", kept))
        assert inside == "/w" or inside.startswith("/w/")
        assert re.search(pattern, text) or text.endswith("\n")  # Python's $ is before a last \n too
    elif 0 < len(text) <= 1024:
        assert not re.search(pattern, text)


@given(st.dictionaries(TEXTS, TEXTS, max_size=3))
def test_a_label_is_plain_and_its_value_visible(labels: dict[str, str]) -> None:
    """Names can stand in a filter `name=value`, values on a line."""
    kept = accepted(Labels, labels)
    if kept is not None:
        assert kept == labels
        assert all("=" not in name and name.isascii() and len(name) <= 63 for name in kept)
        assert all(re.search(ONE_LINE, value) for value in kept.values())


@given(
    st.datetimes(),
    st.timedeltas(min_value=timedelta(hours=-23), max_value=timedelta(hours=23)).map(
        lambda offset: timezone(timedelta(minutes=offset // timedelta(minutes=1)))
    ),
)
def test_any_moment_can_be_asked_about(at: datetime, zone: timezone) -> None:
    """Also year 1 in the east, which no calendar can turn into UTC: nothing of ours was before."""
    kept = accepted(Moment, at.replace(tzinfo=zone))
    assert datetime(2000, 1, 1, tzinfo=UTC) <= kept <= datetime(2200, 1, 1, tzinfo=UTC)
    assert kept.astimezone(UTC)


@given(st.floats() | st.integers() | st.booleans() | st.text())
def test_a_whole_number_is_an_integer_however_it_is_written(value: Any) -> None:
    """And what is none stays what it was, to be refused."""
    kept = WHOLE.func(value)  # type: ignore[call-arg]
    if isinstance(value, float) and value.is_integer():
        assert isinstance(kept, int) and kept == value
    else:
        assert kept is value
