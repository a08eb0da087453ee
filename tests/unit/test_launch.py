"""common/domain/launch.py: from commands to jobs; no text of a caller becomes syntax."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.domain.command import Command, Kind, Priority, State, Timeouts
from common.domain.launch import job_for, run_id, session_id
from common.domain.workspace import Job, PrivateFile

ID = UUID("0190f3c2-a4b8-7c0e-9a5d-1f2e3c4b5a69")


def command_of(kind: Kind, **spec: Any) -> Command:
    return Command(
        ID,
        "demo",
        UUID(int=2),
        kind,
        spec,
        Priority.NORMAL,
        State.CLAIMED,
        datetime.now(UTC),
        timeouts=Timeouts(60, 30, 10),
    )


def claude_command(**spec: Any) -> Command:
    return command_of(Kind.CLAUDE, prompt="x", **spec)


def job(kind: Kind, env: dict[str, str] | None = None, **spec: Any) -> Job:
    return job_for(command_of(kind, **spec), env or {}, 4096)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_a_script_is_one_argument_of_sh(script: str) -> None:
    """Whatever a script holds, it is the third element and nothing is added to it."""
    assert job(Kind.SHELL, script=script).argv == ("sh", "-c", script)


def test_argv_runs_as_it_is() -> None:
    """No shell stands between."""
    assert job(Kind.SHELL, argv=["echo", "$(id)", ";"]).argv == ("echo", "$(id)", ";")


def test_git_runs_no_program_that_a_plain_status_would() -> None:
    """Hooks and fsmonitor of the repository's config are off and prompts do not hang."""
    made = job(Kind.GIT, args=["status"])
    assert made.argv[0] == "git"
    assert made.argv[-1] == "status"
    assert {"core.fsmonitor=false", "core.hooksPath=/dev/null"} <= set(made.argv)
    assert made.env["GIT_TERMINAL_PROMPT"] == "0"


@pytest.mark.parametrize("prompt", ["--version", "--dangerously-skip-permissions", "-p x", "é"])
def test_a_prompt_goes_in_on_stdin(prompt: str) -> None:
    """A prompt that looks like an option is still a prompt."""
    made = job(Kind.CLAUDE, prompt=prompt)
    assert made.stdin == prompt.encode()
    assert prompt not in made.argv


def test_a_new_session_has_the_commands_own_id() -> None:
    """A second run of the same command would be refused by claude itself."""
    argv = job(Kind.CLAUDE, prompt="x", session={"mode": "new"}).argv
    assert argv[argv.index("--session-id") + 1] == session_id(ID) == str(ID)


@pytest.mark.parametrize("mode", ["resume", "fork"])
def test_resuming_and_forking_name_the_session(mode: str) -> None:
    """Only a fork asks for a copy, and says how it shall be called: the command's own id."""
    source = "4c5d3f8e-0000-4000-8000-00000000000a"
    made = job(Kind.CLAUDE, prompt="x", session={"mode": mode, "id": source})
    argv = made.argv
    assert argv[argv.index("--resume") + 1] == source
    assert made.session == (source if mode == "resume" else str(ID))
    assert ("--fork-session" in argv) == (mode == "fork")
    own = argv[argv.index("--session-id") + 1] if "--session-id" in argv else None
    assert own == (str(ID) if mode == "fork" else None)


def test_options_become_flags_with_one_value_each() -> None:
    """Lists are joined by commas; what is not set is not said."""
    argv = job(
        Kind.CLAUDE,
        prompt="x",
        options={
            "model": "opus",
            "max_turns": 3,
            "max_budget_usd": 0.5,
            "allowed_tools": ["Read", "Bash(git:*)"],
            "disallowed_tools": [],
            "partial_messages": True,
        },
    ).argv
    assert argv[-5:] == (
        "--model=opus",
        "--max-turns=3",
        "--max-budget-usd=0.5",
        "--allowedTools=Read,Bash(git:*)",
        "--include-partial-messages",
    )


def test_a_value_that_looks_like_an_option_is_none() -> None:
    """It is in one argument with the option it belongs to."""
    argv = job(Kind.CLAUDE, prompt="x", options={"append_system_prompt": "--resume"}).argv
    assert argv[-1] == "--append-system-prompt=--resume"


def test_a_schema_is_one_argument_of_json() -> None:
    """claude gets it as it was sent."""
    schema = {"type": "object", "properties": {"a": {"const": "é'\""}}}
    argv = job(Kind.CLAUDE, prompt="x", options={"json_schema": schema}).argv
    assert isinstance(argv[-1], str)
    assert json.loads(argv[-1].removeprefix("--json-schema=")) == schema


SERVERS = {
    "hub": {"type": "http", "url": "https://hub.example", "headers": {"Authorization": None}}
}


def test_mcp_servers_are_a_private_file_and_the_only_ones() -> None:
    """Their secrets are in no argument; what the workspace configures is left alone."""
    secrets = {"hub": {"Authorization": "Bearer c4n4ry"}}
    command = claude_command(options={"mcp_servers": SERVERS})
    argv = job_for(command, {}, 1, secrets).argv
    assert argv[-3:-1] == ("--strict-mcp-config", "--mcp-config")
    assert isinstance(argv[-1], PrivateFile)
    servers = json.loads(argv[-1].text)["mcpServers"]
    assert servers["hub"]["headers"] == {"Authorization": "Bearer c4n4ry"}
    assert "c4n4ry" not in str(argv)


def test_servers_without_their_secrets_are_not_started() -> None:
    """A run that lacks its credentials would fail later and elsewhere."""
    with pytest.raises(ValueError, match=r"hub\.Authorization"):
        job_for(claude_command(options={"mcp_servers": SERVERS}), {}, 1)


def test_claude_inherits_who_it_is_and_no_other_switch() -> None:
    """A claude that started us would leave CLAUDECODE and its like behind."""
    inherit = job(Kind.CLAUDE, prompt="x").inherit
    assert {"ANTHROPIC_*", "CLAUDE_CONFIG_DIR", "CLAUDE_CODE_OAUTH_TOKEN"} <= set(inherit)
    assert not any(pattern.startswith("CLAUDE") and "*" in pattern for pattern in inherit)
    assert "CLAUDECODE" not in inherit


def test_claude_streams_apart_and_is_interrupted_first() -> None:
    """Its stdout is JSON lines, and INT lets it end its tools."""
    made = job(Kind.CLAUDE, prompt="x")
    assert (made.streams, made.interrupt_first) == ("separate", True)
    assert "ANTHROPIC_*" in made.inherit


def test_streams_are_merged_unless_asked_apart() -> None:
    """The default keeps the order in which things were printed."""
    assert job(Kind.SHELL, script="x").streams == "merged"
    assert job(Kind.SHELL, script="x", streams="separate").streams == "separate"


def test_limits_cwd_and_values_reach_the_job() -> None:
    """Timeouts, cap, folder and the caller's variables are passed on; the queue's limit is not."""
    made = job(Kind.SHELL, {"A": "1"}, script="x", cwd="sub")
    assert (made.run_timeout_s, made.idle_timeout_s, made.output_cap) == (30, 10, 4096)
    assert (made.cwd, dict(made.env), made.inherit) == ("sub", {"A": "1"}, ())


def test_a_run_is_named_by_its_command() -> None:
    """The same command has the same run, whoever starts it."""
    assert job(Kind.SHELL, script="x").run_id == run_id(ID) == ID.hex
