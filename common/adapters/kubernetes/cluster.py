"""Cluster: all pods and one ConfigMap of a namespace, listed once or watched.

A list and watch loop of our own, because the client's informer sets no read timeout (a silent
stall would last for ever) and waits five seconds after a failed list. A watch is asked to end after
20 s and its reading gives up a little later, which bounds every stall.

All pods are read and not only labelled ones: a `pod_selector` may name any of them.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import yaml

from common.adapters.kubernetes.api import Api, Gone, Query, Refused, path_of
from common.adapters.kubernetes.pods import to_pod
from common.domain.discovery import Entry, Found, merge
from common.domain.errors import Unavailable
from common.services import telemetry

CONFIG_MAP: Final = "rdev-projects"
WATCH_S: Final = 20
STALLED_S: Final = WATCH_S + 5.0
_ENTRY_CHARS: Final = 16 * 1024
_RETRY_S: Final = (0.1, 5.0)  # first and longest pause after a failure

log = telemetry.logger("rdev.kubernetes.watch")


class PodCluster:
    """The projects of one namespace."""

    name = "kubernetes"

    def __init__(self, api: Api) -> None:
        self._api = api

    def look(self, holders: Mapping[str, str]) -> Found:
        """See `Cluster.look`."""
        try:
            return merged([_look(self._api, kind)[0] for kind in _kinds(self._api)], holders)
        except Refused as error:
            raise Unavailable(f"projects cannot be read from Kubernetes: {error}") from error

    def watch(self, changed: Callable[[], None]) -> PodWatch:
        """See `Cluster.watch`."""
        return PodWatch(self._api, changed)


@dataclass(frozen=True)
class _Kind:
    """What is listed and watched."""

    path: str
    query: Query = field(default_factory=dict)


def _kinds(api: Api) -> list[_Kind]:
    namespace = api.namespace
    return [
        _Kind(path_of(namespace, "pods")),
        _Kind(path_of(namespace, "configmaps"), {"fieldSelector": f"metadata.name={CONFIG_MAP}"}),
    ]


Objects = dict[str, Any]  # by name


def _look(api: Api, kind: _Kind) -> tuple[Objects, str]:
    found, version = api.list_all(kind.path, kind.query)
    return {item["metadata"]["name"]: item for item in found}, version


class PodWatch:
    """See `ClusterWatch`. One thread for pods, one for the ConfigMap."""

    def __init__(self, api: Api, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._loops: list[_Loop] = [_Loop(api, kind, self._told) for kind in _kinds(api)]
        for loop in self._loops:
            loop.start()

    def found(self, holders: Mapping[str, str]) -> Found | None:
        views = [loop.view for loop in self._loops if loop.view is not None]
        return merged(views, holders) if len(views) == len(self._loops) else None

    def close(self) -> None:
        for loop in self._loops:
            loop.stop()
        for loop in self._loops:
            loop.join()

    def _told(self) -> None:
        if all(loop.view is not None for loop in self._loops):
            self._changed()


class _Loop:
    """List, then watch from there, for as long as it is wanted."""

    def __init__(self, api: Api, kind: _Kind, told: Callable[[], None]) -> None:
        self.view: Objects | None = None  # replaced and never changed, so that it can be read
        self._api = api
        self._kind = kind
        self._told = told
        self._version = ""
        self._pause = _RETRY_S[0]
        self._stopping = threading.Event()
        self._hang_up: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._hang_up()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        longest = _RETRY_S[1]
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                if not self._version:
                    self._list()
                self._watch()
                continue
            except Gone:
                self._version = ""  # the server has forgotten where we were
                continue
            except (Refused, Unavailable) as error:
                if not self._stopping.is_set():
                    log.warning("watch interrupted", path=self._kind.path, detail=str(error))
            except Exception as error:  # an object that is odd; what else there is goes on
                self._version = ""
                log.error("watch broke", path=self._kind.path, exc_info=error)
            if time.monotonic() - began > longest:  # a stall was pause enough
                self._pause = _RETRY_S[0]
            self._stopping.wait(self._pause * random.uniform(0.5, 1.0))
            self._pause = min(longest, self._pause * 2)

    def _list(self) -> None:
        self.view, self._version = _look(self._api, self._kind)
        self._told()

    def _watch(self) -> None:
        query = {
            **self._kind.query,
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_S),
        }
        for event in self._events(query):
            self._take(str(event["type"]), event["object"])

    def _events(self, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        with self._api.watch(self._kind.path, query, STALLED_S) as watching:
            self._hang_up = watching.hang_up
            if self._stopping.is_set():  # asked before there was anything to hang up
                return
            yield from watching

    def _take(self, kind: str, made: Any) -> None:
        if kind == "ERROR":
            status = int(made.get("code") or 0)
            raise (Gone if status == 410 else Refused)(status, str(made.get("message")))
        self._version = made["metadata"]["resourceVersion"]
        self._pause = _RETRY_S[0]  # it works, however often it is cut
        if kind == "BOOKMARK":
            return
        view = dict(self.view or {})
        name = made["metadata"]["name"]
        view.pop(name, None)
        if kind != "DELETED":
            view[name] = made
        self.view = view
        self._told()


def merged(views: list[Objects], holders: Mapping[str, str]) -> Found:
    """Projects from the two views, pods first."""
    pods, maps = views
    found = [to_pod(item) for item in pods.values()]
    return merge(found, entries(maps.get(CONFIG_MAP)), holders)


def entries(config_map: Mapping[str, Any] | None) -> dict[str, Entry]:
    """What people wrote, one `NAME.yaml` each; one that is no YAML does not spoil the others."""
    data = (config_map or {}).get("data") or {}
    return {key.removesuffix(".yaml"): _entry(key, text) for key, text in sorted(data.items())}


@lru_cache(maxsize=1024)  # every event of any pod asks for all of them
def _entry(key: str, text: str) -> Entry:
    if not key.endswith(".yaml"):
        return Entry(problem=f"its key {key!r} in {CONFIG_MAP} does not end with .yaml")
    if len(text) > _ENTRY_CHARS:  # some texts take Python's YAML reader time without end
        return Entry(problem=f"{key} in {CONFIG_MAP} is longer than {_ENTRY_CHARS} characters")
    try:
        return Entry(yaml.safe_load(text))
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or error
        return Entry(problem=f"{key} in {CONFIG_MAP} cannot be read{line}: {str(problem)[:200]}")
    except (ValueError, RecursionError) as error:  # a date or a depth that YAML lets through
        return Entry(problem=f"{key} in {CONFIG_MAP} cannot be read: {str(error)[:200]}")
