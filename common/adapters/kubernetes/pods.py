"""Pods as the API writes them, into pods as the domain reads them; and one pod asked for live."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from common.adapters.kubernetes.api import Api, path_of
from common.domain.discovery import Container, Pod

TTL_S: Final = 0.5


def to_pod(found: Mapping[str, Any]) -> Pod:
    """A pod's JSON; what is missing there is as if it were empty."""
    metadata, status = found["metadata"], found.get("status") or {}
    states = {s["name"]: s for s in status.get("containerStatuses") or []}
    containers = (found.get("spec") or {}).get("containers") or []
    return Pod(
        namespace=str(metadata.get("namespace", "")),
        name=str(metadata["name"]),
        uid=str(metadata.get("uid", "")),
        phase=str(status.get("phase", "Unknown")),
        containers=tuple(_container(c["name"], states.get(c["name"], {})) for c in containers),
        created=str(metadata.get("creationTimestamp") or ""),
        terminating=bool(metadata.get("deletionTimestamp")),
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
    )


def _container(name: str, state: Mapping[str, Any]) -> Container:
    return Container(
        name,
        ready=bool(state.get("ready")),
        running="running" in (state.get("state") or {}),
        restarts=int(state.get("restartCount") or 0),
    )


class Pods:
    """Pods by name, each asked for at most once in half a second unless `fresh` is wanted.

    Many followers attach again at once when a pod or a network comes back; one question is enough.
    """

    def __init__(self, api: Api, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._clock = clock
        self._lock = threading.Lock()
        self._asking: dict[tuple[str, str], threading.Lock] = {}
        self._known: dict[tuple[str, str], tuple[float, Pod]] = {}

    def get(self, namespace: str, name: str, *, fresh: bool) -> Pod:
        """Raises Missing, Refused, Unavailable."""
        key = (namespace, name)
        with self._lock:
            asking = self._asking.setdefault(key, threading.Lock())
        began = self._clock()
        with asking:
            at, pod = self._known.get(key, (float("-inf"), None))
            # Also fresh: asked by somebody else after we wanted to know.
            if pod is not None and at >= (began if fresh else self._clock() - TTL_S):
                return pod
            self._known.pop(key, None)
            at = self._clock()
            pod = to_pod(self._api.get(path_of(namespace, "pods", name)))
            self._known[key] = (at, pod)
            self._forget_old()
            return pod

    def _forget_old(self) -> None:
        """Keep no pod that nobody has asked for lately."""
        edge = self._clock() - TTL_S
        with self._lock:
            for key, (at, _) in list(self._known.items()):
                if at < edge and not self._asking[key].locked():
                    self._known.pop(key, None)
                    self._asking.pop(key, None)
