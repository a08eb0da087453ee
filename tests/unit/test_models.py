"""common/entrypoints/models/: what bodies and queries may hold."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import TypeAdapter

from common.domain.command import Kind, Priority, Timeouts
from common.domain.errors import InvalidField, InvalidRequest
from common.domain.launch import session_id
from common.entrypoints import strict_json
from common.entrypoints.models.base import PageQuery
from common.entrypoints.models.commands import (
    MAX_SCRIPT,
    CancelBody,
    CreateCommand,
    ListCommands,
    OutputQuery,
    PriorityBody,
    RetryBody,
)
from common.entrypoints.models.keys import CreateKey

COMMAND: TypeAdapter[Any] = TypeAdapter(CreateCommand)
SHELL = {"project": "demo", "kind": "shell", "script": "x"}
GIT = {"project": "demo", "kind": "git", "args": ["status"]}
CLAUDE = {"project": "demo", "kind": "claude", "prompt": "x"}
SESSION = "0190f3c2-a4b8-7c0e-9a5d-1f2e3c4b5a69"


def new(body: dict[str, Any]) -> Any:
    made = strict_json.model(COMMAND, json.dumps(body).encode())
    return made.command(made.project)


def refused(adapter: TypeAdapter[Any], body: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(InvalidField) as caught:
        strict_json.model(adapter, json.dumps(body).encode())
    return [(e.field, e.code) for e in caught.value.errors]


def test_the_least_that_makes_a_command() -> None:
    """Everything else has a default."""
    made = new(SHELL)
    assert (made.project, made.kind, made.priority) == ("demo", Kind.SHELL, Priority.NORMAL)
    assert made.spec == {"script": "x", "streams": "merged", "cwd": "."}
    assert made.timeouts == Timeouts(3600, 3600, None)
    assert (made.session, made.run_at, made.reject_if_busy) == (None, None, False)


def test_everything_a_command_can_say() -> None:
    """Each field arrives."""
    made = new(
        SHELL
        | {
            "priority": "urgent",
            "timeouts": {"queue_s": None, "run_s": 5, "idle_s": 6},
            "env": {"TOKEN": "s"},
            "cwd": "sub",
            "labels": {"a": "b"},
            "run_at": "2030-01-01T00:00:00+02:00",
            "if_busy": "reject",
            "streams": "separate",
        }
    )
    assert (made.priority, made.timeouts) == (Priority.URGENT, Timeouts(None, 5, 6))
    assert (made.env, made.labels, made.reject_if_busy) == ({"TOKEN": "s"}, {"a": "b"}, True)
    assert made.run_at.astimezone(UTC) == datetime(2029, 12, 31, 22, tzinfo=UTC)
    assert made.spec == {"script": "x", "streams": "separate", "cwd": "sub"}
    assert "TOKEN" not in repr(made.spec)


def test_a_claude_command_names_its_session() -> None:
    """A new one and a fork have their own, a resumed one holds that one."""
    fresh = new(CLAUDE)
    assert fresh.session == session_id(fresh.id)
    resumed = new(CLAUDE | {"session": {"mode": "resume", "id": SESSION}})
    assert (resumed.session, resumed.spec["session"]) == (
        SESSION,
        {"mode": "resume", "id": SESSION},
    )
    fork = new(CLAUDE | {"session": {"mode": "fork", "id": SESSION}})
    assert fork.session == session_id(fork.id)


@pytest.mark.parametrize(
    ("if_busy", "reject", "fork"),
    [("queue", False, False), ("reject", True, False), ("fork", False, True)],
)
def test_what_to_do_with_a_busy_session(if_busy: str, reject: bool, fork: bool) -> None:
    """Wait, refuse, or take a copy."""
    made = new(CLAUDE | {"session": {"mode": "resume", "id": SESSION, "if_busy": if_busy}})
    assert (made.reject_if_session_busy, made.fork_if_session_busy) == (reject, fork)


def test_claude_may_be_silent_for_a_quarter_of_an_hour() -> None:
    """It is known to hang, so there is a limit unless the caller wants none."""
    assert new(CLAUDE).timeouts == Timeouts(3600, 3600, 900)
    assert new(CLAUDE | {"timeouts": {"run_s": 5}}).timeouts == Timeouts(3600, 5, 900)
    assert new(CLAUDE | {"timeouts": {"idle_s": None}}).timeouts == Timeouts(3600, 3600, None)


def test_only_options_that_were_given_are_kept() -> None:
    """Defaults are claude's business."""
    made = new(CLAUDE | {"options": {"model": "opus", "allowed_tools": ["Bash(git:*)"]}})
    assert made.spec["options"] == {"model": "opus", "allowed_tools": ["Bash(git:*)"]}


WRONG: list[tuple[dict[str, Any], str]] = [
    (SHELL | {"state": "running"}, "state"),
    (SHELL | {"lease_token": 1}, "lease_token"),
    (SHELL | {"prompt": "x"}, "prompt"),
    (SHELL | {"priority": 999}, "priority"),
    (SHELL | {"priority": "highest"}, "priority"),
    (SHELL | {"project": "../x"}, "project"),
    (SHELL | {"project": "Demo"}, "project"),
    (SHELL | {"project": "demo\n"}, "project"),
    (SHELL | {"project": None}, "project"),
    (SHELL | {"script": ""}, "script"),
    (SHELL | {"script": None}, ""),
    (SHELL | {"argv": ["x"]}, ""),
    (SHELL | {"script": None, "argv": []}, "argv"),
    (SHELL | {"script": None, "argv": [""]}, ""),
    (SHELL | {"script": None, "argv": ["x", 1]}, "argv[1]"),
    (SHELL | {"script": "x" * (MAX_SCRIPT + 1)}, "script"),
    (SHELL | {"script": "é" * (MAX_SCRIPT // 2 + 1)}, "script"),
    (SHELL | {"streams": "both"}, "streams"),
    (SHELL | {"cwd": ""}, "cwd"),
    (SHELL | {"cwd": "x" * 1025}, "cwd"),
    (SHELL | {"timeouts": {"run_s": 0}}, "timeouts.run_s"),
    (SHELL | {"timeouts": {"run_s": 8 * 24 * 3600}}, "timeouts.run_s"),
    (SHELL | {"timeouts": {"run_s": 1.5}}, "timeouts.run_s"),
    (SHELL | {"timeouts": {"run_s": True}}, "timeouts.run_s"),
    (SHELL | {"timeouts": {"other": 1}}, "timeouts.other"),
    (SHELL | {"run_at": "2030-01-01T00:00:00"}, "run_at"),
    (SHELL | {"run_at": "soon"}, "run_at"),
    (SHELL | {"run_at": 1893456000}, "run_at"),
    (SHELL | {"run_at": "2030-01-01"}, "run_at"),
    (SHELL | {"if_busy": "fork"}, "if_busy"),
    (SHELL | {"labels": {f"l{n}": "" for n in range(33)}}, "labels"),
    (SHELL | {"labels": {"": "x"}}, "labels"),
    (SHELL | {"labels": {"a b": "x"}}, "labels"),
    (SHELL | {"labels": {"a": "x" * 257}}, "labels"),
    (SHELL | {"labels": {"a": "line\nbreak"}}, "labels"),
    (SHELL | {"labels": {"a": "bidi\u202e"}}, "labels"),
    (SHELL | {"labels": {"a": "\u2028"}}, "labels"),
    (SHELL | {"labels": {"a": 1}}, "labels.a"),
    (SHELL | {"env": {f"V{n}": "" for n in range(65)}}, "env"),
    (SHELL | {"env": {"A": "x" * (32 * 1024 + 1)}}, "env"),
    (GIT | {"args": []}, "args"),
    (GIT | {"args": ["x" * (MAX_SCRIPT + 1)]}, "args[0]"),
    (GIT | {"script": "x"}, "script"),
    (CLAUDE | {"prompt": ""}, "prompt"),
    (CLAUDE | {"prompt": "x" * (512 * 1024 + 1)}, "prompt"),
    (CLAUDE | {"session": {"mode": "new", "id": SESSION}}, "session"),
    (CLAUDE | {"session": {"mode": "resume"}}, "session"),
    (CLAUDE | {"session": {"mode": "resume", "id": "--version"}}, "session"),
    (CLAUDE | {"session": {"mode": "resume", "id": SESSION.upper()}}, "session"),
    (CLAUDE | {"session": {"mode": "resume", "id": "{" + SESSION + "}"}}, "session"),
    (CLAUDE | {"session": {"mode": "resume", "id": SESSION.replace("-", "")}}, "session"),
    (CLAUDE | {"session": {"mode": "resume", "id": SESSION + "\n"}}, "session"),
    (CLAUDE | {"options": {"settings": "{}"}}, "options.settings"),
    (CLAUDE | {"options": {"mcp_config": "x"}}, "options.mcp_config"),
    (CLAUDE | {"options": {"model": "--version"}}, "options.model"),
    (CLAUDE | {"options": {"model": "a\n"}}, "options.model"),
    (CLAUDE | {"options": {"allowed_tools": ["a,b"]}}, "options.allowed_tools[0]"),
    (CLAUDE | {"options": {"permission_mode": "yolo"}}, "options.permission_mode"),
    (CLAUDE | {"options": {"max_turns": 0}}, "options.max_turns"),
    (CLAUDE | {"options": {"max_budget_usd": 0}}, "options.max_budget_usd"),
    (
        CLAUDE | {"options": {"append_system_prompt": "é" * (MAX_SCRIPT // 2 + 1)}},
        "options.append_system_prompt",
    ),
    ({"project": "demo", "kind": "python"}, "kind"),
    ({"project": "demo"}, "kind"),
]


@pytest.mark.parametrize(("body", "field"), WRONG, ids=lambda v: repr(v)[:60])
def test_what_is_wrong_is_named(body: dict[str, Any], field: str) -> None:
    """422 on the field that is wrong, whatever else is right."""
    assert field in [f for f, _ in refused(COMMAND, body)]


@pytest.mark.parametrize(
    "name",
    [
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "BASH_ENV",
        "ENV",
        "GIT_SSH_COMMAND",
        "GIT_CONFIG_COUNT",
        "NODE_OPTIONS",
        "PATH",
        "IFS",
        "HTTP_PROXY",
        "https_proxy",
        "PYTHONSTARTUP",
        "PERL5OPT",
        "RUBYOPT",
        "RDEV_COMMAND_ID",
        "CLAUDE_CONFIG_DIR",
        "PS4",
        "BASH_FUNC_x",
        "UID",
        "PPID",
        "RANDOM",
        "_",
        "DYLD_INSERT_LIBRARIES",
        "PROMPT_COMMAND",
        "",
        "1A",
        "A-B",
        "A=B",
        "A\n",
        "é",
        "x" * 129,
        "A B",
    ],
)
def test_variables_that_run_other_code_cannot_be_set(name: str) -> None:
    """Security.md row 47, and names that are none."""
    assert refused(COMMAND, SHELL | {"env": {name: "x"}}) == [("env", "value_error")]


def test_the_longest_script_that_one_argument_can_be() -> None:
    """131,071 bytes; one more is E2BIG."""
    assert len(new(SHELL | {"script": "x" * MAX_SCRIPT}).spec["script"]) == 131_071


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (SHELL | {"script": "a\0b"}, "NUL"),
        (SHELL | {"env": {"A": "a\0b"}}, "NUL"),
        (SHELL | {"script": "\ud800"}, "surrogate"),
        (CLAUDE | {"prompt": "\udfff"}, "surrogate"),
    ],
)
def test_text_that_cannot_be_stored_is_a_bad_request(body: dict[str, Any], path: str) -> None:
    """400 before any meaning."""
    with pytest.raises(InvalidRequest, match=path):
        new(body)


@pytest.mark.parametrize(
    ("model", "good", "bad"),
    [
        (CancelBody, {"mode": "force"}, {"mode": "shutdown"}),
        (PriorityBody, {"priority": "low"}, {"priority": 3}),
        (PriorityBody, {"priority": "low"}, {}),
        (RetryBody, {"env": {"A": "1"}}, {"env": {"PATH": "1"}}),
    ],
)
def test_small_bodies(model: Any, good: dict[str, Any], bad: dict[str, Any]) -> None:
    """What they take, and what not."""
    adapter: TypeAdapter[Any] = TypeAdapter(model)
    strict_json.model(adapter, json.dumps(good).encode())
    assert refused(adapter, bad)


@pytest.mark.parametrize(
    ("model", "good", "bad"),
    [
        (ListCommands, {"state": ["queued", "lost"], "limit": "200"}, {"limit": "201"}),
        (ListCommands, {"label": ["a=b", "c="]}, {"label": ["nothing"]}),
        (ListCommands, {"kind": ["git"]}, {"state": ["claimed"]}),
        (ListCommands, {}, {"limit": "0"}),
        (OutputQuery, {"offset": "5", "limit": "1", "stream": "stderr"}, {"offset": "-1"}),
        (OutputQuery, {}, {"limit": "0"}),
        (PageQuery, {"limit": "1"}, {"unknown": "1"}),
    ],
)
def test_queries(model: Any, good: dict[str, Any], bad: dict[str, Any]) -> None:
    """Text that is parsed; unknown ones are refused."""
    strict_json.query(model, good)
    with pytest.raises(InvalidField):
        strict_json.query(model, bad)


KEYS: TypeAdapter[Any] = TypeAdapter(CreateKey)
KEY = {"name": "ci", "scopes": ["commands:read"]}


def test_the_least_that_makes_a_key() -> None:
    """All projects, every address, 100 a minute, for ever."""
    key = strict_json.model(KEYS, json.dumps(KEY).encode()).key()
    assert (key.projects, key.allowed_ips, key.expires_at) == (None, (), None)
    assert (key.rate_limit.limit, key.rate_limit.window_s, key.max_concurrent) == (100, 60, None)


def test_addresses_are_kept_in_one_form() -> None:
    """A single address is a network of one."""
    body = KEY | {"allowed_ips": ["10.0.0.1", "2001:DB8::/32"]}
    key = strict_json.model(KEYS, json.dumps(body).encode()).key()
    assert key.allowed_ips == ("10.0.0.1/32", "2001:db8::/32")


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"scopes": []}, "scopes", "too_short"),
        ({"scopes": ["commands:read", "x"]}, "scopes[1]", "unknown_scope"),
        ({"scopes": "commands:read"}, "scopes", "list_type"),
        ({"name": ""}, "name", "string_too_short"),
        ({"name": "x" * 101}, "name", "string_too_long"),
        ({"name": "a\nb"}, "name", "value_error"),
        ({"name": "zero\u200bwidth"}, "name", "value_error"),
        ({"projects": ["Demo"]}, "projects[0]", "value_error"),
        ({"allowed_ips": ["10.0.0.1/8"]}, "allowed_ips[0]", "value_error"),
        ({"allowed_ips": ["localhost"]}, "allowed_ips[0]", "value_error"),
        ({"expires_at": "2030-01-01T00:00:00"}, "expires_at", "timezone_aware"),
        ({"rate_limit": {"limit": 0, "window_s": 60}}, "rate_limit.limit", "greater_than_equal"),
        ({"rate_limit": {"limit": 1}}, "rate_limit.window_s", "missing"),
        ({"max_concurrent": 0}, "max_concurrent", "greater_than_equal"),
        ({"key": "rdev_x"}, "key", "unknown_field"),
        ({"unlimited": True}, "unlimited", "unknown_field"),
    ],
    ids=lambda v: repr(v)[:50],
)
def test_what_is_wrong_with_a_key_is_named(change: dict[str, Any], field: str, code: str) -> None:
    """422 with path and code."""
    assert (field, code) in refused(KEYS, KEY | change)


def test_a_moment_is_one_moment_in_any_zone() -> None:
    """Offsets are understood, also those that PostgreSQL does not: it gets UTC."""
    there = datetime.now(UTC) + timedelta(days=1)
    for hours in (0, 14, -23):
        local = there.astimezone(timezone(timedelta(hours=hours)))
        made = new(SHELL | {"run_at": local.isoformat()})
        assert (made.run_at, made.run_at.tzinfo) == (there, UTC)
