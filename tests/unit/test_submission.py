"""common/entrypoints/submission.py: what creating a command answers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from starlette.datastructures import Headers

from common.bootstrap import App
from common.domain import identifiers
from common.domain.command import State
from common.domain.errors import NotFound, Unavailable
from common.entrypoints.call import Call
from common.entrypoints.submission import wanted_wait
from common.ports.commands import Origin
from common.settings import Settings
from tests.unit.conftest import Api, Client

BODY = b'{"project":"demo","kind":"shell","script":"x"}'


def create(api: Api, **headers: str) -> tuple[int, dict[str, object], dict[str, str]]:
    named = {k.replace("_", "-"): v for k, v in headers.items()}
    client: Client = api.client("commands", api.keys.make("commands:write"))
    answer = client.post("/v1/commands", content=BODY, headers=named)
    return answer.status_code, answer.json(), dict(answer.headers)


def test_a_command_is_accepted_with_its_place(api: Api) -> None:
    """202, Location and links; stored once."""
    status, body, headers = create(api)
    [(stored, _, _)] = api.commands.submitted
    assert (status, body["id"]) == (202, identifiers.show("cmd", stored.id))
    assert headers["location"] == f"/v1/commands/{body['id']}"
    assert "idempotency-replayed" not in headers


def test_a_replay_says_so(api: Api) -> None:
    """The same answer, marked."""
    api.commands.replayed = True
    _, _, headers = create(api, idempotency_key="k")
    assert headers["idempotency-replayed"] == "true"
    assert api.commands.submitted[0][2].key == "k"  # type: ignore[union-attr]


def test_waiting_answers_with_the_end(api: Api) -> None:
    """200 with the result when it comes in time."""
    create(api)
    [stored] = api.commands.rows.values()
    api.tailer.end = replace(stored, state=State.SUCCEEDED)
    status, body, headers = create(api, prefer="wait=10")
    assert (status, body["state"]) == (200, "succeeded")
    assert headers["preference-applied"] == "wait=10"
    assert api.tailer.asked[0][1] == 10


def test_waiting_in_vain_answers_202(api: Api) -> None:
    """It goes on without us."""
    assert create(api, prefer="wait=10")[0] == 202


@pytest.mark.parametrize("error", [Unavailable("away"), NotFound("not yet")])
def test_trouble_while_waiting_is_no_refusal(api: Api, error: Exception) -> None:
    """The command is accepted: an error would make the caller send it again."""
    api.tailer.error = error
    status, _, headers = create(api, prefer="wait=10")
    assert status == 202
    assert headers["location"]


def test_at_most_so_many_wait(api: Api) -> None:
    """Beyond that 202 at once."""
    api.app._waiting = api.app.settings.waiters
    assert create(api, prefer="wait=10")[0] == 202
    assert api.tailer.asked == []


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ([], None),
        (["wait=5"], 5),
        (["wait = 5"], 5),
        (["respond-async, wait=7"], 7),
        (["respond-async", "wait=7"], 7),
        (["wait=99999"], 45),
        (["wait=0"], None),
        (["wait=-1"], None),
        (["wait=abc"], None),
        (["wait"], None),
        (["await=5"], None),
        (["wait=5x"], None),
        (["wait=" + "9" * 5000], None),
    ],
)
def test_how_long_to_wait(lines: list[str], seconds: int | None) -> None:
    """RFC 7240, at most 45 s; what is no number is no wish."""
    headers = Headers(raw=[(b"prefer", line.encode()) for line in lines])
    call = Call(App(Settings()), Origin("r"), {}, headers)
    assert wanted_wait(call) == seconds
