"""The members of one JSON object that is too large to be parsed: the small ones, read on the way.

Claude's lines can have 64 MiB (a screenshot, a whole file). What decides how a run ended are a few
short members among them, in whatever order. So the bytes pass by once, in pieces as they come, and
only a member of at most MAX_MEMBER bytes is kept and parsed.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, NoReturn

MAX_MEMBER: Final = 4 * 1024
MAX_KEPT: Final = 12 * 1024  # all members together; written again, escapes can swell them by three
# What can be passed over at once: in a string, within a member's value, and between members. Whole
# strings and all but brackets, so that the loop in Python turns seldom; possessive, so that a match
# remembers no way back.
_STRING: Final = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_WITHIN: Final = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_BETWEEN: Final = re.compile(rb'[^"{}\[\],]*+')
_MOST_TURNS: Final = 1_000_000  # about a second; only brackets without end need more
_NAME: Final = re.compile(rb'\s*"([A-Za-z0-9_]{1,64})"\s*:')
_OPENING, _CLOSING = b"{[", b"}]"


def loads(data: bytes) -> Any:
    """JSON as RFC 8259 has it, which can be written again. Raises ValueError."""
    try:
        # Decoded first: of bytes, `loads` would also take UTF-16 and UTF-32.
        return json.loads(data.decode(), parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is no number that can be kept")
    return number


class Members:
    """Feed it a JSON object in pieces. What is no object has no members."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.too_large: set[str] = set()
        self._depth = 0
        self._string = False
        self._escape = False
        self._member = bytearray()  # its text, up to one byte more than is kept
        self._room = MAX_KEPT
        self._turns = 0
        self._broken = False
        self._ended = False

    @property
    def whole(self) -> bool:
        """Whether it was one object from its first byte to its last."""
        return self._ended and not self._broken

    def feed(self, data: bytes) -> None:
        """The next piece."""
        at = 0
        while at < len(data) and not self._broken:
            if self._escape:
                self._escape = False
                self._keep(data, at, at + 1)
                at += 1
                continue
            end = self._passed(data, at)
            if end > at:
                self._plain(data, at, end)
            if end < len(data):
                self._special(data, end)
            at = end + 1
            self._turns += 1
            self._broken |= self._turns > _MOST_TURNS

    def _passed(self, data: bytes, at: int) -> int:
        plain = _STRING if self._string else _WITHIN if self._depth > 1 else _BETWEEN
        found = plain.match(data, at)
        assert found is not None  # each of them matches nothing at all, too
        return found.end()

    def _plain(self, data: bytes, start: int, end: int) -> None:
        if self._depth:
            self._keep(data, start, end)
        elif data[start:end].strip():  # something before or behind the object
            self._broken = True

    def _special(self, data: bytes, at: int) -> None:
        byte = data[at : at + 1]
        if not self._depth and (byte != b"{" or self._ended):
            self._broken = True
        elif self._string:
            self._escape, self._string = byte == b"\\", byte != b'"'
            self._keep(data, at, at + 1)
        elif byte in _OPENING:
            self._depth += 1
            if self._depth > 1:
                self._keep(data, at, at + 1)
        elif byte in _CLOSING:
            self._close(data, at)
        elif byte == b"," and self._depth == 1:
            self._end_member()
        else:
            self._string = byte == b'"'
            self._keep(data, at, at + 1)

    def _close(self, data: bytes, at: int) -> None:
        self._depth -= 1
        if self._depth:
            self._keep(data, at, at + 1)
            return
        self._end_member()
        self._ended = True

    def _keep(self, data: bytes, start: int, end: int) -> None:
        left = MAX_MEMBER + 1 - len(self._member)
        if left > 0:
            self._member += data[start : min(end, start + left)]

    def _end_member(self) -> None:
        text, self._member = bytes(self._member), bytearray()
        name = _NAME.match(text)
        if name is None:
            return
        if len(text) > MAX_MEMBER or len(text) > self._room:
            self.too_large.add(name[1].decode())
            return
        try:
            self.kept |= loads(b"{" + text + b"}")
        except ValueError:
            return
        self._room -= len(text)
