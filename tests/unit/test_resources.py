"""common/domain/resources.py: what callers see, field for field."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from common.domain.command import Command, Kind, Priority, Reason, State
from common.domain.errors import InvalidField, NotFound
from common.domain.events import dumps
from common.domain.keys import ApiKey, RateLimit
from common.domain.outcome import conclude, lost, never_ran
from common.domain.project import Phase, Project
from common.domain.resources import command_resource, key_resource, project_resource
from common.domain.workspace import ExitRecord, StreamTotal
from common.entrypoints import examples
from common.entrypoints.models import resources as wire
from common.entrypoints.pages import page
from common.entrypoints.problem import body_of

ID = UUID("0190f3c2-a4b8-7c0e-9a5d-1f2e3c4b5a69")
KEY = UUID("0190f3c2-a4b8-7c0e-9a5d-1f2e3c4b5a60")
AT = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = {"script": "echo hello", "streams": "merged", "cwd": "."}
COMMAND = Command(
    ID, "demo", KEY, Kind.SHELL, SPEC, Priority.NORMAL, State.QUEUED, AT, queue_position=1
)
API_KEY = ApiKey(
    KEY,
    "ci",
    "rdev_a1B2c3D4",
    frozenset({"commands:write", "commands:read"}),
    frozenset({"demo"}),
    ("10.0.0.0/8",),
    RateLimit(100, 60),
    None,
    AT,
)


def test_a_command_is_the_documented_example() -> None:
    """The example in openapi.json is a real answer."""
    assert command_resource(COMMAND) == examples.COMMAND


def test_a_claimed_command_is_shown_queued_at_place_0() -> None:
    """Nothing has run yet."""
    shown = command_resource(replace(COMMAND, state=State.CLAIMED, queue_position=None))
    assert (shown["state"], shown["queue_position"]) == ("queued", 0)


def test_environment_values_are_never_shown() -> None:
    """Names map to null."""
    shown = command_resource(replace(COMMAND, env_names=("TOKEN",)))
    assert shown["spec"]["env"] == {"TOKEN": None}


def test_times_and_the_retried_command_are_shown_when_there_are_any() -> None:
    """Started, finished, due, and what it repeats."""
    shown = command_resource(
        replace(COMMAND, started_at=AT, finished_at=AT, run_at=AT, retry_of=ID, session="s")
    )
    assert {shown[name] for name in ("started_at", "finished_at", "run_at")} == {
        "2026-01-01T00:00:00.000Z"
    }
    assert shown["retry_of"] == shown["id"]
    assert shown["session_id"] == "s"


def test_a_project_is_the_documented_example() -> None:
    """The example in openapi.json is a real answer."""
    assert project_resource(Project("demo", "/workspace", Phase.READY)) == examples.PROJECT


def test_a_paused_project_says_so() -> None:
    """Kinds it allows and that it is paused."""
    shown = project_resource(
        Project("demo", "/w", Phase.PENDING, paused_at=AT, allowed_commands=("git",), issues=("x",))
    )
    assert (shown["paused"], shown["allowed_commands"], shown["issues"]) == (True, ["git"], ["x"])


def test_a_key_is_the_documented_example() -> None:
    """The example in openapi.json is a real answer, and holds no secret."""
    assert key_resource(API_KEY) == examples.KEY


def test_a_key_without_limits_shows_null() -> None:
    """No limit, all projects, never expiring: null."""
    shown = key_resource(replace(API_KEY, projects=None, rate_limit=None, revoked_at=AT))
    assert (shown["projects"], shown["rate_limit"], shown["expires_at"]) == (None, None, None)
    assert shown["revoked_at"] == "2026-01-01T00:00:00.000Z"


def ended(state: State, outcome: dict[str, Any]) -> Command:
    return replace(COMMAND, state=state, outcome=outcome, started_at=AT, finished_at=AT)


RESULT = {"session_id": "s", "num_turns": 2, "total_cost_usd": 0.1, "usage": {}, "result": "x"}
TOTAL = StreamTotal(1, "00" * 32)
EXIT = ExitRecord("exited", 0, None, TOTAL, TOTAL)
ANSWERS: list[tuple[type[wire.Resource], dict[str, Any]]] = [
    (wire.Command, command_resource(COMMAND)),
    (
        wire.Command,
        command_resource(ended(State.CANCELLED, never_ran(Reason.USER))),
    ),
    (
        wire.Command,
        command_resource(
            ended(
                State.SUCCEEDED,
                conclude(
                    Kind.CLAUDE,
                    EXIT,
                    RESULT | {"subtype": "success", "is_error": False},
                    separate=True,
                ).outcome,
            )
        ),
    ),
    (
        wire.Command,
        command_resource(
            ended(State.LOST, lost(Reason.SUPERVISOR, {"stdout": 1, "stderr": 1}, {}).outcome)
        ),
    ),
    (
        wire.Command,
        command_resource(
            ended(
                State.FAILED,
                conclude(
                    Kind.SHELL,
                    replace(EXIT, reason="start_failed", code=None, detail="cwd_missing"),
                    None,
                    separate=False,
                ).outcome,
            )
        ),
    ),
    (wire.Project, project_resource(Project("demo", "/workspace", Phase.READY))),
    (wire.Key, key_resource(API_KEY)),
    (wire.CreatedKey, key_resource(API_KEY) | {"key": None}),
    (wire.CommandPage, page([COMMAND, COMMAND], 1, "cmd", command_resource)),
    (wire.KeyPage, page([], 1, "key", key_resource)),
    (wire.Problem, body_of(InvalidField.one("a", "b", "c"), "req_1")),
    (wire.Problem, body_of(NotFound("x"), "req_1")),
]


@pytest.mark.parametrize(("model", "answer"), ANSWERS, ids=lambda v: getattr(v, "__name__", ""))
def test_real_answers_have_the_shapes_of_the_description(
    model: type[wire.Resource], answer: dict[str, Any]
) -> None:
    """What openapi.json promises: every field, no other, of these types."""
    model.model_validate_json(dumps(answer))
