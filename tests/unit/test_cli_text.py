"""Text for terminals, durations and ages."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdev import text


@given(st.text())
def test_printable_text_cannot_steer_a_terminal(given_text: str) -> None:
    """No control character, line break or bidirectional mark is left."""
    shown = text.printable(given_text)
    assert "\x1b" not in shown
    assert "\n" not in shown
    assert "\u202e" not in shown
    assert shown.encode("utf-8").decode("utf-8") == shown


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90", 90), ("30s", 30), ("5m", 300), ("2h", 7200), ("1d", 86400), ("1h30m", 5400)],
)
def test_reads_durations(written: str, seconds: int) -> None:
    """Numbers are seconds; units may be joined."""
    assert text.parse_duration(written) == seconds


@pytest.mark.parametrize("written", ["", "5 m", "m", "-1", "1.5h", "5x", "1h30", "٣s"])
def test_refuses_what_is_no_duration(written: str) -> None:
    """A typing error is refused instead of guessed."""
    with pytest.raises(ValueError, match=r"duration|unit"):
        text.parse_duration(written)


def test_cuts_text_with_an_ellipsis() -> None:
    """What does not fit is cut so that it can be seen."""
    assert text.clipped("abcdef", 4) == "abc…"
    assert text.clipped("abc", 4) == "abc"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0s"), (59.9, "59s"), (60, "1m"), (7199, "1h"), (172800, "2d")]
)
def test_shows_ages_in_one_unit(seconds: float, shown: str) -> None:
    """An age is one number and one unit."""
    now = dt.datetime(2026, 1, 3, tzinfo=dt.UTC)
    assert text.age(now - dt.timedelta(seconds=seconds), now) == shown


def test_shows_no_age_for_no_time() -> None:
    """What never happened has no age, and a clock behind the server's shows none below zero."""
    now = dt.datetime(2026, 1, 3, tzinfo=dt.UTC)
    assert text.age(None, now) == "-"
    assert text.age(now + dt.timedelta(seconds=3), now) == "0s"


@pytest.mark.parametrize("value", [None, 5, "yesterday", "2026-01-01T00:00:00"])
def test_reads_only_times_with_a_zone(value: object) -> None:
    """Anything but an instant is no time."""
    assert text.parse_time(value) is None


def test_reads_the_times_of_the_api() -> None:
    """RFC 3339 with Z, as the server writes it."""
    expected = dt.datetime(2026, 1, 1, 12, 0, 0, 500000, tzinfo=dt.UTC)
    assert text.parse_time("2026-01-01T12:00:00.500Z") == expected


def test_refuses_bytes_that_are_not_utf8() -> None:
    """A surrogate, as Python makes from foreign bytes, is refused."""
    with pytest.raises(ValueError, match="not valid UTF-8"):
        text.require_utf8("a\udcff")
