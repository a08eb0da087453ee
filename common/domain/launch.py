"""From a command to a job: which argv, which stdin, which environment the workspace gets.

argv is always a list; no text a caller wrote is ever spliced into a shell line. A prompt goes in on
stdin: as an argument it could be an option (`--version`), and argv shows in audit logs.
"""

from __future__ import annotations

import json
from typing import Any, Final
from uuid import UUID

from common.domain import git_arguments, mcp
from common.domain.approval import prompt_line
from common.domain.command import Command, Kind
from common.domain.credentials import Credential
from common.domain.workspace import Argument, Job, PrivateFile, Streams

# A repository's own config can name programs; these stop the ones that everyday verbs would run
# (the environment stands above core.editor and core.sshCommand). Not a sandbox: see
# docs/concepts/security-model.md.
_GIT: Final = (
    "git",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.hooksPath=/dev/null",
    "--no-pager",
)
_GIT_ENV: Final = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": "https:ssh",
    "GIT_EDITOR": ":",
    "GIT_SEQUENCE_EDITOR": ":",
    "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
    "GIT_ASKPASS": "",
}
_CLAUDE_ENV: Final = {"DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
# claude runs with what says who it is and where its service is, and no other CLAUDE* variable: one
# that was inherited from a claude which started us would change what this one does.
_IDENTITY: Final = (
    "ANTHROPIC_*",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "AWS_PROFILE",
    "AWS_REGION",
)
_SURROUNDINGS: Final = (
    "CLAUDE_CONFIG_DIR",
    "IS_SANDBOX",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "https_proxy",
    "http_proxy",
    "no_proxy",
    "NODE_EXTRA_CA_CERTS",
)
_OPTIONS: Final = {
    "model": "--model",
    "fallback_model": "--fallback-model",
    "effort": "--effort",
    "permission_mode": "--permission-mode",
    "append_system_prompt": "--append-system-prompt",
    "max_turns": "--max-turns",
    "max_budget_usd": "--max-budget-usd",
}
_LISTS: Final = {"allowed_tools": "--allowedTools", "disallowed_tools": "--disallowedTools"}


def run_id(command_id: UUID) -> str:
    """The name of a command's run in its workspace."""
    return command_id.hex


def session_id(command_id: UUID) -> str:
    """The session a command makes, new or forked: its own UUID, so that a second run is refused."""
    return str(command_id)


def job_for(
    command: Command,
    env: dict[str, str],
    output_cap: int,
    mcp_secrets: mcp.Secrets | None = None,
    approval_s: int = 0,
    credential: Credential | None = None,
) -> Job:
    """The job of a command; `env` and `mcp_secrets` hold the unsealed values its caller gave.

    `approval_s` is how long a permission request may wait. `credential` is the one that the project
    names for claude: nothing of the workspace's own is mixed with it.

    Raises ValueError for git arguments that are not allowed and for secrets that are not there.
    """
    spec = command.spec
    argv, stdin, own_env, inherit = _parts(command, mcp_secrets or {})
    idle_s = command.timeouts.idle_s
    return Job(
        run_id=run_id(command.id),
        argv=argv,
        env=own_env | dict(credential or {}) | env,
        cwd=spec.get("cwd") or ".",
        stdin=stdin,
        streams=_streams(command),
        run_timeout_s=command.timeouts.run_s,
        # While somebody is asked claude is silent, and that is not idleness.
        idle_timeout_s=idle_s + approval_s if idle_s is not None and asks(command) else idle_s,
        output_cap=output_cap,
        interrupt_first=command.kind is Kind.CLAUDE,
        inherit=inherit if credential is None else _SURROUNDINGS,
        session=_session_id(command) if command.kind is Kind.CLAUDE else "",
        input_open=asks(command),
    )


def asks(command: Command) -> bool:
    """Whether claude asks for permissions, and its stdin stays open for the answers."""
    options: dict[str, Any] = command.spec.get("options") or {}
    return command.kind is Kind.CLAUDE and bool(options.get("approvals"))


def prompt(command: Command) -> bytes:
    """What a claude command's stdin begins with."""
    text: str = command.spec["prompt"]
    return prompt_line(text) if asks(command) else text.encode()


def _streams(command: Command) -> Streams:
    """claude's stdout is JSON lines, so its streams are never merged."""
    if command.kind is Kind.CLAUDE or command.spec.get("streams") == "separate":
        return "separate"
    return "merged"


def _parts(
    command: Command, mcp_secrets: mcp.Secrets
) -> tuple[tuple[Argument, ...], bytes, dict[str, str], tuple[str, ...]]:
    spec = command.spec
    if command.kind is Kind.CLAUDE:
        return (
            _claude(command, mcp_secrets),
            prompt(command),
            dict(_CLAUDE_ENV),
            (*_IDENTITY, *_SURROUNDINGS),
        )
    if command.kind is Kind.GIT:
        git_arguments.check(spec["args"])  # once more: what is stored may be older than the list
        return (*_GIT, *spec["args"]), b"", dict(_GIT_ENV), ()
    if spec.get("script") is not None:
        return ("sh", "-c", spec["script"]), b"", {}, ()
    return tuple(spec["argv"]), b"", {}, ()


def _claude(command: Command, mcp_secrets: mcp.Secrets) -> tuple[Argument, ...]:
    argv: list[Argument] = ["claude", "-p", "--output-format", "stream-json", "--verbose"]
    argv += _session(command)
    options: dict[str, Any] = command.spec.get("options") or {}
    # A value goes into the argument of its option: one that begins with `-` stays a value.
    argv += [f"{flag}={options[o]}" for o, flag in _OPTIONS.items() if options.get(o) is not None]
    argv += [f"{flag}={','.join(options[o])}" for o, flag in _LISTS.items() if options.get(o)]
    if options.get("json_schema") is not None:
        argv.append(f"--json-schema={json.dumps(options['json_schema'])}")
    if asks(command):
        argv += ["--input-format", "stream-json", "--permission-prompt-tool", "stdio"]
    if options.get("partial_messages"):
        argv.append("--include-partial-messages")
    if servers := options.get("mcp_servers"):
        # Only these: what the workspace's own .mcp.json starts is then no surprise.
        argv += ["--strict-mcp-config", "--mcp-config"]
        argv.append(PrivateFile(mcp.config(servers, mcp_secrets)))
    return tuple(argv)


def _session_id(command: Command) -> str:
    """The session that this command writes to."""
    session: dict[str, Any] = command.spec.get("session") or {}
    resumed = session["id"] if session.get("mode") == "resume" else None
    return resumed or session_id(command.id)


def _session(command: Command) -> list[str]:
    """A session whose id is known beforehand; claude refuses to make one whose id is in use."""
    session: dict[str, Any] = command.spec.get("session") or {}
    mode, own = session.get("mode"), ["--session-id", session_id(command.id)]
    if mode == "resume":
        return ["--resume", session["id"]]
    return ["--resume", session["id"], "--fork-session", *own] if mode == "fork" else own
