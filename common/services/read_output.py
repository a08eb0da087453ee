"""Use case: a command's stored output as bytes, from an offset on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final
from uuid import UUID

from common.domain.command import Command, Kind
from common.domain.errors import Expired, InvalidField, RangeNotSatisfiable
from common.domain.keys import Caller
from common.ports.commands import CommandStore
from common.services.read_commands import ReadCommands

PAGE_BYTES: Final = 1024 * 1024


@dataclass(frozen=True)
class OutputSlice:
    """What is stored of a stream now: `size` bytes in all, and the wanted ones as pieces."""

    size: int
    length: int
    pieces: Iterator[bytes]


def streams_of(command: Command) -> tuple[str, ...]:
    """The streams a command has; the first is the main one."""
    separate = command.kind is Kind.CLAUDE or command.spec.get("streams") == "separate"
    return ("stdout", "stderr") if separate else ("merged",)


class ReadOutput:
    """Output of one stream of one command."""

    def __init__(self, reader: ReadCommands, commands: CommandStore) -> None:
        self._reader = reader
        self._commands = commands

    def __call__(
        self, text: str, stream: str | None, offset: int, limit: int | None, caller: Caller
    ) -> OutputSlice:
        """Raises NotFound, Expired, InvalidField (no such stream), RangeNotSatisfiable.

        What goes wrong after the first piece is raised by the pieces: the answer is cut.
        """
        command = self._reader.one(text, caller)
        names = streams_of(command)
        wanted = stream or names[0]
        if wanted not in names:
            raise InvalidField.one(
                "stream", "no_such_stream", f"stream: this command has {' and '.join(names)}"
            )
        size, expired = self._commands.output_size(command.id, wanted)
        if expired:
            raise Expired("the output of this command is no longer kept")
        if offset > size:
            raise RangeNotSatisfiable(f"the output has {size} bytes so far")
        length = size - offset if limit is None else min(limit, size - offset)
        pieces = self._pieces(command.id, wanted, offset, length)
        # The first is read before the answer begins: until then trouble has a status of its own.
        begun = chain(list(islice(pieces, 1)), pieces)
        return OutputSlice(size, length, begun)

    def _pieces(self, command_id: UUID, stream: str, offset: int, length: int) -> Iterator[bytes]:
        end = offset + length
        while offset < end:
            want = min(PAGE_BYTES, end - offset)
            before = offset
            for segment in self._commands.output(command_id, stream, offset, want):
                if segment.offset > offset:  # a hole is never closed by other bytes
                    break
                piece = segment.data[offset - segment.offset : end - segment.offset]
                yield piece
                offset += len(piece)
            if offset == before:
                raise Expired("the output expired while it was read")
