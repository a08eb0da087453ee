"""Bodies and queries of the commands function; the projects function's short forms use them too."""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, model_validator

from common.domain import git_arguments, identifiers, mcp
from common.domain.command import Kind, NewCommand, Priority, Timeouts
from common.domain.events import dumps
from common.domain.launch import session_id
from common.domain.project import NAME
from common.domain.session import SESSION_ID
from common.domain.workspace import ENV_NAME, SHELL_OWNED
from common.entrypoints import strict_json
from common.entrypoints.models.base import WHOLE, Body, Instant, Labels, Page, Query
from common.entrypoints.models.claude import ClaudeOptions, ServerName, ServerSecrets

MAX_SCRIPT: Final = 128 * 1024 - 1  # one argv element; longer ones are E2BIG on Linux
MAX_PROMPT: Final = 512 * 1024
MAX_ENV: Final = 64
MAX_VALUE: Final = 32 * 1024
_DAY: Final = 7 * 24 * 3600
# Variables that make a program run other code, send its requests elsewhere, or are ours.
_DENIED: Final = re.compile(
    r"LD_.*|DYLD_.*|GCONV_PATH|LOCPATH|GLIBC_TUNABLES|MALLOC_.*|BASH_ENV|ENV|BASH_FUNC.*|BASHOPTS"
    r"|SHELLOPTS|PROMPT_COMMAND|PS4|IFS|CDPATH|GLOBIGNORE|PATH|GIT_.*|SSH_ASKPASS.*|SSH_AUTH_SOCK"
    r"|NODE_OPTIONS|NODE_PATH|NODE_EXTRA_CA_CERTS|NPM_CONFIG_.*|npm_config_.*"
    r"|PYTHON(STARTUP|PATH|HOME|INSPECT|WARNINGS|BREAKPOINT|USERBASE)"
    r"|PERL5?(OPT|LIB|DB)|PERL5LIB|RUBY(OPT|LIB)|GEM_PATH|GEM_HOME|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS"
    r"|JDK_JAVA_OPTIONS|LUA_INIT.*|EDITOR|VISUAL|PAGER|LESSOPEN|LESSCLOSE|BROWSER|HOME|XDG_.*"
    r"|(?i:.*_proxy)|RDEV_.*|CLAUDE.*"
)


def _project(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError("not a project name (a DNS label: lower-case letters, digits, -)")
    return name


def _env(env: dict[str, str]) -> dict[str, str]:
    if len(env) > MAX_ENV:
        raise ValueError(f"at most {MAX_ENV} variables")
    for name, value in env.items():
        if not ENV_NAME.match(name) or len(name) > 128:
            raise ValueError(f"{name[:80]!r} is no variable name")
        if name in SHELL_OWNED or _DENIED.fullmatch(name):
            raise ValueError(f"{name} cannot be set")
        if len(value.encode()) > MAX_VALUE:
            raise ValueError(f"the value of {name} has more than 32 KiB")
    return env


def _small(text: str) -> str:
    if len(text.encode()) > MAX_SCRIPT:
        raise ValueError(f"has more than {MAX_SCRIPT} bytes")
    return text


def _inside(path: str) -> str:
    """By its text; where symbolic links lead is for the workspace to see (`cwd_outside`)."""
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError("must be a folder of the workspace, relative to it and without ..")
    return path


# Limits are in bytes of UTF-8; openapi.json can only count characters.
ProjectName = Annotated[
    str, Field(json_schema_extra={"pattern": f"^{NAME.pattern}$"}), AfterValidator(_project)
]
Env = Annotated[
    dict[str, str],
    Field(
        json_schema_extra={
            "maxProperties": MAX_ENV,
            "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$", "maxLength": 128},
            "additionalProperties": {"type": "string", "maxLength": MAX_VALUE},
        }
    ),
    AfterValidator(_env),
]
Argument = Annotated[str, AfterValidator(_small)]
Folder = Annotated[
    str,
    Field(
        min_length=1,
        max_length=1024,
        json_schema_extra={"pattern": r"^(?!/)(?!([\s\S]*/)?\.\.(/|$))"},
    ),
    AfterValidator(_inside),
]
Seconds = Annotated[int, Field(ge=1, le=_DAY), WHOLE]
PriorityName = Literal["low", "normal", "high", "urgent"]


class TimeoutsBody(Body):
    """Seconds; null is no limit."""

    queue_s: Seconds | None = 3600
    run_s: Seconds | None = 3600
    idle_s: Seconds | None = None


class _Common(Body):
    """What every kind of command may carry."""

    priority: PriorityName = "normal"
    timeouts: TimeoutsBody = TimeoutsBody()
    env: Env = Field(default_factory=dict)
    cwd: Folder = "."
    labels: Labels = Field(default_factory=dict)
    run_at: Instant | None = None
    if_busy: Literal["queue", "reject"] = "queue"

    def new(self, project: str, kind: Kind, spec: dict[str, Any], **more: Any) -> NewCommand:
        return NewCommand(
            **{"id": identifiers.new_id()} | more,
            project=project,
            kind=kind,
            spec=spec | {"cwd": self.cwd},
            priority=Priority[self.priority.upper()],
            timeouts=Timeouts(**self.timeouts.model_dump()),
            env=dict(self.env),
            labels=dict(self.labels),
            run_at=self.run_at,
            reject_if_busy=self.if_busy == "reject",
        )


def _only(given: str, left_out: str) -> dict[str, Any]:
    return {given: {"not": {"type": "null"}}, left_out: {"type": "null"}}


class ShellFields(_Common):
    """`script` runs as `sh -c`; `argv` runs as it is."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["script"], "properties": _only("script", "argv")},
                {"required": ["argv"], "properties": _only("argv", "script")},
            ]
        }
    )

    script: (
        Annotated[Argument, Field(min_length=1, json_schema_extra={"maxLength": MAX_SCRIPT})] | None
    ) = None
    argv: (
        Annotated[
            list[Argument],
            Field(
                min_length=1,
                max_length=1024,
                json_schema_extra={"prefixItems": [{"type": "string", "minLength": 1}]},
            ),
        ]
        | None
    ) = None
    streams: Literal["merged", "separate"] = "merged"

    @model_validator(mode="after")
    def _one(self) -> ShellFields:
        if (self.script is None) == (self.argv is None):
            raise ValueError("give either script or argv")
        if self.argv is not None and not self.argv[0]:
            raise ValueError("argv names no program")
        return self

    def command(self, project: str) -> NewCommand:
        what = {"script": self.script} if self.script is not None else {"argv": self.argv}
        return self.new(project, Kind.SHELL, what | {"streams": self.streams})


def _git(args: list[str]) -> list[str]:
    git_arguments.check(args)
    return args


class GitFields(_Common):
    """`args` come after `git`: a verb and options by their full names, from a closed list."""

    args: Annotated[
        list[Argument],
        Field(
            min_length=1,
            max_length=1024,
            json_schema_extra={"prefixItems": [{"enum": list(git_arguments.VERBS)}]},
        ),
        AfterValidator(_git),
    ]
    streams: Literal["merged", "separate"] = "merged"

    def command(self, project: str) -> NewCommand:
        return self.new(project, Kind.GIT, {"args": self.args, "streams": self.streams})


class SessionBody(Body):
    """Which claude session the command works in."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"properties": {"mode": {"const": "new"}, "id": {"type": "null"}}},
                {
                    "required": ["mode", "id"],
                    "properties": {
                        "mode": {"enum": ["resume", "fork"]},
                        "id": {"type": "string", "pattern": f"^{SESSION_ID.pattern}$"},
                    },
                },
            ]
        }
    )

    mode: Literal["new", "resume", "fork"] = "new"
    id: str | None = None
    if_busy: Literal["queue", "reject", "fork"] = "queue"

    @model_validator(mode="after")
    def _fits(self) -> SessionBody:
        if (self.mode == "new") != (self.id is None):
            raise ValueError("resume and fork need an id, new has none")
        if self.id is not None and not SESSION_ID.fullmatch(self.id):
            # One spelling only, or two commands could hold one session.
            raise ValueError("id is no session id (a UUID in lower case)")
        return self


class ClaudeTimeouts(TimeoutsBody):
    """Seconds; null is no limit. claude is known to hang, so silence has a limit by default."""

    idle_s: Seconds | None = 900


class ClaudeFields(_Common):
    """The prompt reaches claude on stdin, never as an argument."""

    timeouts: ClaudeTimeouts = ClaudeTimeouts()

    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT)]
    session: SessionBody = SessionBody()
    options: ClaudeOptions = ClaudeOptions()

    def command(self, project: str) -> NewCommand:
        new = identifiers.new_id()
        servers = self.options.servers()
        options = self.options.model_dump(exclude_defaults=True, exclude={"mcp_servers"})
        spec = {
            "prompt": self.prompt,
            "session": self.session.model_dump(exclude={"if_busy"}, exclude_none=True),
            "options": options | ({"mcp_servers": mcp.shown(servers)} if servers else {}),
        }
        return self.new(
            project,
            Kind.CLAUDE,
            spec,
            id=new,
            mcp_secrets=mcp.secrets(servers),
            session=self.session.id if self.session.mode == "resume" else session_id(new),
            reject_if_session_busy=self.session.if_busy == "reject",
            fork_if_session_busy=self.session.if_busy == "fork" and self.session.mode == "resume",
        )


class CreateShell(ShellFields):
    project: ProjectName
    kind: Literal["shell"]


class CreateGit(GitFields):
    project: ProjectName
    kind: Literal["git"]


class CreateClaude(ClaudeFields):
    project: ProjectName
    kind: Literal["claude"]


CreateCommand = Annotated[CreateClaude | CreateShell | CreateGit, Field(discriminator="kind")]


@cache
def _create_command() -> TypeAdapter[CreateClaude | CreateShell | CreateGit]:
    return TypeAdapter(CreateCommand)


def new_command(body: dict[str, Any]) -> NewCommand:
    """A command from a body that did not come as one. Raises InvalidRequest or InvalidField."""
    wanted = strict_json.model(_create_command(), dumps(body))
    return wanted.command(wanted.project)


class ListCommands(Query):
    """Filters; each may be given more than once where it is a list."""

    project: list[str] = Field(default_factory=list)
    state: list[
        Literal[
            "scheduled",
            "queued",
            "running",
            "cancelling",
            "succeeded",
            "failed",
            "cancelled",
            "timed_out",
            "lost",
        ]
    ] = Field(default_factory=list)
    kind: list[Literal["claude", "shell", "git"]] = Field(default_factory=list)
    label: list[Annotated[str, Field(pattern=r"^[^=]+=")]] = Field(default_factory=list)
    limit: Page = 50
    cursor: str | None = None


class CancelBody(Body):
    mode: Literal["graceful", "force"] = "graceful"


class PriorityBody(Body):
    priority: PriorityName


class DecisionBody(Body):
    """`message` is kept with the decision; of a denial claude reads it too."""

    decision: Literal["allow", "deny"]
    message: Annotated[str, Field(min_length=1, max_length=4096)] | None = None


class RetryBody(Body):
    """Secret values are not kept: a retry of a command that had some sends them again."""

    env: Env = Field(default_factory=dict)
    mcp_servers: dict[ServerName, ServerSecrets] = Field(default_factory=dict)

    def mcp_secrets(self) -> mcp.Secrets:
        """Per server the values of its variables or headers."""
        return {name: server.env | server.headers for name, server in self.mcp_servers.items()}


class OutputQuery(Query):
    stream: Literal["merged", "stdout", "stderr"] | None = None
    offset: Annotated[int, Field(ge=0, le=1 << 50)] = 0
    limit: Annotated[int, Field(ge=1, le=1 << 50)] | None = None
