"""Everything that leaves, read by those who know nothing of us: other people's libraries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from cloudevents.http import from_http
from openapi_schema_validator import OAS31Validator
from standardwebhooks import Webhook

from common.adapters.fernet import FernetSealer
from common.adapters.http.broker import HttpPublisher
from common.adapters.http.courier import HttpCourier
from common.adapters.postgres.connection import Connection
from common.adapters.postgres.pool import Database
from common.adapters.postgres.target import Target
from common.domain.command import Reason, State
from common.domain.identifiers import new_id
from common.domain.keys import Caller
from common.domain.outcome import EMPTY_SHA256, never_ran
from common.domain.webhooks import EVENT_TYPES, Answer, Endpoint, Payload, new_secret
from common.entrypoints.models.announcements import EVENTS, PREFIX, type_of
from common.ports.webhooks import Made
from common.services.sender import Sender
from infra.generation.events import schemas
from tests.contract.conftest import CANCELLED, ORIGIN, SOURCE, World, postgres_world
from tests.harness import node
from tests.harness.receiver import Came, receiver
from tests.harness.running import until
from tests.unit import fakes

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SEALER = FernetSealer(["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="])
CANARY = "canary-of-a-secret"
RIGHTS = frozenset({"webhooks:write", "keys:admin", "commands:write"})
AGENT: dict[str, Any] = {
    "session_id": "s",
    "num_turns": 1,
    "cost_usd": 0.1,
    "usage": {"input_tokens": 3},
    "permission_denials": [{"tool_input": CANARY}],
    "result": CANARY,
    "structured_output": {"a": CANARY},
}
OUTPUT = {"bytes": 0, "sha256": EMPTY_SHA256, "truncated": False, "stderr": None}


@dataclass
class Left:
    """What left: requests to a broker, requests to a webhook, and the webhook's secret."""

    events: list[Came]
    webhooks: list[Came]
    secret: str


@pytest.fixture(scope="module")
def left(postgres_url: str) -> Iterator[Left]:
    """Every event there is happened, and went both ways."""
    server = Connection(
        Target.parse(postgres_url.replace("/rdev?", "/postgres?")), application_name="test"
    )
    server.script("CREATE DATABASE outgoing TEMPLATE rdev")
    db = Database(postgres_url.replace("/rdev?", "/outgoing?"))
    world = postgres_world(db)
    secret = new_secret()
    hears = everything_happens(world, secret)
    with receiver() as broker, receiver() as hook:
        world.pass_time(10)
        publisher = HttpPublisher(broker.url, "https://rdev.orchard9.ai")
        for event in world.outbox.take_left(1000):
            publisher.publish(event)
        publisher.close()
        send_all(world, hears, hook.url)
        yield Left(broker.came, hook.came, secret)
    world.close()
    db.close()
    server.script("DROP DATABASE outgoing WITH (FORCE)")
    server.close()


def everything_happens(world: World, secret: str) -> Endpoint:
    """All types, once at least; answers the endpoint that hears them."""
    _, caller = world.key(scopes=RIGHTS)
    hears, gone = (made(world, caller, secret) for _ in range(2))
    world.project()
    ends = {
        State.SUCCEEDED: outcome("completed_with_denials", AGENT),
        State.FAILED: outcome("exit_nonzero"),
        State.TIMED_OUT: outcome("run"),
        State.LOST: outcome("supervisor"),
    }
    for state, result in ends.items():
        spec = {"script": CANARY}
        claim = world.running(caller, spec=spec, sealed_env=CANARY.encode(), traceparent=TRACE)
        world.queue.finish(claim.command.id, claim.token, state, result)
    waiting = world.submit(caller).command.id
    ended = never_ran(Reason.USER)
    world.commands.cancel(waiting, "graceful", "user", ended, ORIGIN, caller)
    world.projects.sync([], SOURCE)
    _, third = world.key()
    world.keys.revoke(third.key_id, CANCELLED, third, ORIGIN)
    world.deliveries.fan_out(1000)
    [claimed] = world.deliveries.claim(gone.id, 1)
    world.deliveries.record(gone.id, [Made(claimed, Answer(410, 1), 0.0, None, 0.0)])
    world.deliveries.fan_out(1000)
    return hears


def made(world: World, caller: Caller, secret: str) -> Endpoint:
    now = datetime.now(UTC)
    wanted = Endpoint(new_id(), caller.key_id, "https://e.com/", Payload.FULL, now)
    sealed = SEALER.seal(secret.encode())
    return world.webhooks.create(wanted, None, sealed, caller, ORIGIN, None).endpoint


def outcome(reason: str, agent: dict[str, Any] | None = None) -> dict[str, Any]:
    result = {"reason": reason, "exit_code": 0, "signal": None, "orphans_killed": 0}
    return result | {"output": OUTPUT, "agent": agent}


def send_all(world: World, endpoint: Endpoint, url: str) -> None:
    caller = Caller(endpoint.key_id, "test", RIGHTS, None)
    world.webhooks.update(endpoint.id, {"url": url}, None, caller, ORIGIN)
    courier = HttpCourier([ip_network("127.0.0.0/8")])
    relay, bell = fakes.FakeRelay(), fakes.FakeSenderBell()
    sender = Sender(world.deliveries, courier, SEALER, relay, bell)  # type: ignore[arg-type]
    sender.ring()
    until("all is sent", lambda: not world.deliveries.due(90.0))
    sender.stop()
    courier.close()


def test_every_type_is_declared_and_happens(left: Left) -> None:
    """The closed list of webhooks, the schemas and what is really published are the same."""
    assert set(EVENTS) == set(EVENT_TYPES)
    assert {c.headers["ce-type"] for c in left.events} == {type_of(name) for name in EVENTS}
    assert {c.json["type"] for c in left.webhooks} == set(EVENTS)


def test_the_python_sdk_reads_every_event(left: Left) -> None:
    """Binary mode, our attributes, and data as the schema behind `dataschema` says."""
    known = schemas()
    for came in left.events:
        event = from_http(came.headers, came.body)
        attributes = event.get_attributes()
        assert attributes["specversion"] == "1.0"
        assert attributes["source"] == "/rdev"
        assert attributes["type"].startswith(PREFIX)
        assert attributes["id"].startswith("evt_")
        assert attributes["datacontenttype"] == "application/json"
        where = f"https://rdev.orchard9.ai/schemas/{attributes['type']}.json"
        schema = known[attributes["type"]]
        assert attributes["dataschema"] == schema["$id"] == where
        # The keys that made the webhooks were made before them.
        assert attributes.get("webhooks") == "wanted" or "key.created" in attributes["type"]
        faults = [error.message for error in OAS31Validator(schema).iter_errors(event.data)]
        assert faults == []
    traced = [c for c in left.events if "ce-traceparent" in c.headers]
    assert {c.headers["ce-traceparent"] for c in traced} == {TRACE}
    assert {c.headers["ce-type"] for c in traced} >= {type_of("command.queued")}


def test_an_event_and_its_webhook_have_one_id(left: Left) -> None:
    """So that who hears both knows; each webhook came once."""
    ids = [c.id for c in left.webhooks]
    assert len(set(ids)) == len(ids)
    assert set(ids) <= {c.headers["ce-id"] for c in left.events}


def test_nothing_secret_leaves(left: Left) -> None:
    """No script, no environment, nothing that claude said; in a full webhook neither."""
    for came in (*left.events, *left.webhooks):
        assert CANARY.encode() not in came.body
        assert len(came.body) < 64 * 1024


def test_the_python_package_verifies_every_webhook(left: Left) -> None:
    """And refuses another body."""
    webhook = Webhook(left.secret)
    for came in left.webhooks:
        assert webhook.verify(came.body, came.headers) == came.json
        with pytest.raises(Exception, match="signature"):
            webhook.verify(came.body + b" ", came.headers)


def test_javascripts_libraries_agree(left: Left, tmp_path: Path) -> None:
    """The CloudEvents SDK reads every event, `standardwebhooks` verifies every webhook."""
    requests: list[dict[str, Any]] = [
        {"headers": c.headers, "body": c.body.decode()} for c in left.events
    ]
    requests += [r | {"secret": left.secret} for r in _as_requests(left.webhooks)]
    forged = _as_requests(left.webhooks[:1])[0] | {"secret": new_secret()}
    *good, bad = node.read(tmp_path, [*requests, forged])
    assert "error" in bad
    assert len(good) == len(requests)
    for came, said in zip((*left.events, *left.webhooks), good, strict=True):
        assert "error" not in said, said
        if "ce-id" in came.headers:
            assert said["read"]["id"] == came.headers["ce-id"]
            assert said["read"]["type"] == came.headers["ce-type"]
            assert said["read"]["data"] == json.loads(came.body)
        else:
            assert said["read"] == came.json


def _as_requests(came: list[Came]) -> list[dict[str, Any]]:
    return [{"headers": c.headers, "body": c.body.decode()} for c in came]
