"""A command: its kinds, states and reasons, and the machine that says which state may follow which.

scheduled → queued → claimed → running → cancelling →
succeeded | failed | cancelled | timed_out | lost

A command runs at most once. The API shows `claimed` as `queued`: nothing has run yet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any, Final
from uuid import UUID

from common.domain.errors import InvalidField


class Kind(StrEnum):
    CLAUDE = "claude"
    SHELL = "shell"
    GIT = "git"


class Priority(IntEnum):
    """Lower runs first."""

    URGENT = 1
    HIGH = 2
    NORMAL = 3
    LOW = 4

    @property
    def label(self) -> str:
        return self.name.lower()


class State(StrEnum):
    SCHEDULED = "scheduled"
    QUEUED = "queued"
    CLAIMED = "claimed"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    LOST = "lost"


class Reason(StrEnum):
    EXIT_ZERO = "exit_zero"
    COMPLETED_WITH_DENIALS = "completed_with_denials"
    EXIT_NONZERO = "exit_nonzero"
    SIGNALLED = "signalled"
    START_FAILED = "start_failed"
    AGENT_ERROR = "agent_error"
    API_ERROR = "api_error"
    MAX_TURNS = "max_turns"
    MAX_BUDGET = "max_budget"
    NO_RESULT = "no_result"
    UNKNOWN_SLASH_COMMAND = "unknown_slash_command"
    SESSION_UNKNOWN = "session_unknown"
    MCP_FAILED = "mcp_failed"
    QUEUE = "queue"
    RUN = "run"
    IDLE = "idle"
    USER = "user"
    SHUTDOWN = "shutdown"
    KEY_REVOKED = "key_revoked"
    POD_DELETED = "pod_deleted"
    POD_RESTARTED = "pod_restarted"
    SUPERVISOR = "supervisor"
    OUTPUT_MISMATCH = "output_mismatch"
    WORKSPACE_GONE = "workspace_gone"


_R = Reason
REASONS: Final[dict[State, frozenset[Reason]]] = {
    State.SUCCEEDED: frozenset({_R.EXIT_ZERO, _R.COMPLETED_WITH_DENIALS}),
    State.FAILED: frozenset(
        {
            _R.EXIT_NONZERO,
            _R.SIGNALLED,
            _R.START_FAILED,
            _R.AGENT_ERROR,
            _R.API_ERROR,
            _R.MAX_TURNS,
            _R.MAX_BUDGET,
            _R.NO_RESULT,
            _R.UNKNOWN_SLASH_COMMAND,
            _R.SESSION_UNKNOWN,
            _R.MCP_FAILED,
        }
    ),
    State.TIMED_OUT: frozenset({_R.QUEUE, _R.RUN, _R.IDLE}),
    State.CANCELLED: frozenset({_R.USER, _R.SHUTDOWN, _R.KEY_REVOKED}),
    State.LOST: frozenset(
        {_R.POD_DELETED, _R.POD_RESTARTED, _R.SUPERVISOR, _R.OUTPUT_MISMATCH, _R.WORKSPACE_GONE}
    ),
}
TERMINAL: Final = frozenset(REASONS)
WAITING: Final = frozenset({State.SCHEDULED, State.QUEUED})
ACTIVE: Final = frozenset({State.CLAIMED, State.RUNNING, State.CANCELLING})

_NEXT: Final[dict[State, frozenset[State]]] = {
    State.SCHEDULED: frozenset({State.QUEUED, State.CANCELLED}),
    State.QUEUED: frozenset({State.CLAIMED, State.CANCELLED, State.TIMED_OUT}),
    State.CLAIMED: frozenset({State.RUNNING, State.CANCELLING}) | TERMINAL,
    State.RUNNING: frozenset({State.CANCELLING}) | TERMINAL,
    State.CANCELLING: TERMINAL,
}


def may_follow(old: State, new: State) -> bool:
    """Whether the state machine has an arrow from `old` to `new`."""
    return new in _NEXT.get(old, frozenset())


def sources_of(new: State) -> list[State]:
    """Every state from which `new` can be reached in one step, in the machine's order."""
    return [old for old in State if may_follow(old, new)]


def shown(state: State) -> State:
    """The state callers see: a claimed command has not run, so it is still `queued` to them."""
    return State.QUEUED if state is State.CLAIMED else state


MAX_AHEAD: Final = timedelta(days=7)
RUN_AT_PAST: Final = ("run_at", "in_the_past", "run_at: lies in the past")
RUN_AT_FAR: Final = ("run_at", "too_far", "run_at: lies more than 7 days ahead")


def check_run_at(run_at: datetime | None, now: datetime) -> None:
    """Raise InvalidField unless a command may be scheduled for then; `now` is the store's."""
    if run_at is not None and run_at <= now:
        raise InvalidField.one(*RUN_AT_PAST)
    if run_at is not None and run_at > now + MAX_AHEAD:
        raise InvalidField.one(*RUN_AT_FAR)


@dataclass(frozen=True)
class Timeouts:
    """Seconds: waiting in the queue, running, and without any output. None: no limit."""

    queue_s: int | None = 3600
    run_s: int | None = 3600
    idle_s: int | None = None


@dataclass(frozen=True)
class NewCommand:
    """What a caller asked for, validated. `spec` is kind-specific and holds no secret.

    `env` values are secret: stored sealed, never shown; `mcp_secrets` likewise, per MCP server.
    `session` is the claude session this command holds while it runs: no two run one at once.
    """

    id: UUID
    project: str
    kind: Kind
    spec: dict[str, Any]
    priority: Priority = Priority.NORMAL
    timeouts: Timeouts = field(default_factory=Timeouts)
    env: dict[str, str] = field(default_factory=dict)
    mcp_secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    run_at: datetime | None = None
    session: str | None = None
    reject_if_busy: bool = False
    reject_if_session_busy: bool = False
    fork_if_session_busy: bool = False
    retry_of: UUID | None = None
    traceparent: str | None = None


@dataclass(frozen=True)
class Command:
    """A command as it is stored. `outcome` is there exactly when `state` is terminal."""

    id: UUID
    project: str
    key_id: UUID
    kind: Kind
    spec: dict[str, Any]
    priority: Priority
    state: State
    created_at: datetime
    labels: dict[str, str] = field(default_factory=dict)
    timeouts: Timeouts = field(default_factory=Timeouts)
    env_names: tuple[str, ...] = ()
    run_at: datetime | None = None
    session: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    outcome: dict[str, Any] | None = None
    queue_position: int | None = None
    retry_of: UUID | None = None
    traceparent: str | None = None
    lease_dead: bool = False

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL
