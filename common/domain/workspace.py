"""A workspace as rdev sees it: where commands run, what one run is, and how a run can end.

Pure data. The supervisor (`services/supervisor.sh`) owns a run inside the workspace; these are the
words in which it answers.

WorkspaceError
├── TransportLost          the channel broke: what was asked may or may not have happened
├── WorkspaceUnreachable   nothing got through: nothing happened
├── WorkspaceGone          what the run was in has ended, and the run with it
├── StartRefused           the workspace said no before it claimed the run: nothing happened
├── RunAbsent              this workspace knows no such run
├── OffsetBeyondEnd        asked to read or write past what the workspace has
├── Superseded             another follower took this stream over: stop reading
└── WorkspaceBroken        the workspace answered something that is not our protocol
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

from common.domain.command import Reason
from common.domain.session import SESSION_ID

Streams = Literal["merged", "separate"]
Stream = Literal["merged", "stdout", "stderr"]

DEFAULT_OUTPUT_CAP: Final = 1024**3
# What a run may be called: it becomes a directory and, with a `;`, the mark on its processes.
RUN_ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}\Z")
ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# Variables a shell keeps for itself: set by a job they would be refused or replaced, and silently.
SHELL_OWNED: Final = frozenset(
    [
        "BASHOPTS",
        "BASHPID",
        "BASH_ARGC",
        "BASH_ARGV",
        "BASH_ARGV0",
        "BASH_COMMAND",
        "BASH_LINENO",
        "BASH_SOURCE",
        "BASH_SUBSHELL",
        "BASH_VERSINFO",
        "COMP_WORDBREAKS",
        "DIRSTACK",
        "EPOCHREALTIME",
        "EPOCHSECONDS",
        "EUID",
        "FUNCNAME",
        "GROUPS",
        "HISTCMD",
        "IFS",
        "LINENO",
        "OLDPWD",
        "OPTARG",
        "OPTIND",
        "PIPESTATUS",
        "PPID",
        "PWD",
        "RANDOM",
        "SECONDS",
        "SHELLOPTS",
        "SRANDOM",
        "UID",
        "_",
    ]
)
_REASON: Final = re.compile(r"[a-z][a-z_]{0,31}\Z")
_INHERIT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\*?\Z")


class WorkspaceError(Exception):
    """Base of everything a workspace can fail with."""


class TransportLost(WorkspaceError):
    """The channel broke; the far side may have done what was asked. Ask again, or attach."""


class WorkspaceUnreachable(WorkspaceError):
    """Nothing reached the workspace, so nothing happened there."""


class WorkspaceGone(WorkspaceError):
    """The pod is deleted or its container was started anew; `reason` is the command's then."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class StartRefused(WorkspaceError):
    """The workspace would not start the run and claimed nothing; `code` says why.

    Codes: `no_space` (spool budget or disk), `read_only` (no place for run directories),
    `unsupported` (a tool is missing there), `bad_job` (arrived incomplete).
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class RunAbsent(WorkspaceError):
    """The workspace has no directory for this run."""


class OffsetBeyondEnd(WorkspaceError):
    """The offset is not one the workspace can serve; `end` is where its data ends."""

    def __init__(self, end: int) -> None:
        super().__init__(f"offset does not fit, the data ends at {end}")
        self.end = end


class Superseded(WorkspaceError):
    """A newer follower reads this stream now."""


class WorkspaceBroken(WorkspaceError):
    """An answer that is not our protocol: a shell's message, a truncated line."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a project's commands run. On a laptop only `project` and `path` (absolute) matter.

    `pod_uid` is a `discovery.Life`: that one life of one container and no other.
    """

    project: str
    path: str
    namespace: str = ""
    pod: str = ""
    pod_uid: str = ""
    container: str = ""


class RunState(StrEnum):
    """What the workspace says about a run.

    `orphan`: its supervisor died, processes of it live on. `lost`: its supervisor died and nothing
    is left. `refused`: a tombstone, it never ran and never will.
    """

    ABSENT = "absent"
    STARTING = "starting"
    RUNNING = "running"
    DONE = "done"
    ORPHAN = "orphan"
    LOST = "lost"
    REFUSED = "refused"


class KillMode(StrEnum):
    """graceful: TERM, 10 s, KILL. shutdown: TERM, 2 s, KILL. force: KILL at once."""

    GRACEFUL = "graceful"
    SHUTDOWN = "shutdown"
    FORCE = "force"


@dataclass(frozen=True, slots=True)
class PrivateFile:
    """An argument that is the path of a file with this text: only its owner can read it, and it is
    gone when the run has ended. For programs that read secrets from a file and not from stdin.
    """

    text: str = field(repr=False)


Argument = str | PrivateFile


@dataclass(frozen=True, slots=True)
class Job:
    """One run, as the supervisor needs it. Reaches the workspace on stdin only: it holds secrets.

    `cwd` is relative to the workspace or absolute inside it. `env` is laid over the allowlisted
    environment of the workspace (HOME, USER, PATH, LANG, TERM, TMPDIR); `inherit` names more of the
    workspace's variables to keep, each a name or a prefix with `*`. Timeouts are in seconds, None
    is no limit. `output_cap` is bytes per stream; what comes after it is read and dropped.
    `input_open` keeps stdin open after `stdin` was delivered, for `Workspace.send`.
    `session`: the claude session whose transcript shows life when stdout does not.
    `interrupt_first`: timeouts send INT and wait 5 s before TERM (claude ends its tools on INT).
    """

    run_id: str
    argv: tuple[Argument, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "."
    stdin: bytes = b""
    streams: Streams = "merged"
    run_timeout_s: float | None = None
    idle_timeout_s: float | None = None
    output_cap: int = DEFAULT_OUTPUT_CAP
    input_open: bool = False
    interrupt_first: bool = False
    inherit: tuple[str, ...] = ()
    session: str = ""

    def __post_init__(self) -> None:
        """Refuse what the supervisor could not carry out as it was meant. Raises ValueError."""
        check_run_id(self.run_id)
        if not self.argv or not self.argv[0]:
            raise ValueError("argv names no program")
        texts = (a.text if isinstance(a, PrivateFile) else a for a in self.argv)
        if any("\0" in text for text in (*texts, *self.env.values(), self.cwd)):
            raise ValueError("argv, env and cwd cannot hold NUL")
        for name in self.env:
            if not ENV_NAME.match(name):
                raise ValueError(f"not a variable name: {name!r}")
            if name in SHELL_OWNED or name.startswith("RDEV_"):
                raise ValueError(f"this variable cannot be set: {name}")
        for pattern in self.inherit:
            if not _INHERIT.match(pattern):
                raise ValueError(f"not a variable name or prefix*: {pattern!r}")
        for limit in (self.run_timeout_s, self.idle_timeout_s):
            if limit is not None and limit <= 0:
                raise ValueError("a timeout is more than 0 seconds")
        if self.session and not SESSION_ID.fullmatch(self.session):
            raise ValueError("not a session id")
        if self.output_cap < 1:
            raise ValueError("output_cap is at least 1 byte")


@dataclass(frozen=True, slots=True)
class StreamTotal:
    """What one stream came to: its kept bytes, their SHA-256 (hex), and why it was cut, if it was.

    `truncated` is "" (complete), `cap` (Job.output_cap) or `disk_full`.
    """

    size: int
    sha256: str
    truncated: str = ""


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """How a run ended: the supervisor's last word, written once.

    `reason`: `exited`, `run_timeout`, `idle_timeout`, `start_failed` (see `detail`), or the reason
    given to the first `kill`; `result_seen` is the one of a claude that did not exit after its
    result. `code` is None when nobody saw the exit (never launched, or its supervisor died).
    `signal` is the shell's reading of codes above 128. `orphans` counts the processes that outlived
    the command and were killed. `stdout` is the merged stream when merged.
    """

    reason: str
    code: int | None
    signal: int | None
    stdout: StreamTotal
    stderr: StreamTotal
    orphans: int = 0
    elapsed_ms: int = 0
    ended_at: int = 0
    detail: str = ""

    @property
    def truncated(self) -> bool:
        return bool(self.stdout.truncated or self.stderr.truncated)


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run now: `exit` is there exactly when `state` is done. Sizes are bytes spooled so far."""

    state: RunState
    exit: ExitRecord | None = None
    stdout_size: int = 0
    stderr_size: int = 0


def check_run_id(run_id: str) -> str:
    """The id, when it may name a run. Raises ValueError."""
    if not RUN_ID.match(run_id):
        raise ValueError(f"not a run id: {run_id!r}")
    return run_id


def check_reason(reason: str) -> str:
    """The reason, when a kill may carry it. Raises ValueError."""
    if not _REASON.match(reason):
        raise ValueError(f"not a kill reason: {reason!r}")
    return reason
