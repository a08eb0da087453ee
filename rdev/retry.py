"""How long `rdev` keeps trying, and how it waits in between.

The bounds are fixed and are said to the person, so that nothing hangs as if it were connected and
nothing gives up during an ordinary restart.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

FIRST_CONTACT_S: Final = 5.0
"""Nobody has answered yet: most likely nothing is there, so say so soon."""
REQUEST_S: Final = 90.0
"""The server has answered once, or asks us to wait. A rate window is 60 s; a restart is less."""
STREAM_S: Final = 600.0
"""A followed command: it runs on without us, so a long outage is worth waiting out."""

_BASE_S: Final = 0.25
_CAP_S: Final = 5.0


@dataclass(slots=True)
class Clock:
    """Time, replaceable in tests: seconds that never go back, a pause, and a random in [0, 1)."""

    now: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    random: Callable[[], float] = random.random


@dataclass(slots=True)
class Backoff:
    """Jittered exponential pauses until a bound, counted from the last sign of life."""

    clock: Clock
    bound_s: float
    _attempt: int = 0
    _since: float = field(init=False)

    def __post_init__(self) -> None:
        self._since = self.clock.now()

    def reset(self) -> None:
        """The other side lives: forget the failures."""
        self._attempt = 0
        self._since = self.clock.now()

    @property
    def remaining_s(self) -> float:
        return self._since + self.bound_s - self.clock.now()

    def next_delay(self, at_least_s: float | None = None) -> float | None:
        """Seconds to pause before the next attempt; None when that would be beyond the bound.

        `at_least_s` is what the server asked for (Retry-After, `retry:`). Half of our own pause is
        random, so that many clients of one restarted server do not come back as one.
        """
        full: float = min(_CAP_S, _BASE_S * 2.0**self._attempt)
        self._attempt += 1
        delay = full * (0.5 + 0.5 * self.clock.random())
        if at_least_s is not None:
            delay = max(delay, at_least_s + _BASE_S * self.clock.random())
        return delay if delay <= self.remaining_s else None
