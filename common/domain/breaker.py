"""A circuit breaker as a pure machine: closed, open, half-open with a single probe.

closed ─failures─► open ─time─► half_open (one probe) ─success─► closed
                     ▲────────failure────────┘

A probe that has neither failed nor succeeded within `probe_s` counts as good: a follower of a
silent command is connected with nothing to show for it, and must not keep everybody else out.
Times are seconds of any monotonic clock, handed in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Verdict(StrEnum):
    """`PROBE`: the caller may be the one that tries; it must win the probe first."""

    PASS = "pass"  # noqa: S105  # a verdict, not a password
    REFUSE = "refuse"
    PROBE = "probe"


@dataclass(frozen=True)
class Thresholds:
    """`failures` in a row open it for `open_s`, doubled each time up to `longest_s`."""

    failures: int = 5
    open_s: float = 5.0
    longest_s: float = 30.0
    probe_s: float = 2.0


@dataclass(frozen=True)
class Breaker:
    """`until`: when an opening, or a probe, is over. `openings`: in a row, without a success."""

    state: State = State.CLOSED
    failures: int = 0
    openings: int = 0
    until: float = 0.0
    detail: str | None = None

    def ask(self, now: float) -> Verdict:
        """Whether a call may go through now."""
        if self.state is State.CLOSED:
            return Verdict.PASS
        if now < self.until:
            return Verdict.REFUSE
        return Verdict.PROBE if self.state is State.OPEN else Verdict.PASS

    def probing(self, now: float, limits: Thresholds) -> Breaker:
        """Half-open: the one probe is on its way."""
        return replace(self, state=State.HALF_OPEN, until=now + limits.probe_s)

    def refused(self, now: float, seconds: float) -> Breaker:
        """Somebody else is probing: ask again later."""
        return replace(self, until=now + seconds)

    def succeeded(self) -> Breaker:
        return CLOSED

    def failed(
        self, now: float, limits: Thresholds, detail: str, retry_after_s: float | None = None
    ) -> Breaker:
        """One more failure; open when it was one too many, the probe's, or told to stay away."""
        failures = self.failures + 1
        tolerable = self.state is State.CLOSED and failures < limits.failures
        if tolerable and retry_after_s is None:
            return replace(self, failures=failures, detail=detail)
        openings = self.openings + (self.state is not State.OPEN)
        pause = min(limits.longest_s, limits.open_s * 2.0 ** min(openings - 1, 16))
        until = now + max(pause if not tolerable else 0.0, retry_after_s or 0.0)
        return Breaker(State.OPEN, failures, openings, max(until, self.until), detail)


CLOSED: Final = Breaker()
