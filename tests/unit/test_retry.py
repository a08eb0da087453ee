"""common/services/retry.py: the same again, as a new command."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from common.domain import identifiers
from common.domain.command import Command, Kind, NewCommand, Priority, State
from common.domain.errors import Conflict, InvalidField, NotFound
from common.domain.keys import Caller
from common.domain.launch import session_id
from common.ports.commands import Idempotency, Origin, Submitted
from common.services.read_commands import ReadCommands
from common.services.retry import Retry
from tests.unit import fakes
from tests.unit.fakes import CALLER, KEY, FakeBell, FakeCommands

ORIGIN = Origin("req_1")


def retry(
    first: Command,
    env: dict[str, str] | None = None,
    caller: Caller = CALLER,
    mcp_secrets: dict[str, dict[str, str]] | None = None,
) -> NewCommand:
    seen: list[NewCommand] = []

    def submit(new: NewCommand, who: Caller, origin: Origin, idem: Idempotency | None) -> Submitted:
        seen.append(new)
        assert (who, origin) == (caller, ORIGIN)
        return Submitted(first, replayed=False, doorbell=None)

    reader = ReadCommands(FakeCommands(first), FakeBell())
    text = identifiers.show(identifiers.COMMAND, first.id)
    again = Retry(reader, submit)  # type: ignore[arg-type]
    again(text, env or {}, mcp_secrets or {}, caller, ORIGIN, None)
    return seen[0]


def ended(kind: Kind = Kind.SHELL, **more: Any) -> Command:
    return replace(fakes.command(kind, state=State.FAILED), **more)


def test_a_retry_is_the_same_command_with_its_own_id() -> None:
    """Everything that was asked for is asked for again, and it remembers which it repeats."""
    first = ended(labels={"a": "b"}, priority=Priority.HIGH)
    again = retry(first)
    assert again.id != first.id
    assert again.retry_of == first.id
    assert (again.project, again.kind, again.spec) == (first.project, first.kind, first.spec)
    assert (again.labels, again.priority, again.timeouts) == (
        first.labels,
        first.priority,
        first.timeouts,
    )
    assert again.run_at is None


@pytest.mark.parametrize("state", [State.QUEUED, State.CLAIMED, State.RUNNING, State.CANCELLING])
def test_what_has_not_ended_is_not_repeated(state: State) -> None:
    """One at a time."""
    with pytest.raises(Conflict):
        retry(fakes.command(state=state))


def test_secret_values_are_sent_again() -> None:
    """They were erased at the end; a retry without them says which are missing."""
    first = ended(env_names=("A", "B"))
    with pytest.raises(InvalidField, match="B") as caught:
        retry(first, {"A": "1"})
    assert (caught.value.errors[0].field, caught.value.errors[0].code) == ("env", "missing")
    assert retry(first, {"A": "1", "B": "2", "C": "3"}).env == {"A": "1", "B": "2", "C": "3"}


def test_secrets_of_mcp_servers_are_sent_again() -> None:
    """Only the values that the first one had; without them the retry says which are missing."""
    servers = {"hub": {"type": "stdio", "command": "x", "args": [], "env": {"TOKEN": None}}}
    first = ended(Kind.CLAUDE, spec={"prompt": "x", "options": {"mcp_servers": servers}})
    with pytest.raises(InvalidField, match=r"hub\.TOKEN") as caught:
        retry(first)
    assert caught.value.errors[0].field == "mcp_servers"
    assert retry(first, mcp_secrets={"hub": {"TOKEN": "s"}}).mcp_secrets == {"hub": {"TOKEN": "s"}}


def test_a_new_session_is_new_again() -> None:
    """claude refuses a session id that was used, so the retry has its own."""
    first = ended(Kind.CLAUDE)
    first = replace(first, session=session_id(first.id))
    again = retry(first)
    assert again.session == session_id(again.id)


def test_a_resumed_session_is_resumed_again() -> None:
    """And held while it runs, as by the first."""
    spec = {"prompt": "x", "session": {"mode": "resume", "id": "other"}}
    assert retry(ended(Kind.CLAUDE, spec=spec, session="other")).session == "other"


def test_a_fork_is_forked_again() -> None:
    """Into a session of its own, also when the first was made before forks had one."""
    spec = {"prompt": "x", "session": {"mode": "fork", "id": "other"}}
    again = retry(ended(Kind.CLAUDE, spec=spec))
    assert again.session == session_id(again.id)


def test_a_foreign_command_is_not_found() -> None:
    """As if it were not there."""
    with pytest.raises(NotFound):
        retry(ended(), caller=Caller(KEY, "x", frozenset({"commands:write"}), frozenset()))
