"""common/services/read_output.py: stored output as bytes, exactly."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.domain import identifiers
from common.domain.command import Command, Kind, State
from common.domain.errors import (
    Expired,
    InvalidField,
    NotFound,
    RangeNotSatisfiable,
    Unavailable,
)
from common.ports.commands import Segment
from common.services import read_output
from common.services.read_commands import ReadCommands
from common.services.read_output import ReadOutput, streams_of
from tests.unit import fakes
from tests.unit.fakes import CALLER, FakeBell, FakeCommands

COMMAND = fakes.command(state=State.SUCCEEDED)


def store(pieces: list[bytes], stream: str = "merged", command: Command = COMMAND) -> FakeCommands:
    commands, offset = FakeCommands(command), 0
    for seq, data in enumerate(pieces):
        commands.pieces.append(Segment(seq, stream, offset, data))
        offset += len(data)
    return commands


def read(
    commands: FakeCommands, stream: str | None = None, offset: int = 0, limit: int | None = None
) -> Any:
    use = ReadOutput(ReadCommands(commands, FakeBell()), commands)
    [command] = commands.rows.values()
    text = identifiers.show(identifiers.COMMAND, command.id)
    return use(text, stream, offset, limit, CALLER)


@given(
    st.lists(st.binary(min_size=1, max_size=20), max_size=8),
    st.integers(0, 200),
    st.none() | st.integers(1, 200),
    st.integers(1, 30),
)
def test_any_range_is_exactly_those_bytes(
    pieces: list[bytes], offset: int, limit: int | None, page: int
) -> None:
    """Whatever the rows and pages, the answer is the slice, and its length was said before."""
    whole = b"".join(pieces)
    offset = min(offset, len(whole))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read_output, "PAGE_BYTES", page)
        part = read(store(pieces), offset=offset, limit=limit)
        got = b"".join(part.pieces)
    assert got == whole[offset:][:limit]
    assert (part.size, part.length) == (len(whole), len(got))


def test_nothing_printed_is_an_empty_answer() -> None:
    """Offset 0 of 0 bytes is no error."""
    part = read(store([]))
    assert (list(part.pieces), part.length) == ([], 0)


def test_beyond_the_end_is_not_satisfiable() -> None:
    """At the end is fine, one byte further is 416."""
    assert read(store([b"abc"]), offset=3).length == 0
    with pytest.raises(RangeNotSatisfiable):
        read(store([b"abc"]), offset=4)


def test_expired_output_is_404_with_its_own_code() -> None:
    """It was there; its retention is over."""
    commands = store([b"abc"])
    commands.expired = True
    with pytest.raises(Expired) as caught:
        read(commands)
    assert isinstance(caught.value, NotFound)
    assert caught.value.code == "expired"


@pytest.mark.parametrize("kept", [[], [Segment(2, "merged", 8, b"ijkl")]])
def test_output_that_expires_while_it_is_read_is_no_other_output(
    kept: list[Segment], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hole ends the answer; bytes behind it never move into it."""
    monkeypatch.setattr(read_output, "PAGE_BYTES", 2)
    commands = store([b"abcd", b"efgh", b"ijkl"])
    part = read(commands)
    commands.pieces = kept
    with pytest.raises(Expired):
        list(part.pieces)


def test_trouble_before_the_first_byte_is_raised_before_the_answer_begins() -> None:
    """Size known, bytes not to be had: the caller gets the error, not a cut answer."""
    commands = store([b"abcd"])

    def away(*_: Any) -> list[Segment]:
        raise Unavailable("the database cannot be reached")

    commands.output = away  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        read(commands)


@pytest.mark.parametrize(
    ("kind", "spec", "names"),
    [
        (Kind.SHELL, {}, ("merged",)),
        (Kind.SHELL, {"streams": "separate"}, ("stdout", "stderr")),
        (Kind.GIT, {"streams": "merged"}, ("merged",)),
        (Kind.CLAUDE, {}, ("stdout", "stderr")),
    ],
)
def test_which_streams_there_are(kind: Kind, spec: dict[str, Any], names: tuple[str, ...]) -> None:
    """The first is what is read when none is named; another's name is 422."""
    command = fakes.command(kind, state=State.SUCCEEDED, **spec)
    assert streams_of(command) == names
    commands = store([b"x"], names[0], command)
    assert b"".join(read(commands).pieces) == b"x"
    for other in {"merged", "stdout", "stderr"} - set(names):
        with pytest.raises(InvalidField):
            read(commands, other)
