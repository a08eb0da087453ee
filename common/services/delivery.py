"""A shell script in a workspace: delivered once per version, used by every call.

Every call says "use that file if it is there", and the answer "it is not" (exit 97, before anything
happened) is what delivers it. So a warm call costs one exec, and no memory of ours has to know what
a workspace has.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from common.domain.workspace import Place, TransportLost, WorkspaceBroken
from common.ports.transport import Channel, Transport

# Sourced, not executed: one process less, and a workspace mounted noexec works too.
_USE: Final = '[ -f "$0" ] || exit 97; . "$0"'
# A part of the file, or a file of another length, never gets the name.
_DELIVER: Final = (
    'umask 077; mkdir -p "${0%/*}" && head -c "$1" >"$0.$$" && [ "$(wc -c <"$0.$$")" -eq "$1" ]'
    ' && mv "$0.$$" "$0" && exit 0; rm -f "$0.$$"; exit 1'
)
UNDELIVERED: Final = 97
# How long an answer may take. They take milliseconds; this is for a starved machine, and after it
# the caller is told that what happened is unknown.
ANSWER_S: Final = 30.0

T = TypeVar("T")


class Script:
    """One of our scripts, in any workspace that the transport reaches."""

    def __init__(self, transport: Transport, path: Path) -> None:
        self._transport = transport
        self._text = path.read_bytes()
        self._name = f"{path.stem}-{hashlib.sha256(self._text).hexdigest()[:16]}.sh"

    def open(self, place: Place, arguments: Sequence[str], stdin: bytes = b"") -> Channel:
        """Call it: a verb, what comes behind RUNS. Exit code UNDELIVERED: it is not there yet."""
        runs = self._transport.runs(place)
        verb, *rest = arguments
        argv = ("sh", "-c", _USE, f"{runs}/.bin/{self._name}", verb, runs, *rest)
        return self._transport.open(place, argv, stdin)

    def ask(
        self,
        place: Place,
        arguments: Sequence[str],
        read: Callable[[Channel], T],
        stdin: bytes = b"",
    ) -> tuple[T, int, bytes]:
        """Call it, delivered first where it is not: what `read` makes of its stdout, its exit code
        and what it said on stderr.
        """
        answer = self._ask_once(place, arguments, read, stdin)
        if answer[1] == UNDELIVERED:
            self.deliver(place)
            answer = self._ask_once(place, arguments, read, stdin)
        return answer

    def deliver(self, place: Place) -> None:
        """Put this version into the workspace; doing it twice is harmless."""
        path = f"{self._transport.runs(place)}/.bin/{self._name}"
        argv = ("sh", "-c", _DELIVER, path, str(len(self._text)))
        channel = self._transport.open(place, argv, self._text)
        try:
            if exit_code(channel) != 0:
                said = channel.stderr.decode("utf-8", "replace").strip()
                raise WorkspaceBroken(f"a script cannot be put into the workspace: {said}")
        finally:
            channel.close()

    def _ask_once(
        self, place: Place, arguments: Sequence[str], read: Callable[[Channel], T], stdin: bytes
    ) -> tuple[T, int, bytes]:
        channel = self.open(place, arguments, stdin)
        try:
            return read(channel), exit_code(channel), channel.stderr
        finally:
            channel.close()


def first_line(channel: Channel) -> tuple[bytes, bytes]:
    """The first line without its newline, and what came with it. b"" when there is none."""
    got = b""
    deadline = time.monotonic() + ANSWER_S
    while b"\n" not in got:
        data = channel.read(65536, max(0.0, deadline - time.monotonic()))
        if data is None:
            raise TransportLost(f"no answer in {ANSWER_S:.0f} s")
        if not data:
            return b"", b""
        got += data
    line, _, rest = got.partition(b"\n")
    return line, rest


def everything(channel: Channel, limit: int) -> bytes:
    """All of stdout. Raises WorkspaceBroken beyond `limit` bytes."""
    got = bytearray()
    deadline = time.monotonic() + ANSWER_S
    while True:
        data = channel.read(65536, max(0.0, deadline - time.monotonic()))
        if data is None:
            raise TransportLost(f"no end in {ANSWER_S:.0f} s")
        if not data:
            return bytes(got)
        got += data
        if len(got) > limit:
            raise WorkspaceBroken(f"an answer of more than {limit} bytes")


def exit_code(channel: Channel) -> int:
    try:
        return channel.result(ANSWER_S)
    except TimeoutError as error:
        raise TransportLost(f"no end in {ANSWER_S:.0f} s") from error
