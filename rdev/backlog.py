"""The output that is stored already, read by offset.

`/output` gives bytes from an offset, so any cut is repaired by asking again behind the last byte,
and the last lines of a long output need only its end.
"""

from __future__ import annotations

import builtins
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rdev.errors import OutcomeUnknown, StreamBroken
from rdev.resources import Command
from rdev.retry import REQUEST_S, Backoff, Clock

if TYPE_CHECKING:
    from rdev.http import Api

_FIRST_WINDOW: Final = 64 * 1024
_GROWTH: Final = 8


class Tail:
    """The last lines of what is written to it. A last line without an end counts as one."""

    def __init__(self, lines: int) -> None:
        self._wanted = lines
        self._lines: deque[bytes] = deque(maxlen=lines)
        self._partial: list[bytes] = []
        self._ended = 0

    def write(self, data: bytes) -> None:
        """Take more bytes."""
        for piece in _lines(data):
            self._partial.append(piece)
            if piece.endswith(b"\n"):
                self._lines.append(b"".join(self._partial))
                self._partial.clear()
                self._ended += 1

    @property
    def is_whole(self) -> bool:
        """Whether each wanted line is whole, even if writing began inside a line."""
        return self._ended + bool(self._partial) > self._wanted

    def content(self) -> bytes:
        """The last lines."""
        rest = [b"".join(self._partial)] if self._partial else []
        return b"".join([*self._lines, *rest][-self._wanted :])


def _lines(data: bytes) -> list[bytes]:
    """Cut after each LF only: a progress bar made of CRs is one line."""
    parts = data.split(b"\n")
    ended = [part + b"\n" for part in parts[:-1]]
    return [*ended, parts[-1]] if parts[-1] else ended


@dataclass(slots=True)
class End:
    """How far a stored output reached when it was read: bytes, and lines for claude's events."""

    bytes: int = 0
    lines: int = 0

    def add(self, piece: builtins.bytes, write: Callable[[builtins.bytes], None]) -> None:
        """Write a piece, and count it once that is done."""
        write(piece)
        self.bytes += len(piece)
        self.lines += piece.count(b"\n")


class Backlog:
    """The stored output of one command."""

    def __init__(self, api: Api, command: Command, *, clock: Clock | None = None) -> None:
        self._api = api
        self._command = command
        self._path = f"/v1/commands/{command.id}/output"
        self._clock = clock or Clock()

    def copy(self, stream: str, write: Callable[[bytes], None], *, start: int = 0) -> End:
        """What is stored of `stream` now, from byte `start` on; returns where it ended.

        "Now" is when it begins: a command that prints all the time must not keep it from ending.
        Raises OutcomeUnknown when the connection cannot be kept up: the rest is missing.
        """
        end = End(start)
        until: int | None = None
        backoff = Backoff(self._clock, REQUEST_S)
        while until is None or end.bytes < until:
            before = end.bytes
            params = {"stream": stream, "offset": str(before)}
            try:
                with self._api.output(self._path, params) as stored:
                    until = stored.size if until is None else until
                    for piece in stored.pieces:
                        end.add(piece[: None if until is None else until - end.bytes], write)
            except StreamBroken as broken:
                self._pause(backoff, broken, progress=end.bytes > before)
            else:
                if end.bytes == before:
                    break
        return end

    def _pause(self, backoff: Backoff, broken: StreamBroken, *, progress: bool) -> None:
        if progress:
            backoff.reset()
        delay = backoff.next_delay(broken.retry_after_s)
        if delay is None:
            raise OutcomeUnknown(
                f"the output of {self._command.id} could not be read to its end: {broken}"
            ) from broken
        self._clock.pause(delay)

    def tail(self, stream: str, lines: int) -> tuple[bytes, End]:
        """The last lines of `stream` as it is stored now, and where that ends.

        Where the size is known, only as much of the end is read as the lines need.
        """
        size = self._size(stream)
        window = _FIRST_WINDOW
        while size is not None and window < size:
            tail = Tail(lines)
            end = self.copy(stream, tail.write, start=size - window)
            if tail.is_whole:
                return tail.content(), end
            window *= _GROWTH
        tail = Tail(lines)
        end = self.copy(stream, tail.write)
        return tail.content(), end

    def ends(self) -> dict[str, End]:
        """How far each stream reaches now."""
        return {name: self._end(name) for name in self._command.streams}

    def _end(self, stream: str) -> End:
        size = self._size(stream)
        return self.copy(stream, lambda _: None) if size is None else End(size)

    def _size(self, stream: str) -> int | None:
        """Bytes stored now; None when they have to be read, as claude's are to count its lines."""
        if self._command.kind == "claude":
            return None
        return self._api.output_size(self._path, stream)
