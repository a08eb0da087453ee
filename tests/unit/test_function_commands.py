"""functions/commands/main.py: what its routes do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from common.domain import identifiers
from common.domain.command import Command, Priority, State
from common.domain.errors import ConcurrencyLimited, Conflict, Forbidden, InvalidField, Unavailable
from common.ports.commands import Cancelled, Filter, Segment
from tests.unit import fakes
from tests.unit.conftest import Api, Client


def add(api: Api, state: State = State.QUEUED, **more: Any) -> tuple[Command, str]:
    made = replace(fakes.command(state=state), **more)
    api.commands.rows[made.id] = made
    return made, f"/v1/commands/{identifiers.show('cmd', made.id)}"


@pytest.fixture
def client(api: Api) -> Client:
    return api.client("commands", api.keys.make("commands:write", "commands:read"))


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Conflict("x", code="session_busy"), 409, "session_busy"),
        (Conflict("x", code="idempotency_in_flight"), 409, "idempotency_in_flight"),
        (ConcurrencyLimited("x"), 429, "concurrency_limited"),
        (Forbidden("x"), 403, "forbidden"),
        (InvalidField([], detail="x", code="idempotency_mismatch"), 422, "idempotency_mismatch"),
        (Unavailable("disk full"), 503, "not_ready"),
    ],
)
def test_what_the_store_refuses_is_told(
    api: Api, client: Client, error: Exception, status: int, code: str
) -> None:
    """Each with its status and code."""
    api.commands.refusals = [error]
    body = b'{"project":"demo","kind":"shell","script":"x"}'
    answer = client.post("/v1/commands", content=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("run_at", "code"),
    [
        ("2001-01-01T00:00:00Z", "in_the_past"),
        ("0001-01-01T00:00:00+23:59", "in_the_past"),
        ("9999-12-31T23:59:59-23:59", "too_far"),
        ("2090-01-01T00:00:00", "timezone_aware"),
    ],
)
def test_a_time_that_cannot_be_is_422(api: Api, client: Client, run_at: str, code: str) -> None:
    """The calendar's ends included; nothing is left behind."""
    body = f'{{"project":"demo","kind":"shell","script":"x","run_at":"{run_at}"}}'.encode()
    answer = client.post("/v1/commands", content=body)
    assert answer.status_code == 422
    assert [(e["field"], e["code"]) for e in answer.json()["errors"]] == [("run_at", code)]
    assert api.commands.submitted == []


def listed(api: Api, query: str, projects: set[str] | None = None) -> Filter:
    seen: list[Filter] = []
    api.commands.list = lambda wanted: seen.append(wanted) or []  # type: ignore[method-assign]
    client = api.client("commands", api.keys.make("commands:read", projects=projects))
    assert client.get(f"/v1/commands?{query}").status_code == 200
    return seen[0]


def test_filters_reach_the_store(api: Api) -> None:
    """`queued` finds claimed ones too, which are shown as queued; labels split at the first =."""
    wanted = listed(api, "project=demo&state=queued&state=lost&kind=git&label=a%3Db%3Dc&limit=9")
    assert wanted == Filter(
        frozenset({"demo"}), ["queued", "lost", State.CLAIMED], ["git"], (("a", "b=c"),), None, 10
    )


@pytest.mark.parametrize(
    ("query", "projects", "expected"),
    [
        ("", None, None),
        ("", {"demo"}, {"demo"}),
        ("project=other", {"demo"}, set()),
        ("project=other&project=demo", {"demo"}, {"demo"}),
        ("project=other", None, {"other"}),
    ],
)
def test_a_filter_never_widens_what_a_key_sees(
    api: Api, query: str, projects: set[str] | None, expected: set[str] | None
) -> None:
    """Foreign projects are left out, not refused."""
    assert listed(api, query, projects).projects == expected


def test_lists_are_pages(api: Api, client: Client) -> None:
    """The cursor leads to the next."""
    for _ in range(3):
        add(api)
    page = client.get("/v1/commands?limit=2").json()
    assert len(page["items"]) == 2
    assert page["next_cursor"] == page["items"][1]["id"]
    assert client.get(f"/v1/commands?cursor={page['next_cursor']}").status_code == 200
    assert client.get("/v1/commands?cursor=x").status_code == 422


def test_a_command_is_shown(api: Api, client: Client) -> None:
    """As it is now."""
    command, path = add(api, State.RUNNING)
    assert client.get(path).json()["state"] == "running"
    ended = replace(command, state=State.FAILED)
    api.tailer.end = ended
    assert client.get(path, headers={"prefer": "wait=1"}).json()["state"] == "failed"
    api.tailer.end = None
    assert client.get(path, headers={"prefer": "wait=1"}).json()["state"] == "running"


@pytest.mark.parametrize(
    "id_", ["x", "cmd_" + "0" * 32, "cmd_" + "f" * 32, "%00", "key_" + "0" * 32, "%ff"]
)
def test_what_is_no_command_is_not_found(client: Client, id_: str) -> None:
    """Whatever stands there."""
    assert client.get(f"/v1/commands/{id_}").status_code == 404


def test_a_priority_changes_while_it_waits(api: Api, client: Client) -> None:
    """409 once it does not."""
    command, path = add(api)
    answer = client.request("PATCH", path, content=b'{"priority":"urgent"}')
    assert (answer.status_code, answer.json()["priority"]) == (200, "urgent")
    assert api.commands.rows[command.id].priority is Priority.URGENT
    api.commands.waits = False
    answer = client.request("PATCH", path, content=b'{"priority":"low"}')
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("body", "mode"), [(b"", "graceful"), (b"{}", "graceful"), (b'{"mode":"force"}', "force")]
)
def test_cancelling_is_202_and_again_202(api: Api, client: Client, body: bytes, mode: str) -> None:
    """No body means graceful."""
    command, path = add(api, State.RUNNING)
    for _ in range(2):
        answer = client.post(f"{path}/cancel", content=body)
        assert (answer.status_code, answer.headers["location"]) == (202, path)
    assert api.commands.cancelled == [(command.id, mode, "user")] * 2


@pytest.mark.parametrize("race", [False, True])
def test_cancelling_what_has_ended_is_200(api: Api, client: Client, race: bool) -> None:
    """With the command; also when it ends at that moment."""
    _, path = add(api, State.RUNNING if race else State.SUCCEEDED)
    api.commands.cancel_answer = Cancelled(ended=True, lease_dead=False, event=None)
    answer = client.post(f"{path}/cancel")
    assert (answer.status_code, answer.json()["id"]) == (200, path.rsplit("/", 1)[1])


def test_a_retry_is_a_new_command(api: Api, client: Client) -> None:
    """202 with its own id; 409 while the first runs."""
    first, path = add(api, State.FAILED)
    answer = client.post(f"{path}/retry", headers={"idempotency-key": "k"})
    assert answer.status_code == 202
    assert answer.headers["location"] != path
    [(again, _, idempotency)] = api.commands.submitted
    assert again.retry_of == first.id
    assert idempotency is not None
    _, running = add(api, State.RUNNING)
    assert client.post(f"{running}/retry").status_code == 409


def test_output_is_plain_text_from_an_offset(api: Api, client: Client) -> None:
    """With its length, and how much there is."""
    _, path = add(api, State.SUCCEEDED)
    api.commands.pieces = [Segment(1, "merged", 0, b"hello "), Segment(2, "merged", 6, b"w\xff")]
    answer = client.get(f"{path}/output?offset=2&limit=5")
    assert answer.content == b"llo w"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert (answer.headers["content-length"], answer.headers["rdev-output-size"]) == ("5", "8")
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("offset=9", 416, "range_not_satisfiable"),
        ("offset=-1", 422, "invalid_field"),
        ("offset=x", 422, "invalid_field"),
        ("stream=stderr", 422, "invalid_field"),
        ("stream=other", 422, "invalid_field"),
    ],
)
def test_output_that_is_not_there(
    api: Api, client: Client, query: str, status: int, code: str
) -> None:
    """Beyond the end is 416, another stream's name 422."""
    _, path = add(api, State.SUCCEEDED)
    api.commands.pieces = [Segment(1, "merged", 0, b"12345678")]
    answer = client.get(f"{path}/output?{query}")
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_output_without_a_database_is_503(
    api: Api, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first bytes are read before the status is sent."""
    _, path = add(api, State.SUCCEEDED)
    api.commands.pieces = [Segment(1, "merged", 0, b"12345678")]

    def away(*_: object) -> list[Segment]:
        raise Unavailable("the database cannot be reached")

    monkeypatch.setattr(api.commands, "output", away)
    answer = client.get(f"{path}/output")
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert int(answer.headers["retry-after"]) > 0


def test_expired_output_is_404_expired(api: Api, client: Client) -> None:
    """It was there once."""
    _, path = add(api, State.SUCCEEDED)
    api.commands.expired = True
    answer = client.get(f"{path}/output")
    assert (answer.status_code, answer.json()["code"]) == (404, "expired")


def test_a_reader_of_a_command_nobody_follows_rings(api: Api, client: Client) -> None:
    """In the background."""
    _, path = add(api, State.RUNNING, lease_dead=True)
    assert client.get(path).status_code == 200
    assert api.bell.wait(1) == ["demo"]
    assert UUID(int=0) not in api.commands.rows
