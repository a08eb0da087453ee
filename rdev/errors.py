"""Every way `rdev` itself can fail, as one tree; each knows the exit code it ends with.

CliError
├── WrongUsage        64   the command line, or what it names, is wrong
├── Unreachable       69   nobody answered within the time we keep trying
├── ServerFault       70   somebody answered, but not as rdev promises
├── OutcomeUnknown    75   a command may still run, and we no longer see it
├── NotAllowed        77   no key, or one that may not do this
├── Refused          125   the server would not start the command
├── Interrupted      130   Ctrl-C (or another signal: 128 + n)
└── ReaderGone       141   whoever read our standard output has closed it

StreamEnded and StreamBroken are no failures of rdev: they are how `http.py` tells `stream.py`
what became of one connection, before anybody decides to give up.
"""

from __future__ import annotations

from typing import Any

from rdev import exit_codes


class CliError(Exception):
    """Base of all errors shown to the person; `str()` is the sentence, `hint` what to do next."""

    exit_code = exit_codes.FAILED
    kind = "error"

    def __init__(
        self, message: str, *, hint: str | None = None, problem: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.problem = problem

    def as_json(self) -> dict[str, Any]:
        """For `-o json`: what happened, the code we end with, and the server's own problem."""
        body: dict[str, Any] = {
            "kind": self.kind,
            "message": str(self),
            "exit_code": self.exit_code,
        }
        if self.hint is not None:
            body["hint"] = self.hint
        if self.problem is not None:
            body["problem"] = self.problem
        return {"error": body}


class WrongUsage(CliError):
    exit_code = exit_codes.USAGE
    kind = "usage"


class Unreachable(CliError):
    exit_code = exit_codes.UNREACHABLE
    kind = "unreachable"


class ServerFault(CliError):
    exit_code = exit_codes.SERVER_FAULT
    kind = "server_fault"


class OutcomeUnknown(CliError):
    exit_code = exit_codes.OUTCOME_UNKNOWN
    kind = "outcome_unknown"


class NotAllowed(CliError):
    exit_code = exit_codes.NOT_ALLOWED
    kind = "not_allowed"


class Refused(CliError):
    exit_code = exit_codes.REFUSED
    kind = "refused"


class Interrupted(CliError):
    """A signal told us to leave; the exit code is the one a shell would show for it."""

    kind = "interrupted"

    def __init__(self, message: str, *, signal_number: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_codes.SIGNALLED + signal_number


class ReaderGone(CliError):
    exit_code = exit_codes.READER_GONE
    kind = "reader_gone"


class StreamEnded(Exception):
    """204: the stream has nothing after the last id, and never will."""


class StreamBroken(Exception):
    """This connection is of no more use; another one may be.

    `retry_after_s` is what the server asked for.
    """

    def __init__(self, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
