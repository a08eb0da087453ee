"""Who speaks on which stream, and what is kept from it."""

from __future__ import annotations

import os
import pty
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rdev.errors import ReaderGone
from rdev.output import Console


@contextmanager
def pipe_console() -> Iterator[tuple[Console, int, int]]:
    """A console on two pipes, and their reading ends."""
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    try:
        yield Console({}, out=out_write, err=err_write), out_read, err_read
    finally:
        for descriptor in (out_read, out_write, err_read, err_write):
            os.close(descriptor)


@contextmanager
def terminal_console(**environ: str) -> Iterator[tuple[Console, int]]:
    """A console whose two streams are one raw terminal, and the terminal's other side."""
    outside, inside = pty.openpty()
    tty.setraw(inside)
    try:
        yield Console(environ, out=inside, err=inside), outside
    finally:
        os.close(outside)
        os.close(inside)


def read(descriptor: int, size: int) -> bytes:
    """Exactly `size` bytes: a terminal hands out what was written in pieces of its own."""
    found = b""
    while len(found) < size:
        found += os.read(descriptor, size - len(found))
    return found


def test_passes_bytes_through_unchanged() -> None:
    """What the command writes arrives byte for byte on the stream it was written to."""
    data = bytes(range(256))
    with pipe_console() as (console, out, err):
        console.remote("stdout", data)
        console.remote("merged", b"m")
        console.remote("stderr", data)
        assert os.read(out, 1000) == data + b"m"
        assert os.read(err, 1000) == data


def test_progress_is_only_for_terminals() -> None:
    """In a pipe rdev says nothing of its own but warnings and errors."""
    with pipe_console() as (console, _, err):
        console.say("reconnecting…")
        console.warn("lost")
        console.error("bad", "do this")
        assert os.read(err, 1000) == b"rdev: lost\nrdev: bad\nrdev: do this\n"


def test_progress_begins_on_its_own_line() -> None:
    """A note never glues itself to half a line of output."""
    with terminal_console(NO_COLOR="1") as (console, outside):
        console.remote("stdout", b"half")
        console.say("note")
        console.remote("stdout", b"whole\n")
        console.say("note")
        expected = b"half\nrdev: note\nwhole\nrdev: note\n"
        assert read(outside, len(expected)) == expected


def test_colours_a_terminal() -> None:
    """On a terminal notes stand out from the output."""
    with terminal_console() as (console, outside):
        console.say("note")
        expected = b"\x1b[2mrdev: note\x1b[0m\n"
        assert read(outside, len(expected)) == expected


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_honours_no_color(environ: dict[str, str]) -> None:
    """NO_COLOR and a dumb terminal get no escape sequence."""
    with terminal_console(**environ) as (console, outside):
        console.warn("note")
        console.line(console.styled("x", "red"))
        expected = b"rdev: note\nx\n"
        assert read(outside, len(expected)) == expected


def test_a_closed_reader_is_noticed() -> None:
    """Writing to a pipe that nobody reads is an error of its own."""
    unread, write = os.pipe()
    os.close(unread)
    console = Console({}, out=write, err=write)
    with pytest.raises(ReaderGone):
        console.remote("stdout", b"x")
    console.warn("nobody hears this")
    os.close(write)


def test_survives_a_descriptor_that_does_not_block() -> None:
    """A pipe made non-blocking by another program loses no byte."""
    data = os.urandom(1 << 20)
    out, write = os.pipe()
    os.set_blocking(write, False)
    console = Console({}, out=write, err=write)

    def write_and_close() -> None:
        console.remote("stdout", data)
        os.close(write)

    writer = threading.Thread(target=write_and_close)
    writer.start()
    with os.fdopen(out, "rb") as file:
        assert file.read() == data
    writer.join()


def test_prints_json_as_utf8() -> None:
    """JSON is readable and one document."""
    with pipe_console() as (console, out, _):
        console.json({"a": "ü"}, compact=True)
        assert os.read(out, 100) == '{"a": "ü"}\n'.encode()
