"""ClaudeFiles in dicts, for the tests of services: same port, same contract tests."""

from __future__ import annotations

import threading
from dataclasses import replace

from common.domain.claude_config import (
    ABSENT,
    Definition,
    Found,
    Kind,
    Tree,
    found_of,
    path_of,
)
from common.domain.workspace import Place
from common.ports.claude_files import Item, Reading, Refused


class MemoryClaudeFiles:
    """Definitions of every place; a test may add what rdev itself would not write."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stored: dict[tuple[str, Kind, str], Item] = {}
        self._others: dict[tuple[str, Kind, str], Found] = {}
        self._failures: list[tuple[str, Exception, bool]] = []

    # What a test plans.

    def plant(self, place: Place, kind: Kind, found: Found) -> None:
        """Something that is there and that rdev did not write."""
        self._others[place.path, kind, found.path] = found

    def spoil(self, place: Place, kind: Kind, name: str, *odd: str, large: bool = False) -> None:
        """A definition now has links in it, or is beyond the limits."""
        key = (place.path, kind, name)
        self._stored[key] = replace(self._stored[key], odd=odd, large=large)

    def fail(self, method: str, error: Exception, *, after: bool = False) -> None:
        """The next call of `method` fails; `after`: it was done, and the answer is lost."""
        self._failures.append((method, error, after))

    # The port.

    def read(self, place: Place, kind: Kind | None = None, name: str = "") -> Reading:
        """See `ClaudeFiles.read`."""
        self._strike("read", after=False)
        with self._lock:
            tree = Tree({of: tuple(self._found(place, of)) for of in Kind})
            if kind is None:
                return Reading(tree)
            self._check_plain(place, kind, name)
            return Reading(tree, self._stored.get((place.path, kind, name)))

    def put(self, place: Place, definition: Definition, expected: str) -> str:
        """See `ClaudeFiles.put`."""
        self._strike("put", after=False)
        with self._lock:
            there = self._fingerprint(place, definition.kind, definition.name)
            if there == expected:
                key = (place.path, definition.kind, definition.name)
                self._stored[key] = Item(definition)
        self._strike("put", after=True)
        return there

    def remove(self, place: Place, kind: Kind, name: str, expected: str) -> str:
        """See `ClaudeFiles.remove`."""
        self._strike("remove", after=False)
        with self._lock:
            there = self._fingerprint(place, kind, name)
            if there == expected != ABSENT:
                del self._stored[place.path, kind, name]
        self._strike("remove", after=True)
        return there

    def _strike(self, method: str, *, after: bool) -> None:
        for failure in self._failures:
            if (failure[0], failure[2]) == (method, after):
                self._failures.remove(failure)
                raise failure[1]

    def _fingerprint(self, place: Place, kind: Kind, name: str) -> str:
        self._check_plain(place, kind, name)
        item = self._stored.get((place.path, kind, name))
        return item.definition.fingerprint if item else ABSENT

    def _check_plain(self, place: Place, kind: Kind, name: str) -> None:
        path = path_of(kind, name)
        other = self._others.get((place.path, kind, path))
        if other is not None and other.type != ("folder" if kind is Kind.SKILLS else "file"):
            raise Refused("linked", f"{path} is a link, or nothing that rdev would change")

    def _found(self, place: Place, kind: Kind) -> list[Found]:
        found = {key[2]: f for key, f in self._others.items() if key[:2] == (place.path, kind)}
        for (path, of, _), item in self._stored.items():
            if (path, of) == (place.path, kind):
                for part in (*_folders(item.definition), *found_of(item.definition)):
                    found[part.path] = part
        return sorted(found.values(), key=lambda f: f.path)


def _folders(definition: Definition) -> list[Found]:
    """The folders that a nested command is in."""
    parts = definition.path.split("/")[:-1]
    return [Found("/".join(parts[: i + 1]), "folder", front="") for i in range(len(parts))]
