"""Ctrl-C while a command is followed.

The command runs elsewhere, so leaving and stopping it are two wishes. On a terminal the first
Ctrl-C says how to come back and the second cancels; where nobody can answer, the first cancels. A
further one always leaves at once.

Signal handlers only put a word into a queue: a thread that was started before does the talking and
the cancelling, because an exception out of a handler could tear a half-written piece of output.
"""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from rdev.errors import CliError, Interrupted

if TYPE_CHECKING:
    from rdev.output import Console

_JOIN_S: Final = 2.0
"""How long the end of a command waits for a cancel request that is still on its way."""


class Policy(Enum):
    """What `--on-interrupt` chooses."""

    ASK = "ask"
    DETACH = "detach"
    CANCEL = "cancel"

    @classmethod
    def chosen(cls, name: str | None, *, on_terminal: bool) -> Policy:
        """The named one; by default ask where somebody can answer, else cancel."""
        if name is not None:
            return cls(name)
        return cls.ASK if on_terminal else cls.CANCEL


class _Step(Enum):
    TELL = "tell"
    CANCEL = "cancel"
    LEAVE = "leave"
    STOP = "stop"


_STEPS: Final[Mapping[Policy, tuple[_Step, ...]]] = {
    Policy.ASK: (_Step.TELL, _Step.CANCEL, _Step.LEAVE),
    Policy.CANCEL: (_Step.CANCEL, _Step.LEAVE),
    Policy.DETACH: (_Step.LEAVE,),
}
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def how_to_come_back(command_id: str) -> str:
    """The two commands that a person who leaves needs."""
    return f"watch it with `rdev logs -f {command_id}`, stop it with `rdev cancel {command_id}`"


@dataclass(slots=True)
class Target:
    """The command that the signals are about, and how to cancel it."""

    command_id: str
    cancel: Callable[[], object]


class Interrupts:
    """While this context is open, signals follow the policy. Only for the main thread."""

    def __init__(self, policy: Policy, target: Target, console: Console) -> None:
        self._policy = policy
        self._target = target
        self._console = console
        self._count = 0
        # SimpleQueue.put may be called from a signal handler (its documentation says so).
        self._steps: queue.SimpleQueue[_Step] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="interrupts", daemon=True)
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        for number in _SIGNALS:
            # A background job of a script has SIGINT ignored, and that is to stay so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._steps.put(_Step.STOP)
        if not isinstance(error, Interrupted):
            self._thread.join(_JOIN_S)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        steps = _STEPS[self._policy]
        if number == signal.SIGTERM and self._policy is Policy.ASK:
            # Nobody who sends SIGTERM reads an answer; the policy only asks, so it does not cancel.
            steps = (_Step.LEAVE,)
        step = steps[min(self._count, len(steps) - 1)]
        self._count += 1
        if step is _Step.LEAVE:
            command_id = self._target.command_id
            raise Interrupted(
                f"left {command_id} running" if self._count == 1 else f"left {command_id}",
                signal_number=number,
                hint=how_to_come_back(command_id),
            )
        self._steps.put(step)

    def _work(self) -> None:
        while (step := self._steps.get()) is not _Step.STOP:
            if step is _Step.TELL:
                come_back = how_to_come_back(self._target.command_id)
                self._console.warn(f"still running: {come_back}; Ctrl-C again cancels it")
            else:
                self._cancel()

    def _cancel(self) -> None:
        self._console.say(f"cancelling {self._target.command_id}…")
        try:
            self._target.cancel()
        except CliError as error:
            self._console.error(
                f"could not cancel: {error}", f"try `rdev cancel {self._target.command_id}`"
            )
