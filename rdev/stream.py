"""One event stream over as many connections as it takes.

A connection may be cut at any byte, fall silent, be refused for a while, or be closed by the
server on purpose (it rotates streams before the platform's cap). Here that is one iterator of
events: each connection asks for what follows the last event that the consumer has finished with,
so nothing is lost and nothing is handed out twice by us.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rdev import sse
from rdev.errors import ServerFault, StreamBroken, StreamEnded
from rdev.retry import STREAM_S, Backoff, Clock

if TYPE_CHECKING:
    from rdev.http import Api

HEARTBEAT_S: Final = 15.0
"""The server sends at least a comment this often (api.md)."""
IDLE_S: Final = 2.5 * HEARTBEAT_S
"""Two heartbeats may be late or lost; after half of the third the connection is dead."""
_COMMENTS_OF_A_LIVING_STREAM: Final = 2
"""A refusal is 200, one comment and a close, because EventSource gives up for good on 429 or 503.
So one comment proves nothing; a second one is a heartbeat."""


class GaveUp(Exception):
    """No connection lived within the bound; `last` is what became of the final one."""

    def __init__(self, last: StreamBroken) -> None:
        super().__init__(str(last))
        self.last = last


@dataclass(slots=True)
class Watcher:
    """Who wants to know how the stream fares, and who checks its events.

    `admit` says whether an event is new (False: a repetition, to be dropped); it raises
    StreamBroken when the event cannot be the next one. `broken` and `resumed` frame an outage.
    """

    admit: Callable[[sse.Event], bool] = lambda _: True
    broken: Callable[[str], None] = lambda _: None
    resumed: Callable[[], None] = lambda: None


@dataclass(slots=True)
class Patience:
    """How long a silent connection may be silent, and an outage may last."""

    idle_s: float = IDLE_S
    bound_s: float = STREAM_S


class ResumingStream:
    """Events of `path`, from its beginning. Iterate once."""

    def __init__(
        self,
        api: Api,
        path: str,
        watcher: Watcher,
        *,
        clock: Clock | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._api = api
        self._path = path
        self._watcher = watcher
        self._clock = clock or Clock()
        self._patience = patience or Patience()
        self._backoff = Backoff(self._clock, self._patience.bound_s)
        self._last_id = ""
        self._retry_s: float | None = None
        self._comments = 0
        self._last_comment = ""
        self._is_alive = False
        self._is_outage = False

    def events(self) -> Generator[sse.Event]:
        """Events until the server says that there are no more (204).

        Raises GaveUp after the bound, and a CliError for a refusal that is final.
        """
        while True:
            try:
                yield from self._one_connection()
            except StreamEnded:
                return
            except StreamBroken as broken:
                self._begin_outage(str(broken))
                self._pause(broken)
            else:
                self._after_close()

    def _one_connection(self) -> Generator[sse.Event]:
        parser = sse.Parser()
        self._comments, self._last_comment, self._is_alive = 0, "", False
        with self._api.stream(self._path, self._last_id, idle_s=self._patience.idle_s) as chunks:
            for chunk in chunks:
                for item in _parsed(parser, chunk):
                    if not isinstance(item, sse.Event):
                        self._control(item)
                    elif self._watcher.admit(item):
                        self._lives()
                        yield item
                        # Only now: whoever was interrupted in between is given it again.
                        self._last_id = item.id

    def _control(self, item: sse.Comment | sse.Retry) -> None:
        if isinstance(item, sse.Retry):
            self._retry_s = item.milliseconds / 1000
            return
        self._last_comment = item.text.strip()
        self._comments += 1
        if self._comments >= _COMMENTS_OF_A_LIVING_STREAM:
            self._lives()

    def _lives(self) -> None:
        self._is_alive = True
        self._backoff.reset()
        if self._is_outage:
            self._is_outage = False
            self._watcher.resumed()

    def _after_close(self) -> None:
        """The server ended the response itself: a rotation if the stream lived, else a refusal."""
        closed = StreamBroken(self._last_comment or "the server closed the stream")
        if not self._is_alive:
            self._begin_outage(str(closed))
        self._pause(closed)

    def _begin_outage(self, reason: str) -> None:
        if not self._is_outage:
            self._is_outage = True
            self._watcher.broken(reason)

    def _pause(self, broken: StreamBroken) -> None:
        wishes = [s for s in (broken.retry_after_s, self._retry_s) if s is not None]
        delay = self._backoff.next_delay(max(wishes, default=None))
        if delay is None:
            raise GaveUp(broken) from broken
        self._clock.pause(delay)


def _parsed(parser: sse.Parser, chunk: bytes) -> list[sse.Event | sse.Comment | sse.Retry]:
    try:
        return parser.feed(chunk)
    except sse.EventTooLong as error:
        raise ServerFault(f"this is not an rdev stream: {error}") from error
