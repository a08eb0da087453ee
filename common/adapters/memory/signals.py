"""Signals within one process: each listener has a thread and a queue of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from common.adapters.memory.state import MemoryState
from common.services import telemetry

Heard = Callable[[str, str], None]

log = telemetry.logger("rdev.signals")


class MemorySignals:
    """Wake-ups between threads."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    def notify(self, channel: str, payload: str) -> None:
        with self._state.lock:
            listeners = list(self._state.listeners)
        for listener in listeners:
            listener.put(channel, payload)

    def listen(self, channels: tuple[str, ...], heard: Heard) -> MemoryListening:
        listening = MemoryListening(self._state, channels, heard)
        with self._state.lock:
            self._state.listeners.append(listening)
        listening.start()
        return listening


class MemoryListening:
    """One listener, until closed; with it goes the worker it holds."""

    def __init__(self, state: MemoryState, channels: tuple[str, ...], heard: Heard) -> None:
        self._state = state
        self._channels = channels
        self._heard = heard
        self._worker: int | None = None
        self._waiting: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="listen", daemon=True)

    def start(self) -> None:
        for channel in self._channels:
            self._waiting.put((channel, ""))
        self._thread.start()

    def put(self, channel: str, payload: str) -> None:
        if channel in self._channels:
            self._waiting.put((channel, payload))

    def hold(self, worker: int) -> None:
        with self._state.lock:
            self._worker = worker
            self._state.workers.add(worker)

    def close(self) -> None:
        with self._state.lock:
            if self in self._state.listeners:
                self._state.listeners.remove(self)
            if self._worker is not None:
                self._state.workers.discard(self._worker)
        self._waiting.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while (heard := self._waiting.get()) is not None:
            try:
                self._heard(*heard)
            except Exception:  # one listener's mistake must not end everybody's wake-ups
                log.exception("a listener failed", channel=heard[0])
