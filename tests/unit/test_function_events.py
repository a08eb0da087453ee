"""functions/events, triggers and on_command_requested over HTTP."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import urlencode

import pytest

from common.adapters.memory.commands import MemoryCommandStore
from common.adapters.memory.keys import MemoryKeyStore
from common.adapters.memory.projects import MemoryProjectStore
from common.domain.errors import Unavailable
from common.domain.project import FoundProject
from common.domain.triggers import COMMAND_REQUESTED
from common.entrypoints.intake import BATCH
from common.entrypoints.models import resources
from common.services.receive_github import signature_of
from tests.unit.conftest import Api, Client
from tests.unit.desk import Desk

STRUCTURED = "application/cloudevents+json"
EVENT: dict[str, Any] = {
    "specversion": "1.0", "id": "1", "source": "/ci", "type": "t", "data": {"a": "x"},
}  # fmt: skip
BODY: dict[str, Any] = {
    "name": "t",
    "filter": {"prefix": {"source": "/"}},
    "command": {"project": "demo", "kind": "shell", "script": "echo {{ data.a }}"},
}


@pytest.fixture
def house(api: Api) -> Api:
    """Real stores in memory under all of it, so that a key made over HTTP owns a trigger."""
    state = api.audit_state
    MemoryProjectStore(state).sync([FoundProject("demo", "/w"), FoundProject("other", "/o")], "t")
    for name, store in (
        ("commands", MemoryCommandStore(state)), ("keys", MemoryKeyStore(state)),
        ("projects", MemoryProjectStore(state)),
    ):  # fmt: skip
        api.app.__dict__[name] = store
    return api


def key(house: Api, *scopes: str, **fields: Any) -> str:
    """A key in the store that the functions ask."""
    desk = Desk.__new__(Desk)
    desk.state, desk.keys = house.audit_state, MemoryKeyStore(house.audit_state)
    return desk.key_text(*scopes, **fields)


def client(house: Api, function: str, *scopes: str, **fields: Any) -> Client:
    return house.client(function, key(house, *scopes, **fields))


ALL = ("triggers:write", "triggers:broker", "events:write", "commands:write")


def made(house: Api, who: Client | None = None, **changes: Any) -> Any:
    who = who or client(house, "triggers", *ALL)
    answer = who.post("/v1/triggers", content=json.dumps(BODY | changes).encode())
    assert answer.status_code == 201, answer.text
    return answer.json()


def send(who: Client, body: Any = EVENT, kind: str = STRUCTURED, **headers: str) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return who.post("/v1/events", content=content, headers={"content-type": kind} | headers)


# -- triggers --------------------------------------------------------------------------------------


def test_a_trigger_from_creation_to_deletion(house: Api) -> None:
    """Its secret once, its ETag always, and every answer as openapi.json says."""
    who = client(house, "triggers", *ALL)
    created = who.post(
        "/v1/triggers", content=json.dumps(BODY).encode(), headers={"idempotency-key": "k"}
    )
    assert (created.status_code, created.headers["etag"]) == (201, '"1"')
    resources.CreatedTrigger.model_validate_json(created.content)
    again = who.post(
        "/v1/triggers", content=json.dumps(BODY).encode(), headers={"idempotency-key": "k"}
    )
    assert again.headers["idempotency-replayed"] == "true"
    assert (again.json()["id"], again.json()["secret"]) == (created.json()["id"], None)
    path = created.headers["location"]
    shown = who.get(path)
    assert shown.headers["etag"] == '"1"'
    assert shown.json() == {k: v for k, v in created.json().items() if k != "secret"}
    page = who.get("/v1/triggers?limit=1").json()
    resources.TriggerPage.model_validate_json(json.dumps(page))
    assert [t["id"] for t in page["items"]] == [created.json()["id"]]
    change: dict[str, Any] = {"content": b'{"enabled":false}', "headers": {"if-match": '"1"'}}
    changed = who.request("PATCH", path, **change)
    assert (changed.status_code, changed.json()["enabled"]) == (200, False)
    assert changed.headers["etag"] == '"2"'
    assert who.request("PATCH", path, **change).json()["code"] == "precondition_failed"
    late = who.request("PATCH", path, content=b'{"enabled":true}')
    assert (late.status_code, late.json()["code"]) == (428, "precondition_required")
    rotated = who.post(f"{path}/rotate", content=b'{"grace_s":1}')
    assert (rotated.status_code, rotated.headers["etag"]) == (201, '"3"')
    assert rotated.json()["secret"] not in (None, created.json()["secret"])
    assert who.request("DELETE", path, headers={"if-match": '"3"'}).status_code == 204
    assert who.get(path).status_code == 404


def test_a_trigger_that_cannot_be_is_trigger_invalid(house: Api) -> None:
    """422, with the field."""
    who = client(house, "triggers", *ALL)
    wrong = BODY | {"command": BODY["command"] | {"script": "echo '{{ data.a }}'"}}
    answer = who.post("/v1/triggers", content=json.dumps(wrong).encode())
    assert (answer.status_code, answer.json()["code"]) == (422, "trigger_invalid")
    assert answer.json()["errors"][0]["field"] == "command.script"


def test_a_dry_run_shows_the_command(house: Api) -> None:
    """Values of its environment are null there too."""
    who = client(house, "triggers", *ALL)
    command = BODY["command"] | {"env": {"A": "{{ data.a }}"}}
    path = made(house, who, command=command)["links"]["self"]
    event = {"source": "/ci", "type": "t", "data": {"a": 1}}
    answer = who.post(f"{path}/test", content=json.dumps({"event": event}).encode())
    resources.DryRun.model_validate_json(answer.content)
    spec = answer.json()["command"]["spec"]
    assert (spec["script"], spec["env"]) == ("echo '1'", {"A": None})
    none = who.post(f"{path}/test", content=json.dumps({"event": EVENT | {"data": {}}}).encode())
    assert (none.json()["command"], none.json()["reason"]) == (None, "value_missing")
    bad = who.post(f"{path}/test", content=b'{"event":{"type":"t"}}')
    assert bad.status_code == 400


def test_matches_are_pages(house: Api) -> None:
    """Newest first; a cursor that is none of ours is a field's fault."""
    who = client(house, "triggers", *ALL)
    path = made(house, who)["links"]["matches"]
    sender = client(house, "events", "events:write")
    for number in range(3):
        send(sender, EVENT | {"id": str(number)})
    first = who.get(f"{path}?limit=2")
    resources.MatchPage.model_validate_json(first.content)
    rest = who.get(f"{path}?limit=2&cursor={first.json()['next_cursor']}").json()
    ids = [m["event_id"] for m in first.json()["items"] + rest["items"]]
    assert (ids, rest["next_cursor"]) == (["2", "1", "0"], None)
    assert who.get(f"{path}?outcome=refused").json()["items"] == []
    for cursor in ("x", "mat_" + "f" * 32):
        assert who.get(f"{path}?cursor={cursor}").status_code == 422


# -- events ----------------------------------------------------------------------------------------


def test_events_are_taken_in_every_mode(house: Api) -> None:
    """202 with what became of each."""
    made(house)
    sender = client(house, "events", "events:write")
    one = send(sender)
    resources.ReceivedEvents.model_validate_json(one.content)
    assert (one.status_code, one.json()["events"][0]["outcome"]) == (202, "submitted")
    headers = {f"ce-{n}": str(v) for n, v in EVENT.items() if n != "data"}
    binary = send(sender, {"a": "x"}, "application/json", **headers)
    assert binary.json()["events"][0]["outcome"] == "duplicate"
    batch = send(sender, [EVENT, EVENT | {"id": "2"}], BATCH)
    assert [e["outcome"] for e in batch.json()["events"]] == ["duplicate", "submitted"]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", STRUCTURED, 400),
        (b"{}", "application/json", 400),
        (b"x", "text/plain", 400),
        (EVENT | {"data": "x" * 70_000}, STRUCTURED, 413),
        ([EVENT, {}], BATCH, 400),
    ],
)
def test_what_cannot_be_read_is_refused_to_its_sender(
    house: Api, body: Any, kind: str, status: int
) -> None:
    """And is no dead letter: the sender knows."""
    made(house)
    answer = send(client(house, "events", "events:write"), body, kind)
    assert answer.status_code == status, answer.text
    assert (house.audit_state.commands, house.audit_state.dead_letters) == ({}, {})


PUSH = {"ref": "refs/heads/main", "a": "x", "repository": {"html_url": "https://github.com/a/b"}}


@pytest.mark.parametrize("form", [False, True])
def test_a_delivery_of_github_needs_no_key(house: Api, form: bool) -> None:
    """Its signature is enough, in either content type of GitHub's."""
    trigger = made(house, filter={"exact": {"type": "com.github.push"}})
    payload = json.dumps(PUSH)
    body = urlencode({"payload": payload}).encode() if form else payload.encode()
    kind = "application/x-www-form-urlencoded" if form else "application/json"
    headers = {
        "content-type": kind, "x-github-event": "push", "x-github-delivery": "1",
        "x-hub-signature-256": signature_of(trigger["secret"].encode(), body),
    }  # fmt: skip
    github, path = house.client("events"), trigger["links"]["github"]
    answer = github.post(path, content=body, headers=headers)
    assert (answer.status_code, answer.json()["events"][0]["outcome"]) == (202, "submitted")
    ping = github.post(path, content=body, headers=headers | {"x-github-event": "ping"})
    assert (ping.status_code, ping.json()) == (202, {"events": []})
    forged = github.post(path, content=body + b" ", headers=headers)
    assert (forged.status_code, forged.json()["code"]) == (401, "unauthorized")


@pytest.mark.parametrize("body", [b"x=y", b"payload=a&payload=b", b"\xff", b"payload=no"])
def test_a_signed_form_without_a_payload_is_a_bad_request(house: Api, body: bytes) -> None:
    """After the signature."""
    trigger = made(house)
    headers = {
        "content-type": "application/x-www-form-urlencoded", "x-github-event": "push",
        "x-github-delivery": "1",
        "x-hub-signature-256": signature_of(trigger["secret"].encode(), body),
    }  # fmt: skip
    answer = house.client("events").post(trigger["links"]["github"], content=body, headers=headers)
    assert answer.status_code == 400


# -- dead letters ----------------------------------------------------------------------------------


def test_dead_letters_are_listed_shown_and_replayed(house: Api) -> None:
    """What was lost for want of a trigger runs once there is one."""
    who = client(house, "events", *ALL)
    send(who)
    page = who.get("/v1/events/dead-letters?reason=no_trigger&replayed=false")
    resources.DeadLetterPage.model_validate_json(page.content)
    [letter] = page.json()["items"]
    path = f"/v1/events/dead-letters/{letter['id']}"
    shown = who.get(path)
    resources.WholeDeadLetter.model_validate_json(shown.content)
    assert (shown.json()["data"], shown.json()["data_base64"]) == ({"a": "x"}, None)
    made(house)
    done = who.post(f"{path}/replay")
    resources.ReplayedDeadLetter.model_validate_json(done.content)
    assert (done.status_code, done.json()["outcome"]) == (200, "submitted")
    assert len(house.audit_state.commands) == 1
    assert who.get("/v1/events/dead-letters?replayed=false").json()["items"] == []
    other = client(house, "events", *ALL, projects=frozenset({"demo"}))
    assert other.get("/v1/events/dead-letters").json()["items"] == []
    assert other.get("/v1/events/dead-letters?project=other").json()["items"] == []


def test_a_letter_that_is_no_json_is_base64(house: Api) -> None:
    """Whatever it holds."""
    who = client(house, "events", *ALL)
    headers = {f"ce-{n}": str(v) for n, v in EVENT.items() if n != "data"}
    send(who, b"\xff", "application/octet-stream", **headers)
    [letter] = who.get("/v1/events/dead-letters").json()["items"]
    shown = who.get(f"/v1/events/dead-letters/{letter['id']}").json()
    assert (shown["data"], shown["data_base64"]) == (None, base64.b64encode(b"\xff").decode())


# -- the broker ------------------------------------------------------------------------------------

REQUEST: dict[str, Any] = EVENT | {
    "type": COMMAND_REQUESTED, "data": {"project": "demo", "kind": "shell", "script": "true"},
}  # fmt: skip
FROM_DATA = {"from": "data", "projects": ["demo"], "kinds": ["shell"]}


def ring(house: Api, body: Any = REQUEST, **headers: str) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = {"content-type": STRUCTURED} | headers
    return house.client("on_command_requested").post("/", content=content, headers=kind)


def letters(house: Api) -> list[tuple[str, str]]:
    return [(x.channel, x.reason) for x in house.audit_state.dead_letters.values()]


def test_a_request_from_the_broker_runs_where_a_trigger_allows_it(house: Api) -> None:
    """An empty 202, however often it is delivered."""
    made(house, command=FROM_DATA, filter=None, accept=["broker"])
    for _ in range(3):
        answer = ring(house)
        assert (answer.status_code, answer.content) == (202, b"")
    assert len(house.audit_state.commands) == 1
    assert letters(house) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data": {"project": "other", "kind": "shell", "script": "true"}}, "no_trigger"),
        ({"data": {"project": "demo", "kind": "git", "args": ["status"]}}, "no_trigger"),
        ({"data": {"project": "demo", "kind": "shell"}}, "refused"),
        ({"data": None}, "no_trigger"),
        ({"time": "2020-01-01T00:00:00Z"}, "stale"),
        ({"source": "/rdev"}, "loop"),
        ({"data": "x" * 70_000}, "too_large"),
        ({"data": "x" * 2_000_000}, "unreadable"),
        ({"id": ""}, "unreadable"),
        ({"Type": "x"}, "unreadable"),
        (b"not json", "unreadable"),
        (b"", "unreadable"),
        (b"[" * 100_000, "unreadable"),
    ],
)
def test_poison_is_recorded_and_never_retried(house: Api, change: Any, reason: str) -> None:
    """202 after the row: the broker would send it again for ever otherwise."""
    made(house, command=FROM_DATA, filter=None, accept=["broker"])
    body = change if isinstance(change, bytes) else REQUEST | change
    for _ in range(2):
        answer = ring(house, body)
        assert (answer.status_code, answer.content) == (202, b"")
    assert letters(house) == [("broker", reason)]
    assert house.audit_state.commands == {}
    assert ring(house, REQUEST | {"id": "2"}).status_code == 202
    assert len(house.audit_state.commands) == 1


def test_trouble_of_ours_is_the_brokers_next_try(house: Api) -> None:
    """503, nothing recorded."""

    class Away:
        def __getattr__(self, name: str) -> Any:
            raise Unavailable("the database does not answer")

    house.app.__dict__["triggers"] = Away()
    assert ring(house).status_code == 503
    assert letters(house) == []
