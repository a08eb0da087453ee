"""ClaudeFiles over any Transport: speaks the verbs of `config.sh`."""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from common.domain.claude_config import (
    MOST_ENTRIES,
    SKILL,
    Definition,
    File,
    Found,
    Kind,
    Tree,
    path_of,
)
from common.domain.effective import printable
from common.domain.workspace import Place, TransportLost, WorkspaceBroken
from common.ports.claude_files import Item, Reading, Refused
from common.ports.transport import Channel, Transport
from common.services.delivery import Script, everything

SCRIPT: Final = Path(__file__).with_name("config.sh")
# Beginnings of everything and the one thing in full come to a few MiB at the very most.
MOST_ANSWER_BYTES: Final = 32 * 1024 * 1024
# Of frontmatter in one answer; a hundred definitions have a tenth of it. YAML takes its time.
MOST_FRONT_CHARACTERS: Final = 256 * 1024
_ENTRY: Final = re.compile(r"([0-9]{1,15}) ([0-9a-f]{4,8}) \./(.+)", re.DOTALL)
_HIDDEN: Final = ".rdev-SKILL.md"  # until the whole skill is in its place
_TYPES: Final = {"8": "file", "4": "folder", "a": "link"}


class WorkspaceClaudeFiles:
    """Reads and writes through a transport, one exec a call."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._script = Script(transport, SCRIPT)

    def read(self, place: Place, kind: Kind | None = None, name: str = "") -> Reading:
        """See `ClaudeFiles.read`."""
        path = path_of(kind, name) if kind else "-"
        lines = self._ask(place, ("read", place.path, kind or "-", path))
        if lines and lines[-1].startswith("refused "):
            raise _refused(lines[-1].removeprefix("refused "))
        if not lines or lines[-1] != "end":
            raise TransportLost("the workspace's answer ended early")
        return _Reader(lines[:-1]).reading(kind, name)

    def put(self, place: Place, definition: Definition, expected: str) -> str:
        """See `ClaudeFiles.put`."""
        self._transport.verify(place)
        head, data = b"", definition.content
        if definition.kind is Kind.SKILLS:
            head, data = _listed(definition)
        arguments = (
            "put", place.path, definition.kind, definition.path, expected, definition.fingerprint,
            uuid.uuid4().hex, str(len(head)), str(len(data)),
        )  # fmt: skip
        return _verdict(self._ask(place, arguments, head + data), expected)

    def remove(self, place: Place, kind: Kind, name: str, expected: str) -> str:
        """See `ClaudeFiles.remove`."""
        self._transport.verify(place)
        token = uuid.uuid4().hex
        arguments = ("rm", place.path, kind, path_of(kind, name), expected, token)
        return _verdict(self._ask(place, arguments), expected)

    def _ask(self, place: Place, arguments: Sequence[str], stdin: bytes = b"") -> list[str]:
        """The lines of an answer. Bytes that are no UTF-8 come as surrogates."""

        def read(channel: Channel) -> bytes:
            return everything(channel, MOST_ANSWER_BYTES)

        answer, code, said = self._script.ask(place, arguments, read, stdin)
        if code != 0:
            words = said[-500:].decode("utf-8", "replace").strip()
            raise WorkspaceBroken(f"exit code {code}, answer {answer[-200:]!r}: {words}")
        return answer.decode("utf-8", "surrogateescape").split("\n")[:-1]


def _listed(definition: Definition) -> tuple[bytes, bytes]:
    """A skill's files: the list of them, then their bytes in its order."""
    parts = sorted((_HIDDEN if p == SKILL else p, f) for p, f in definition.parts.items())
    lines = (f"{len(p.data)} {'x' if p.executable else '-'} {path}\n" for path, p in parts)
    return "".join(lines).encode(), b"".join(part.data for _, part in parts)


def _verdict(lines: list[str], expected: str) -> str:
    """The last line says what came of a change."""
    word, _, rest = (lines[-1] if lines else "").partition(" ")
    if word == "done":
        return expected
    if word == "differs" and rest:
        return rest
    if word == "refused":
        raise _refused(rest)
    raise TransportLost("the workspace's answer ended early")


def _refused(text: str) -> Refused:
    code, _, detail = text.partition(" ")
    return Refused(code, detail)


class _Reader:
    """The lines of a `read`, one after the other."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self._at = 0
        self._left = MOST_FRONT_CHARACTERS

    def reading(self, kind: Kind | None, name: str) -> Reading:
        found: dict[Kind, tuple[Found, ...]] = {}
        truncated: set[Kind] = set()
        blocked: dict[Kind, str] = {}
        for of in (Kind.COMMANDS, Kind.SKILLS, Kind.AGENTS):
            self._expect(f"kind {of}")
            refusal = self._take("refused ")
            if refusal is not None:
                error = _refused(refusal)
                if error.code != "linked":
                    raise error
                blocked[of] = error.detail
            entries = list(self._entries())
            if len(entries) > MOST_ENTRIES:
                truncated.add(of)
            found[of] = tuple(sorted(entries[:MOST_ENTRIES], key=lambda entry: entry.path))
        tree = Tree(found, frozenset(truncated), blocked)
        return Reading(tree, self._item(kind, name) if kind else None)

    def _entries(self) -> Iterator[Found]:
        while (line := self._take("entry ")) is not None:
            match = _ENTRY.fullmatch(line)
            if match is None:
                raise WorkspaceBroken(f"not an entry: {line[:200]!r}")
            front: list[str] = []
            while (text := self._take("|")) is not None:
                front.append(f"{text}\n")
            self._left -= sum(map(len, front))
            seen = "".join(front) if self._left >= 0 else None
            type_ = _TYPES.get(match[2][0], "other") if len(match[2]) == 4 else "other"
            yield Found(match[3], type_, int(match[1]), seen)

    def _item(self, kind: Kind, name: str) -> Item | None:
        self._expect("item")
        refusal = self._take("refused ")
        if refusal is not None:
            raise _refused(refusal)
        if self._take("absent") is not None:
            return None
        if self._take("folder") is None:
            self._expect("file")
        odd: list[str] = []
        while (text := self._take("odd ")) is not None:
            odd.append(printable(text))
        large = self._take("large") is not None
        parts: dict[str, File] = {}
        for path, part in self._parts():
            if path.isprintable():
                parts[path] = part
            else:
                odd.append(printable(path))
        main = parts.pop(SKILL if kind is Kind.SKILLS else path_of(kind, name), None)
        if main is None and not large:
            odd.append(f"no {SKILL}")
        main = main or File(b"")
        return Item(Definition(kind, name, main.data, parts), tuple(odd), large)

    def _parts(self) -> Iterator[tuple[str, File]]:
        while (line := self._take("part ")) is not None:
            mode, _, path = line.partition(" ")
            encoded: list[str] = []
            while self._take(".") is None:
                encoded.append(self._next())
            try:
                data = base64.b64decode("".join(encoded), validate=True)
            except binascii.Error as error:
                raise WorkspaceBroken(f"not base64 in {path[:200]!r}") from error
            yield path, File(data, mode == "x")

    def _take(self, prefix: str) -> str | None:
        """What follows `prefix` in the next line, if it begins so."""
        if self._at < len(self._lines) and self._lines[self._at].startswith(prefix):
            return self._next().removeprefix(prefix)
        return None

    def _expect(self, line: str) -> None:
        if self._next() != line:
            raise WorkspaceBroken(f"expected {line!r}, not {self._lines[self._at - 1][:200]!r}")

    def _next(self) -> str:
        if self._at == len(self._lines):
            raise WorkspaceBroken("the answer ends in the middle")
        self._at += 1
        return self._lines[self._at - 1]
