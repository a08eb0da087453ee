"""functions/: projects, keys, health, stream and the three that hear events."""

from __future__ import annotations

import asyncio
import importlib
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from common.domain import identifiers
from common.domain.errors import InvalidRequest, NotFound, RdevError, Unavailable
from common.domain.scopes import ALL
from common.entrypoints import hold
from common.ports.dead_letters import DeadLetter
from common.ports.status import Dependency, Numbers
from common.services.tailing import Ended
from tests.unit.conftest import Api

EVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/rdev", "ce-type": "t"}


# -- projects ------------------------------------------------------------------------------------


def test_projects_are_listed_and_shown(api: Api) -> None:
    """A key's own only."""
    client = api.client("projects", api.keys.make("projects:read", projects={"demo"}))
    page = client.get("/v1/projects").json()
    assert ([p["name"] for p in page["items"]], page["next_cursor"]) == (["demo"], None)
    assert client.get("/v1/projects/demo").json()["max_concurrent_commands"] == 5
    assert client.get("/v1/projects/other").status_code == 404


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("shell", b'{"script":"make test"}'),
        ("git", b'{"args":["status"]}'),
        ("claude", b'{"prompt":"Fix it"}'),
    ],
)
def test_a_short_form_is_the_same_as_creating(api: Api, kind: str, body: bytes) -> None:
    """Kind and project come from the path."""
    client = api.client("projects", api.keys.make(f"commands:write:{kind}"))
    answer = client.post(f"/v1/projects/demo/{kind}", content=body)
    assert answer.status_code == 202
    [(stored, _, _)] = api.commands.submitted
    assert (stored.project, stored.kind) == ("demo", kind)


# -- keys ----------------------------------------------------------------------------------------


def test_a_key_is_created_shown_listed_and_revoked(api: Api) -> None:
    """Its text is in the first answer only."""
    client = api.client("keys", api.keys.make(*ALL))
    body = b'{"name":"ci","scopes":["commands:read"]}'
    made = client.post("/v1/keys", content=body)
    assert made.status_code == 201
    resource = made.json()
    assert resource["key"].startswith(resource["prefix"] + "_")
    path = made.headers["location"]
    assert path == f"/v1/keys/{resource['id']}"
    assert client.get(path).json() == {k: v for k, v in resource.items() if k != "key"}
    assert resource["id"] in [k["id"] for k in client.get("/v1/keys").json()["items"]]
    assert client.request("DELETE", path).status_code == 204
    assert [identifiers.show("key", i) for i in api.keys.revoked] == [resource["id"]]
    assert client.get("/v1/keys/nonsense").status_code == 404


def test_a_key_is_changed_and_rotated(api: Api) -> None:
    """Only what the body names changes; a rotation answers a new secret and where it is."""
    client = api.client("keys", api.keys.make(*ALL))
    made = client.post("/v1/keys", content=b'{"name":"ci","scopes":["commands:read"]}').json()
    path = f"/v1/keys/{made['id']}"
    changed = client.request("PATCH", path, content=b'{"projects":null,"max_concurrent":2}')
    assert changed.status_code == 200
    [(key_id, changes)] = api.keys.updated
    assert (identifiers.show("key", key_id), changes) == (
        made["id"],
        {"projects": None, "max_concurrent": 2},
    )
    rotated = client.post(f"{path}/rotate")
    assert rotated.status_code == 201
    assert rotated.json()["key"].startswith(rotated.json()["prefix"] + "_")
    assert rotated.headers["location"] == f"/v1/keys/{rotated.json()['id']}"
    api.keys.rotation = "replaced"
    assert client.post(f"{path}/rotate").status_code == 409
    assert client.post(f"{path}/rotate", content=b'{"grace_s":-1}').status_code == 422
    assert client.request("PATCH", path, content=b'{"key_hash":"x"}').status_code == 422


def test_a_replayed_key_has_no_secret(api: Api) -> None:
    """And says that it is one."""
    text = api.keys.make(*ALL)
    [api.keys.replays] = api.keys.rows.values()
    body = b'{"name":"ci","scopes":["commands:read"]}'
    answer = api.client("keys", text).post(
        "/v1/keys", content=body, headers={"idempotency-key": "k"}
    )
    assert (answer.status_code, answer.json()["key"]) == (201, None)
    assert answer.headers["idempotency-replayed"] == "true"


def test_a_key_gives_no_more_than_it_has(api: Api) -> None:
    """403."""
    client = api.client("keys", api.keys.make("keys:admin"))
    body = b'{"name":"ci","scopes":["commands:read"]}'
    assert client.post("/v1/keys", content=body).json()["code"] == "forbidden"


def test_keys_are_pages(api: Api) -> None:
    """Cursor and limit."""
    client = api.client("keys", [api.keys.make(*ALL) for _ in range(4)][-1])
    first = client.get("/v1/keys?limit=3").json()
    rest = client.get(f"/v1/keys?limit=3&cursor={first['next_cursor']}").json()
    assert (len(first["items"]), len(rest["items"]), rest["next_cursor"]) == (3, 1, None)


# -- health --------------------------------------------------------------------------------------


class FakeStatus:
    code_version = 1

    def __init__(self) -> None:
        self.away = False
        self.found: list[Dependency] = []

    def ping(self) -> None:
        if self.away:
            raise Unavailable("the database does not answer")

    def schema_version(self) -> tuple[int, int]:
        return 1, 1

    def dependencies(self) -> list[Dependency]:
        return self.found

    def numbers(self) -> Numbers:
        self.ping()
        return Numbers({("shell", "queued"): 2}, {"normal": 2}, 3.0, 0, 0.0)


@pytest.fixture
def status(api: Api) -> FakeStatus:
    made = api.app.__dict__["status"] = FakeStatus()
    return made


def test_liveness_asks_nobody(api: Api) -> None:
    """The API answers, so it lives."""
    assert api.client("health").get("/health").json() == {"status": "alive"}


def test_readiness_says_what_works(api: Api, status: FakeStatus) -> None:
    """And 503 with the name of what does not."""
    client = api.client("health")
    assert client.get("/ready").json() == {
        "status": "ready",
        "checks": {"database": {"status": "ok"}},
    }
    status.away = True
    assert "database" in client.get("/ready").json()["detail"]
    assert client.get("/ready").json()["checks"]["database"]["status"] == "unhealthy"
    assert int(client.get("/ready").headers["retry-after"]) > 0


def test_readiness_counts_kubernetes_where_workspaces_are_pods(make_api: Any) -> None:
    """An open breaker is 503 there; on a laptop nobody asks."""
    api: Api = make_api(RDEV_WORKSPACES="kubernetes")
    status = api.app.__dict__["status"] = FakeStatus()
    status.found = [Dependency("kubernetes", "open", 5, datetime.now(UTC), "refused")]
    answer = api.client("health").get("/ready")
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert "kubernetes: refused" in answer.json()["detail"]


def test_metrics_are_text(api: Api, status: FakeStatus) -> None:
    """For Prometheus; 503 when the database cannot be asked."""
    answer = api.client("health").get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'rdev_commands{kind="shell",state="queued"} 2' in answer.text
    status.away = True
    assert api.client("health").get("/metrics").status_code == 503


# -- stream --------------------------------------------------------------------------------------

COMMAND = "/v1/streams/commands/cmd_" + "0" * 31 + "1"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Ended(), 204),
        (NotFound("x"), 404),
        (InvalidRequest("beyond the last event"), 400),
        (Unavailable("x"), 503),
    ],
)
@pytest.mark.parametrize("query", ["", "?after=7"])
def test_what_cannot_be_streamed_is_told(
    api: Api, error: Exception, status: int, query: str
) -> None:
    """204 after the end, and the usual problems."""
    api.tailer.error = error
    client = api.client("stream", api.keys.make("commands:read"))
    assert client.get(COMMAND + query).status_code == status
    assert api.tailer.asked == [(UUID(int=1), "7" if query else None)]


def test_the_header_wins_over_the_query(api: Api) -> None:
    """And either names the last event that was seen."""
    api.tailer.error = Ended()
    client = api.client("stream", api.keys.make("commands:read"))
    client.get(f"{COMMAND}?after=7", headers={"last-event-id": "9"})
    assert api.tailer.asked == [(UUID(int=1), "9")]


def test_a_project_is_streamed_with_or_without_output(api: Api) -> None:
    """Its name, the cursor, and whether output is wanted."""
    api.tailer.error = Unavailable("x")
    client = api.client("stream", api.keys.make("commands:read"))
    assert client.get("/v1/streams/projects/demo?output=1&after=c").status_code == 503
    assert api.tailer.asked == [("demo", "c", True)]
    assert client.get("/v1/streams/projects/demo?output=maybe").status_code == 422


def test_an_event_source_is_told_when_to_come_back(api: Api) -> None:
    """A draining instance answers 200 with retry, not 503."""
    api.app.draining.set()
    client = api.client("stream", api.keys.make("commands:read"))
    answer = client.get(COMMAND, headers={"accept": "text/event-stream"})
    assert (answer.status_code, answer.headers["content-type"]) == (
        200,
        "text/event-stream; charset=utf-8",
    )
    assert answer.text.startswith("retry: ")


# -- events --------------------------------------------------------------------------------------


class FakeRunner:
    def __init__(self) -> None:
        self.rung: list[str | None] = []
        self.cancelled: list[Any] = []
        self.stopped = False
        self.started = False
        self.on_change: Any = None
        self.following: list[UUID] = []
        self.error: RdevError | None = None

    def ring(self, project: str | None) -> int:
        if self.error:
            raise self.error
        self.rung.append(project)
        return 0

    def start(self) -> None:
        self.started = True

    def stop(self) -> list[str]:
        self.stopped = True
        return ["a", "b"]

    def cancel_all(self, cancel: Any) -> bool:
        self.cancelled.append(cancel)
        return True


@pytest.fixture
def runner(api: Api) -> FakeRunner:
    made = api.app.__dict__["runner"] = FakeRunner()
    return made


@pytest.mark.parametrize(
    ("body", "project"),
    [
        (b'{"project":"demo"}', "demo"),
        (b'{"project":5}', None),
        (b"[]", None),
        (b"", None),
        (b"not json", None),
    ],
)
def test_a_doorbell_rings_the_runner(
    api: Api, runner: FakeRunner, body: bytes, project: str | None
) -> None:
    """Whatever it says, it only makes the runner look."""
    answer = api.client("on_command_queued").post("/", headers=EVENT, content=body)
    assert (answer.status_code, answer.content) == (202, b"")
    assert runner.rung == [project]


def test_a_doorbell_while_the_database_is_away_is_delivered_again(
    api: Api, runner: FakeRunner
) -> None:
    """503, so the broker repeats it."""
    runner.error = Unavailable("away")
    assert api.client("on_command_queued").post("/", headers=EVENT).status_code == 503


def declared(name: str) -> Any:
    return importlib.import_module(f"functions.{name}.main")


@pytest.mark.parametrize("name", ["on_command_queued", "on_webhook_due"])
@pytest.mark.parametrize(("stopping", "status"), [(False, 204), (True, 503)])
def test_a_presence_request_is_held_until_its_time_or_the_drain(
    api: Api, monkeypatch: pytest.MonkeyPatch, name: str, stopping: bool, status: int
) -> None:
    """204 after its time; 503 when draining, so that the presence pauses."""
    monkeypatch.setattr(hold, "HELD_S", 30 if stopping else 0.001)
    if stopping:
        api.app.draining.set()
    assert api.client(name).post("/follow").status_code == status


@pytest.mark.parametrize("cancelling", [False, True])
def test_a_stopping_runner_hands_over_or_cancels(
    api: Api, runner: FakeRunner, cancelling: bool
) -> None:
    """SIGTERM rings the next instance; the laptop's Ctrl-C ends what runs, and rings nobody."""
    api.app.cancel_on_exit = cancelling
    declared("on_command_queued").stop(api.app)
    assert runner.stopped
    assert runner.cancelled == ([api.app.cancel_here] if cancelling else [])
    assert api.bell.rung == ([] if cancelling else ["a", "b"])


def test_a_starting_runner_keeps_its_presence(api: Api, runner: FakeRunner) -> None:
    """It is told of every change, and follows from the start."""
    told: list[str] = []

    class FakePresence:
        def changed(self) -> None:
            told.append("changed")

        async def run(self) -> None:
            told.append("run")

    api.app.__dict__["presence"] = FakePresence()

    async def scenario() -> None:
        await declared("on_command_queued").start(api.app)
        runner.on_change()
        await asyncio.sleep(0)

    asyncio.run(scenario())
    assert runner.started
    assert sorted(told) == ["changed", "run"]


def test_a_tick_repairs(api: Api) -> None:
    """Whatever the event says; jobs that failed are the log's business."""
    ticks: list[int] = []
    api.app.__dict__["repair"] = lambda: ticks.append(1)
    assert api.client("on_tick").post("/", headers=EVENT).status_code == 202
    assert ticks == [1]


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (EVENT, b'{"a":1}'),
        (EVENT, b"\xff not json"),
        ({}, b"no event at all"),
        (EVENT | {"ce-long": "x" * 5000}, b""),
    ],
)
def test_a_dead_letter_is_buried_whatever_it_is(
    api: Api, headers: dict[str, str], body: bytes
) -> None:
    """2xx after the row: behind it there is nobody."""
    rows: list[DeadLetter] = []
    api.app.__dict__["bury"] = rows.append
    assert api.client("on_dead_letter").post("/", headers=headers, content=body).status_code == 202
    assert rows[0].data == body


# -- reference -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind"), [("/openapi.json", "application/json"), ("/docs", "text/html; charset=utf-8")]
)
def test_the_reference_is_open_and_carried_along(api: Api, path: str, kind: str) -> None:
    """No key, no network."""
    answer = api.client("reference").get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    assert answer.content
