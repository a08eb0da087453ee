"""From the workspace's bytes to stored events: batched by time and size, never lost, never doubled.

Readers put bytes in as they come; one writer takes batches out. The first bytes after a pause leave
at once, then at most one batch every 50 ms (20 transactions a second), larger ones when the writer
is behind. A full buffer makes readers wait: the workspace's spool holds what we do not read.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Final

from common.domain.agent import AgentLines
from common.domain.events import OUTPUT, NewEvent, complete_utf8, cut

FLUSH_S: Final = 0.05
BATCH_BYTES: Final = 256 * 1024
BUFFER_BYTES: Final = 4 * 1024 * 1024


class Cutter:
    """One stream's bytes as events of at most 64 KiB, cut between characters where it is text."""

    def __init__(self, stream: str, offset: int) -> None:
        self.start = offset
        self._stream = stream
        self._offset = offset
        self._held = b""

    def feed(self, data: bytes) -> list[NewEvent]:
        """Events; at most 3 bytes of an unfinished character wait for the rest."""
        data = self._held + data
        whole = complete_utf8(data)
        self._held = data[whole:]
        return self._events(data[:whole])

    def end(self) -> list[NewEvent]:
        """Whatever was held back."""
        rest, self._held = self._held, b""
        return self._events(rest)

    def _events(self, data: bytes) -> list[NewEvent]:
        events = []
        for piece in cut(data):
            events.append(NewEvent(OUTPUT, piece, self._stream, self._offset))
            self._offset += len(piece)
        return events


@dataclass
class _Chunk:
    stream: str
    data: bytearray


class Ingest:
    """The buffer between the readers of one command's streams and its one writer."""

    def __init__(self, cutters: dict[str, Cutter | AgentLines]) -> None:
        self._cutters = cutters
        self._open = set(cutters)
        self._chunks: list[_Chunk] = []
        self._ready: list[NewEvent] = []
        self._bytes = 0
        self._last_batch = 0.0
        self._aborted = False
        self._changed = threading.Condition()

    @property
    def aborted(self) -> bool:
        """Whether readers shall stop: nobody writes any more."""
        return self._aborted

    def start(self, stream: str) -> int:
        """From which byte on a stream is wanted."""
        return self._cutters[stream].start

    def put(self, stream: str, data: bytes) -> None:
        """Bytes of a stream, in order; waits while the buffer is full."""
        with self._changed:
            while self._bytes >= BUFFER_BYTES and not self._aborted:
                self._changed.wait()
            if self._chunks and self._chunks[-1].stream == stream:
                self._chunks[-1].data += data
            else:
                self._chunks.append(_Chunk(stream, bytearray(data)))
            self._bytes += len(data)
            self._changed.notify_all()

    def close(self, stream: str) -> None:
        """A stream has ended."""
        with self._changed:
            self._cut()
            self._ready += self._cutters[stream].end()
            self._open.discard(stream)
            self._changed.notify_all()

    def abort(self) -> None:
        """Wake everybody: this follower stops."""
        with self._changed:
            self._aborted = True
            self._changed.notify_all()

    def batch(self) -> list[NewEvent] | None:
        """The next events to write, waiting for them; None after the last one or after abort."""
        with self._changed:
            while not self._aborted:
                if self._ready:
                    events, self._ready = self._ready, []
                    self._last_batch = time.monotonic()
                    return events
                if self._chunks:
                    self._wait_for_more()
                    self._cut()  # into nothing, when half a line or character waits for its rest
                    self._changed.notify_all()
                elif self._open:
                    self._changed.wait()
                else:
                    return None
        return None

    def _wait_for_more(self) -> None:
        """Let small pieces gather until 50 ms after the last batch; big ones go at once."""
        until = self._last_batch + FLUSH_S
        while self._bytes < BATCH_BYTES and self._open and not self._aborted:
            left = until - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)

    def _cut(self) -> None:
        for chunk in self._chunks:
            self._ready += self._cutters[chunk.stream].feed(bytes(chunk.data))
        self._chunks, self._bytes = [], 0
