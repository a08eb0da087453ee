"""Objects, their resourceVersions and the history that watches replay."""

from __future__ import annotations

import asyncio
import copy
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

Object = dict[str, Any]
KINDS: Final = {"pods": "Pod", "configmaps": "ConfigMap"}


class ApiError(Exception):
    """An answer of the API that is a Status object."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


@dataclass(frozen=True)
class Change:
    version: int
    plural: str
    type: str
    object: Object
    before: Object | None  # as it was: a selector that no longer matches is a DELETED to its watch


@dataclass
class Store:
    """All objects by (plural, namespace, name)."""

    objects: dict[tuple[str, str, str], Object] = field(default_factory=dict)
    history: list[Change] = field(default_factory=list)
    version: int = 100
    oldest: int = 100  # watches from before this version are answered 410
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def get(self, plural: str, namespace: str, name: str) -> Object:
        found = self.objects.get((plural, namespace, name))
        if found is None:
            raise ApiError(404, "NotFound", f'{plural} "{name}" not found')
        return found

    async def create(self, plural: str, namespace: str, given: Object) -> Object:
        name = given["metadata"]["name"]
        key = (plural, namespace, name)
        if key in self.objects:
            raise ApiError(409, "AlreadyExists", f'{plural} "{name}" already exists')
        made = copy.deepcopy(given)
        metadata = made["metadata"]
        metadata.setdefault("uid", str(uuid.uuid4()))
        metadata.setdefault("creationTimestamp", now())
        metadata["namespace"] = namespace
        made |= {"apiVersion": "v1", "kind": KINDS[plural]}
        return await self._put(plural, key, "ADDED", made)

    async def update(self, plural: str, namespace: str, name: str, given: Object) -> Object:
        old = self.get(plural, namespace, name)
        wanted = given["metadata"].get("resourceVersion")
        if wanted is not None and wanted != old["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", f'{plural} "{name}" has been modified')
        made = copy.deepcopy(given)
        for kept in ("uid", "creationTimestamp", "namespace"):
            made["metadata"][kept] = old["metadata"][kept]
        return await self._put(plural, (plural, namespace, name), "MODIFIED", made)

    async def patch(
        self, plural: str, namespace: str, name: str, edit: Callable[[Object], None]
    ) -> Object:
        made = copy.deepcopy(self.get(plural, namespace, name))
        edit(made)
        return await self._put(plural, (plural, namespace, name), "MODIFIED", made)

    async def delete(self, plural: str, namespace: str, name: str) -> Object:
        old = self.get(plural, namespace, name)
        del self.objects[plural, namespace, name]
        gone = copy.deepcopy(old)
        await self._record(plural, "DELETED", gone, old)
        return gone

    def compact(self) -> None:
        """Forget the history, as etcd does every five minutes."""
        self.history.clear()
        self.oldest = self.version = self.version + 1

    async def _put(self, plural: str, key: tuple[str, str, str], kind: str, made: Object) -> Object:
        before = self.objects.get(key)
        self.objects[key] = made
        await self._record(plural, kind, made, before)
        return made

    async def _record(self, plural: str, kind: str, made: Object, before: Object | None) -> None:
        self.version += 1
        made["metadata"]["resourceVersion"] = str(self.version)
        self.history.append(Change(self.version, plural, kind, made, before))
        await self.wake()

    async def wake(self) -> None:
        """Let every watch look again."""
        async with self.changed:
            self.changed.notify_all()


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_SET: Final = re.compile(r"(\S+)\s+(in|notin)\s+\(([^)]*)\)")


def matches_labels(made: Object, selector: str) -> bool:
    """Equality and set-based requirements, all of which must hold."""
    labels = made["metadata"].get("labels") or {}
    parts = re.split(r",(?![^(]*\))", selector)
    return all(_holds(labels, part.strip()) for part in parts if part.strip())


def _holds(labels: dict[str, str], part: str) -> bool:
    if found := _SET.fullmatch(part):
        values = {value.strip() for value in found[3].split(",")}
        return (labels.get(found[1]) in values) == (found[2] == "in")
    if "!=" in part:
        name, value = (text.strip() for text in part.split("!=", 1))
        return labels.get(name) != value
    if "=" in part:
        name, value = (text.strip() for text in part.replace("==", "=").split("=", 1))
        return labels.get(name) == value
    return part[1:] not in labels if part.startswith("!") else part in labels


def matches_fields(made: Object, selector: str) -> bool:
    """`metadata.name=x` and the like."""
    for part in filter(None, selector.split(",")):
        path, value = part.replace("==", "=").split("=", 1)
        found: Any = made
        for step in path.split("."):
            found = found.get(step, {}) if isinstance(found, dict) else {}
        if found != value:
            return False
    return True
