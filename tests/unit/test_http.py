"""common/entrypoints/http.py: the way of every request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from pydantic import Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.domain.errors import RateLimited, Unavailable
from common.domain.keys import RateLimit
from common.entrypoints import http
from common.entrypoints.call import Call, Later, Reply
from common.entrypoints.cloud_events import IncomingEvent
from common.entrypoints.function import Function
from common.entrypoints.http import build
from common.entrypoints.models.base import Body, Query
from tests.unit.conftest import Api, Client


class Wanted(Query):
    limit: int = 5
    tag: list[str] = Field(default_factory=list)


class Thing(Body):
    name: Annotated[str, Field(max_length=3)] = "x"


class Answer(Body):
    said: str


class World:
    """One function with a route of each sort."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.calls: list[Call] = []
        self.events: list[IncomingEvent] = []
        self.closed: list[str] = []
        self.function = function = Function("a_test", "for tests")
        self.key = api.keys.make("commands:read", "commands:write")

        @function.get("/open", summary="")
        def open_(call: Call) -> Reply:
            self.calls.append(call)
            return Reply({"caller": call.caller_or_none is not None})

        @function.get("/caller", summary="")
        def caller(call: Call) -> Reply:
            return Reply({"name": call.caller.name})

        @function.get("/things/{id}", summary="", scope="commands:read", query=Wanted)
        def get(call: Call) -> Reply:
            self.calls.append(call)
            return Reply({"id": call.path["id"], "query": call.query.model_dump()})

        @function.post(
            "/things",
            summary="",
            scope="commands:write",
            body=Thing,
            idempotent=True,
            query=Wanted,
        )
        def post(call: Call, body: Thing) -> Reply:
            self.calls.append(call)
            return Reply(Answer(said=body.name), 201, {"location": "/x"})

        @function.post(
            "/optional", summary="", scope="commands:write", body=Thing, body_optional=True
        )
        def optional(call: Call, body: Thing) -> Reply:
            return Reply({"name": body.name})

        @function.delete("/things/{id}", summary="", scope="commands:write")
        def delete(_call: Call) -> Reply:
            return Reply(status=204)

        @function.get("/later", summary="", scope="commands:read")
        def later(_call: Call) -> Later:
            async def soon() -> Reply:
                await asyncio.sleep(0)
                return Reply({"waited": True})

            return soon

        @function.get("/bytes", summary="")
        def bytes_(_call: Call) -> Reply:
            def pieces() -> Iterator[bytes]:
                yield b"one"
                yield b"two"

            return Reply(pieces(), headers={"content-length": "6"}, media_type="text/plain")

        @function.get("/nothing", summary="")
        def nothing(_call: Call) -> Reply:
            return Reply()

        @function.stream("/stream", summary="", scope="commands:read")
        async def stream(call: Call) -> ASGIApp:
            self.calls.append(call)
            if "x-error" in call.headers:
                raise Unavailable("away", retry_after=1)

            async def app(scope: Scope, receive: Receive, send: Send) -> None:
                start = {"type": "http.response.start", "status": 200, "headers": []}
                await send(start)
                await send({"type": "http.response.body", "body": b"data"})

            return app

        @function.event("/async", summary="")
        async def async_event(app: object, event: IncomingEvent) -> None:
            self.events.append(event)

        @function.event("/event", summary="")
        def event(app: object, event: IncomingEvent) -> None:
            if event.type == "limited":
                raise RateLimited("x", limit=1, window_s=1, retry_after=1)
            self.events.append(event)

        self.app = build(function, api.app)

    def client(self, key: str | None = "mine", peer: str = "203.0.113.7") -> Client:
        return Client(self.app, self.key if key == "mine" else key, (peer, 1))


@pytest.fixture
def world(api: Api) -> World:
    return World(api)


CE = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "t"}


def test_an_open_route_needs_no_key_and_has_no_caller(world: World) -> None:
    """Asking for the caller there is a mistake of ours."""
    assert world.client(None).get("/open").json() == {"caller": False}
    assert world.client(None).get("/caller").status_code == 500


def test_a_request_reaches_its_handler(world: World) -> None:
    """Path, query, key and origin are there."""
    answer = world.client().get("/things/7?limit=3&tag=a&tag=b", headers={"x-request-id": "r-1"})
    assert answer.json() == {"id": "7", "query": {"limit": 3, "tag": ["a", "b"]}}
    [call] = world.calls
    assert (call.origin.request_id, call.origin.client_ip, call.origin.peer_ip) == (
        "r-1",
        "203.0.113.7",
        "203.0.113.7",
    )
    assert call.caller.name == "test"
    assert answer.headers["x-request-id"] == "r-1"
    assert answer.headers["cache-control"] == "no-store"


def test_what_a_handler_answers_is_the_answer(world: World) -> None:
    """A model, its status and headers; nothing; pieces; bytes."""
    made = world.client().post("/things", content=b'{"name":"abc"}')
    assert (made.status_code, made.json()) == (201, {"said": "abc"})
    assert made.headers["location"] == "/x"
    gone = world.client().request("DELETE", "/things/1")
    assert (gone.status_code, gone.content) == (204, b"")
    assert world.client(None).get("/bytes").text == "onetwo"
    assert world.client(None).get("/nothing").content == b""
    assert world.client().get("/later").json() == {"waited": True}


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "é", "<script>", "a\tb"])
def test_a_request_id_that_is_no_plain_token_is_replaced(world: World, given: str) -> None:
    """It goes into logs and audit rows."""
    answer = world.client(None).get("/open", headers={"x-request-id": given.encode()})
    assert answer.headers["x-request-id"].startswith("req_")


def test_head_is_get_without_a_stream(world: World) -> None:
    """Where there is a GET; a stream cannot be asked for its head."""
    assert world.client(None).request("HEAD", "/open").status_code == 200
    refused = world.client().request("HEAD", "/stream")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET")
    refused = world.client().request("PATCH", "/things/1")
    assert refused.headers["allow"] == "DELETE, GET, HEAD"
    assert world.calls[0].app is world.api.app


# -- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("authorization", "Basic KEY")],
        [("authorization", "KEY")],
        [("authorization", "")],
        [("authorization", "Bearer KEY"), ("authorization", "Bearer KEY")],
        [("authorization", "Bearer KEY"), ("x-api-key", "KEY")],
        [("x-api-key", "KEY"), ("x-api-key", "KEY")],
        [("authorization", "Bearer KEY KEY")],
        [("authorization", "Bearer KEY, Bearer KEY")],
        [("cookie", "key=KEY")],
    ],
    ids=repr,
)
def test_anything_but_exactly_one_key_is_none(world: World, headers: list[tuple[str, str]]) -> None:
    """401."""
    real = [(name, value.replace("KEY", world.key)) for name, value in headers]
    assert world.client(None).request("GET", "/things/1", headers=real).status_code == 401


@pytest.mark.parametrize("name", ["authorization", "x-api-key"])
def test_both_headers_are_fine(world: World, name: str) -> None:
    """`Bearer` in any case, or X-API-Key as it is."""
    values = [world.key] if name == "x-api-key" else [f"Bearer {world.key}", f"bearer  {world.key}"]
    for value in values:
        answer = world.client(None).request("GET", "/things/1", headers=[(name, value)])
        assert answer.status_code == 200


@pytest.mark.parametrize("where", ["?key=KEY", "?tag=KEY", "?limit=1&KEY", "?tag=%72dev_a1B2c3D4_"])
def test_a_key_in_the_url_is_refused_even_beside_a_good_one(world: World, where: str) -> None:
    """It would be in every log on the way."""
    assert world.client().get("/things/1" + where.replace("KEY", world.key)).status_code == 401


def test_a_word_that_only_begins_like_a_key_is_no_key(world: World) -> None:
    """A label may be called rdev_env."""
    assert world.client().get("/things/1?tag=rdev_env").status_code == 200


def test_rate_headers_tell_what_is_left(world: World) -> None:
    """For keys with a limit, on success too."""
    key = world.api.keys.make("commands:read", rate_limit=RateLimit(100, 60))
    world.api.keys.remaining = 12
    answer = world.client(key).get("/things/1")
    assert answer.headers["ratelimit"] == '"default";r=12;t=31'
    assert "ratelimit" not in world.client(None).get("/open").headers


# -- queries -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ("?limit=x", 422, "limit"),
        ("?limit=1&limit=2", 422, "limit"),
        ("?other=1", 422, "other"),
        ("?tag=%00", 400, None),
    ],
)
def test_a_wrong_query_is_told(world: World, query: str, status: int, field: str | None) -> None:
    """As a body would be."""
    answer = world.client().get("/things/1" + query)
    assert answer.status_code == status
    assert field is None or answer.json()["errors"][0]["field"] == field


# -- bodies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"  \n", b"{}"])
def test_a_body_that_is_optional_may_be_empty(world: World, body: bytes) -> None:
    """Nothing means the defaults, whatever the media type."""
    answer = world.client().post("/optional", content=body)
    assert answer.json() == {"name": "x"}


@pytest.mark.parametrize(
    "kind", ["application/json", "application/JSON; charset=utf-8", "application/x+json"]
)
def test_json_by_any_of_its_names(world: World, kind: str) -> None:
    """Parameters and suffixes do not matter."""
    answer = world.client().post("/things", content=b"{}", headers={"content-type": kind})
    assert answer.status_code == 201


def scope_of(world: World, **headers: str) -> Scope:
    named = {"authorization": f"Bearer {world.key}"} | headers
    return {
        "type": "http",
        "method": "POST",
        "path": "/things",
        "query_string": b"",
        "headers": [(k.encode(), v.encode("latin-1")) for k, v in named.items()],
        "client": ("127.0.0.1", 1),
    }


def exchange(world: World, scope: Scope, messages: list[Message]) -> dict[str, Any]:
    """The problem that is answered to these messages."""
    sent: list[Message] = []
    waiting = iter(messages)

    async def receive() -> Message:
        message = next(waiting, None)
        if message is None:
            await asyncio.Event().wait()
        assert message is not None
        return message

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(world.app(scope, receive, send))  # type: ignore[arg-type]
    body: dict[str, Any] = json.loads(sent[1]["body"])
    return body


@pytest.mark.parametrize("length", ["²", "-1", "1.5", "abc", "9" * 5000, "", "0x10", "1 2"])
def test_a_length_that_is_no_number_is_a_bad_request(world: World, length: str) -> None:
    """Never a crash."""
    answer = exchange(world, scope_of(world, **{"content-length": length}), [])
    assert answer["status"] == 400


@pytest.mark.row(27)
def test_a_declared_length_over_the_limit_is_refused_unread(world: World) -> None:
    """Not one byte of the body is waited for."""
    answer = exchange(world, scope_of(world, **{"content-length": str(1 << 40)}), [])
    assert answer["status"] == 413


def test_a_client_that_goes_away_is_no_error_of_ours(world: World) -> None:
    """Its body never became whole."""
    part = {"type": "http.request", "body": b"{", "more_body": True}
    assert exchange(world, scope_of(world), [part, {"type": "http.disconnect"}])["status"] == 400
    assert world.calls == []


@pytest.mark.row(33)
def test_a_body_that_does_not_arrive_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its deadline."""
    monkeypatch.setattr(http, "BODY_DEADLINE_S", 0.01)
    part = {"type": "http.request", "body": b"{", "more_body": True}
    assert exchange(world, scope_of(world), [part])["status"] == 400


def test_a_body_comes_in_pieces(world: World) -> None:
    """And is whole for the handler."""
    assert world.client().post("/things", content=[b'{"na', b'me":', b'"ab"}']).status_code == 201
    assert world.calls[0].raw_body == b'{"name":"ab"}'


# -- idempotency ---------------------------------------------------------------------------------


def idempotency(world: World, header: str, body: bytes = b"{}", query: str = "") -> Any:
    world.client().post(f"/things{query}", content=body, headers={"idempotency-key": header})
    return world.calls[-1].idempotency


def test_an_idempotency_key_is_the_same_bare_and_quoted(world: World) -> None:
    """And belongs to its route."""
    bare, quoted = idempotency(world, "abc"), idempotency(world, '"abc"')
    assert bare == quoted
    assert (bare.route, bare.key) == ("POST /things", "abc")


def test_what_was_asked_is_part_of_it(world: World) -> None:
    """Another body or query under the same key is another request."""
    hashes = {
        idempotency(world, "k").request_hash,
        idempotency(world, "k", b'{"name":"y"}').request_hash,
        idempotency(world, "k", query="?limit=7").request_hash,
    }
    assert len(hashes) == 3


def test_without_the_header_there_is_none(world: World) -> None:
    """Nor on a request that gives it twice."""
    world.client().post("/things", content=b"{}")
    assert world.calls[-1].idempotency is None
    key = ("authorization", f"Bearer {world.key}")
    twice = [key, ("idempotency-key", "a"), ("idempotency-key", "b")]
    answer = world.client(None).request("POST", "/things", content=b"{}", headers=twice)
    assert answer.status_code == 400


# -- events and streams --------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/event", "/async"])
def test_an_event_is_answered_with_an_empty_202(world: World, path: str) -> None:
    """A body would count as a failed delivery."""
    answer = world.client(None).post(path, headers=CE, content=b'{"project":"demo"}')
    assert (answer.status_code, answer.content) == (202, b"")
    assert world.events[0].data == {"project": "demo"}


def test_poison_is_400_so_that_nobody_tries_it_again(world: World) -> None:
    """And a trouble of ours is what it is, so that somebody does."""
    assert world.client(None).post("/event", content=b"{}").status_code == 400
    answer = world.client(None).post("/event", headers=CE | {"ce-type": "limited"})
    assert answer.status_code == 429


def test_a_dead_letter_sink_takes_poison_too(world: World) -> None:
    """Behind it there is nobody."""
    world.function.dead_letter_sink = True
    world.app = build(world.function, world.api.app)
    assert world.client(None).post("/event", content=b"?").status_code == 202
    assert world.events[0].body == b"?"


def test_a_stream_is_its_handlers_app(world: World) -> None:
    """After authorising; opening counts against the window, resuming does not."""
    assert world.client().get("/stream").text == "data"
    assert world.client().get("/stream", headers={"last-event-id": "5"}).text == "data"
    assert world.api.keys.counted == [True, False]
    assert world.client(None).get("/stream").status_code == 401


@pytest.mark.parametrize(("accept", "status"), [("text/event-stream", 200), ("*/*", 503)])
def test_a_refusal_an_event_source_would_not_survive_is_softened(
    world: World, accept: str, status: int
) -> None:
    """200 with `retry:` for who reads events, a problem for others."""
    answer = world.client().get("/stream", headers={"accept": accept, "x-error": "1"})
    assert answer.status_code == status
    assert ("retry:" in answer.text) == (status == 200)
