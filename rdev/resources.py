"""The resources of the API, as far as the command line looks into them.

Unknown fields are kept in `raw`, which is what `-o json` prints: a newer server's additions reach
scripts without a new `rdev`.
"""

from __future__ import annotations

import datetime as dt
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from rdev import exit_codes
from rdev.errors import ServerFault
from rdev.text import parse_time, printable

WAITING: Final = frozenset({"scheduled", "queued"})
ACTIVE: Final = frozenset({"running", "cancelling"})
TERMINAL: Final = frozenset({"succeeded", "failed", "cancelled", "timed_out", "lost"})


@dataclass(frozen=True, slots=True)
class Command:
    """One command, as the server last told it."""

    raw: dict[str, Any]

    @classmethod
    def parse(cls, value: Any) -> Command:
        """Raises ServerFault for anything that is not a command."""
        if isinstance(value, dict) and all(isinstance(value.get(f), str) for f in _REQUIRED):
            return cls(value)
        raise ServerFault("the server's answer is not a command; is this an rdev server?")

    @property
    def id(self) -> str:
        return str(self.raw["id"])

    @property
    def project(self) -> str:
        return str(self.raw["project"])

    @property
    def kind(self) -> str:
        return str(self.raw["kind"])

    @property
    def state(self) -> str:
        return str(self.raw["state"])

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL

    @property
    def spec(self) -> Mapping[str, Any]:
        return _mapping(self.raw.get("spec"))

    @property
    def outcome(self) -> Mapping[str, Any]:
        return _mapping(self.raw.get("outcome"))

    @property
    def agent(self) -> Mapping[str, Any]:
        return _mapping(self.outcome.get("agent"))

    @property
    def reason(self) -> str | None:
        reason = self.outcome.get("reason")
        return None if reason is None else str(reason)

    @property
    def queue_position(self) -> int | None:
        position = self.raw.get("queue_position")
        return position if isinstance(position, int) else None

    @property
    def session_id(self) -> str | None:
        session = self.raw.get("session_id") or self.agent.get("session_id")
        return str(session) if session else None

    @property
    def exit_code(self) -> int:
        """What `rdev` exits with for it; only for a command that has ended."""
        return exit_codes.of_outcome(self.state, self.outcome)

    @property
    def streams(self) -> tuple[str, ...]:
        """The names of its output streams; claude always keeps them apart (its stdout is JSON)."""
        if self.kind == "claude" or self.spec.get("streams") == "separate":
            return ("stdout", "stderr")
        return ("merged",)

    @property
    def summary(self) -> str:
        """What it runs, on one line and safe for a terminal."""
        spec = self.spec
        if self.kind == "git":
            return printable(shlex.join(["git", *_words(spec.get("args"))]))
        if spec.get("argv"):
            return printable(shlex.join(_words(spec.get("argv"))))
        return printable(str(spec.get("script") or spec.get("prompt") or ""))

    def time(self, field: str) -> dt.datetime | None:
        """The instant in `created_at`, `started_at` or `finished_at`."""
        return parse_time(self.raw.get(field))


_REQUIRED: Final = ("id", "project", "kind", "state")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _words(value: object) -> list[str]:
    return [str(word) for word in value] if isinstance(value, list) else []
