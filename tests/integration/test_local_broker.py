"""Conformance of a broker to Knative's data-plane contract, each rule one test.

It runs against the laptop's broker. To run it against another one (a real Knative Broker), start
this module's sink where the broker reaches it and name both:

    RDEV_CONFORMANCE_BROKER=http://broker-ingress.knative-eventing/ns/default
    RDEV_CONFORMANCE_SINK=0.0.0.0:9000      where this process listens for the deliveries

with the Triggers that `TRIGGERS` describes applied there, their subscribers being
`http://<this host>:9000/<name>` and the dead letter sink `http://<this host>:9000/dead`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import queue
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from infra.local import wire
from infra.local.broker import Broker
from infra.local.cluster import listen
from infra.local.faults import Faults
from infra.local.filters import parse_attributes, parse_filters
from infra.local.gateway import EventSender
from infra.local.manifests import DeliverySpec, Destination, TriggerSpec
from infra.local.wire import ServerConnection

PATIENCE_S = 30.0
RETRY: dict[str, Any] = {"retry": 3, "backoffPolicy": "exponential", "backoffDelay": "PT0.1S"}
# Name of the trigger (and path of its subscriber) → its filter.
TRIGGERS: dict[str, dict[str, Any]] = {
    "plain": {"filter": {"attributes": {"type": "conformance.plain"}}},
    "exact": {"filters": [{"exact": {"type": "conformance.filter", "subject": "a/b"}}]},
    "prefix": {"filters": [{"prefix": {"type": "conformance.filter", "subject": "a/"}}]},
    "suffix": {"filters": [{"suffix": {"type": "conformance.filter", "subject": "/b"}}]},
    "not": {
        "filters": [
            {"exact": {"type": "conformance.filter"}},
            {"not": {"prefix": {"subject": "a/"}}},
        ]
    },
    "any": {
        "filters": [
            {"exact": {"type": "conformance.filter"}},
            {"any": [{"exact": {"subject": "x"}}, {"suffix": {"subject": "/b"}}]},
        ]
    },
    "reply": {"filter": {"attributes": {"type": "conformance.reply"}}},
}

Answer = tuple[int, dict[str, str], bytes]
Delivery = tuple[str, dict[str, str], bytes]


class Sink:
    """Subscribers whose answers a test scripts, by the id of the event; 202 where it does not."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self._arrived: defaultdict[str, queue.Queue[Delivery]] = defaultdict(queue.Queue)
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, more, data = sink.take(self.path, headers, body)
                self.send_response(status)
                for name, value in {**more, "content-length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(address, Handler)
        self.port = self.server.server_address[1]

    def take(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        event_id = headers.get("ce-id", "")
        self._arrived[event_id].put((path.strip("/"), headers, body))
        script = self.answers.get(event_id) if path != "/dead" else None
        return script.pop(0) if script else (202, {}, b"")

    def next(self, event_id: str) -> Delivery:
        """The next delivery of an event, whoever got it."""
        return self._arrived[event_id].get(timeout=PATIENCE_S)

    def count(self, event_id: str) -> int:
        return self._arrived[event_id].qsize()


class Publisher:
    """POSTs events to the broker under test."""

    def __init__(self, url: str, sink: Sink) -> None:
        self.url = url
        self.sink = sink
        self.client = httpx.Client(timeout=30, trust_env=False)

    def post(self, kind: str, *answers: Answer, data: bytes = b"{}", **attributes: str) -> str:
        """Publish in binary mode and return the id; `answers` are what its subscriber says."""
        event_id = str(uuid.uuid4())
        self.sink.answers[event_id] = list(answers)
        headers = {
            "ce-specversion": "1.0",
            "ce-id": event_id,
            "ce-source": "/conformance",
            "ce-type": f"conformance.{kind}",
            "content-type": "application/json",
            **{f"ce-{name}": value for name, value in attributes.items()},
        }
        assert self.client.post(self.url, headers=headers, content=data).status_code == 202
        return event_id


def local_triggers(sink: Sink) -> list[TriggerSpec]:
    def at(path: str) -> Destination:
        return Destination(uri=f"http://127.0.0.1:{sink.port}/{path}")

    delivery = DeliverySpec(3, "exponential", 0.1, dead_letter=at("dead"))
    return [
        TriggerSpec(
            name,
            at(name),
            parse_filters(spec["filters"])
            if "filters" in spec
            else parse_attributes(spec["filter"]["attributes"]),
            delivery,
        )
        for name, spec in TRIGGERS.items()
    ]


def serve_local(sink: Sink, stop: threading.Event, told: Callable[[str], None]) -> None:
    """Run the laptop's broker on a port of its own until `stop`."""

    async def main() -> None:
        broker = Broker(local_triggers(sink), EventSender({}))
        listening = listen(0)
        server = await asyncio.get_running_loop().create_server(
            lambda: ServerConnection(broker.ingress), sock=listening
        )
        told(f"http://127.0.0.1:{listening.getsockname()[1]}/broker")
        await asyncio.to_thread(stop.wait)
        server.close()
        await broker.close()

    asyncio.run(main())


@pytest.fixture(scope="module")
def publisher() -> Iterator[Publisher]:
    host, _, port = os.environ.get("RDEV_CONFORMANCE_SINK", "127.0.0.1:0").partition(":")
    sink = Sink((host, int(port)))
    threads = [threading.Thread(target=sink.server.serve_forever)]
    stop = threading.Event()
    url = os.environ.get("RDEV_CONFORMANCE_BROKER", "")
    if not url:
        urls: queue.Queue[str] = queue.Queue()
        threads.append(threading.Thread(target=serve_local, args=(sink, stop, urls.put)))
    for thread in threads:
        thread.start()
    found = Publisher(url or urls.get(timeout=PATIENCE_S), sink)
    try:
        yield found
    finally:
        found.client.close()
        stop.set()
        sink.server.shutdown()
        sink.server.server_close()
        for thread in threads:
            thread.join(PATIENCE_S)


def test_an_event_is_delivered_in_binary_mode_with_its_attributes(publisher: Publisher) -> None:
    """Attributes, extensions, content type and data arrive; `Prefer: reply` is announced."""
    event_id = publisher.post("plain", data=b'{"a": 1}', traceparent="00-ab-cd-01")
    path, headers, body = publisher.sink.next(event_id)
    assert (path, body) == ("plain", b'{"a": 1}')
    assert headers["ce-source"] == "/conformance" and headers["ce-traceparent"] == "00-ab-cd-01"
    assert headers["content-type"] == "application/json"
    assert headers["prefer"] == "reply" and "ce-knativearrivaltime" in headers


def test_a_structured_event_is_accepted(publisher: Publisher) -> None:
    """The ingress takes application/cloudevents+json too."""
    event_id = str(uuid.uuid4())
    event = {"specversion": "1.0", "id": event_id, "source": "/c", "type": "conformance.plain"}
    answer = publisher.client.post(
        publisher.url,
        headers={"content-type": "application/cloudevents+json"},
        content=json.dumps(event | {"data": {"a": 1}}),
    )
    assert answer.status_code == 202
    _, headers, body = publisher.sink.next(event_id)
    assert headers["ce-type"] == "conformance.plain" and json.loads(body) == {"a": 1}


def test_what_is_no_event_is_refused_with_400(publisher: Publisher) -> None:
    """A POST without the required attributes is not accepted."""
    assert publisher.client.post(publisher.url, content=b"{}").status_code == 400


def test_only_post_is_allowed(publisher: Publisher) -> None:
    """Any other method but OPTIONS is 405."""
    assert publisher.client.put(publisher.url, content=b"{}").status_code == 405


@pytest.mark.parametrize(
    ("subject", "names"),
    [
        ("a/b", {"exact", "prefix", "suffix", "any"}),
        ("a/c", {"prefix"}),
        ("c/b", {"suffix", "any", "not"}),
        ("x", {"any", "not"}),
    ],
)
def test_filters_choose_the_triggers(publisher: Publisher, subject: str, names: set[str]) -> None:
    """Every trigger whose filter matches gets its own delivery, and no other."""
    event_id = publisher.post("filter", subject=subject)
    assert {publisher.sink.next(event_id)[0] for _ in names} == names
    # A later event has passed all filters too once it arrives: nothing more came of this one.
    later = publisher.post("plain")
    publisher.sink.next(later)
    assert publisher.sink.count(event_id) == 0


@pytest.mark.parametrize("status", [404, 408, 409, 429, 500, 502, 503])
def test_these_statuses_are_tried_again(publisher: Publisher, status: int) -> None:
    """The same event comes again after a retryable answer."""
    event_id = publisher.post("plain", (status, {}, b""))
    assert [publisher.sink.next(event_id)[0] for _ in range(2)] == ["plain", "plain"]


@pytest.mark.parametrize("status", [400, 401, 403, 410, 413, 422])
def test_other_4xx_go_to_the_dead_letter_sink_at_once(publisher: Publisher, status: int) -> None:
    """They are final: one attempt, then the dead letter with the code."""
    event_id = publisher.post("plain", (status, {}, b"no"))
    assert publisher.sink.next(event_id)[0] == "plain"
    path, headers, _ = publisher.sink.next(event_id)
    assert path == "dead" and headers["ce-knativeerrorcode"] == str(status)
    assert base64.b64decode(headers["ce-knativeerrordata"]) == b"no"
    assert headers["ce-knativeerrordest"].endswith("/plain")


def test_retries_end_in_the_dead_letter_sink(publisher: Publisher) -> None:
    """After `retry` more attempts the event is dead-lettered with its data unchanged."""
    event_id = publisher.post("plain", *[(503, {}, b"")] * 4, data=b'{"keep": true}')
    paths = [publisher.sink.next(event_id)[0] for _ in range(4)]
    path, _, body = publisher.sink.next(event_id)
    assert paths == ["plain"] * 4 and (path, body) == ("dead", b'{"keep": true}')


def test_a_2xx_with_a_body_that_is_no_event_is_a_failure(publisher: Publisher) -> None:
    """`200 OK` with text/plain, as functions-framework's decorator answers, is retried."""
    event_id = publisher.post("plain", (200, {"content-type": "text/plain"}, b"OK"))
    assert [publisher.sink.next(event_id)[0] for _ in range(2)] == ["plain", "plain"]


def reply_event(event_id: str) -> dict[str, str]:
    return {
        "ce-specversion": "1.0",
        "ce-id": event_id,
        "ce-source": "/reply",
        "ce-type": "conformance.reply",
    }


def test_a_reply_event_on_200_is_published(publisher: Publisher) -> None:
    """What a subscriber answers as an event goes through the broker like any other."""
    reply_id = str(uuid.uuid4())
    publisher.post("plain", (200, reply_event(reply_id), b"answer"))
    path, headers, body = publisher.sink.next(reply_id)
    assert (path, body, headers["ce-source"]) == ("reply", b"answer", "/reply")


def test_a_reply_event_on_202_is_not_published(publisher: Publisher) -> None:
    """202 only accepts."""
    reply_id = str(uuid.uuid4())
    event_id = publisher.post("plain", (202, reply_event(reply_id), b"answer"))
    publisher.sink.next(event_id)
    later = publisher.post("reply")
    publisher.sink.next(later)
    assert publisher.sink.count(reply_id) == 0


local_only = pytest.mark.skipif(
    "RDEV_CONFORMANCE_BROKER" in os.environ, reason="a limit of the laptop's broker"
)


@local_only
def test_an_event_beyond_the_size_limit_is_413(publisher: Publisher) -> None:
    """More than 1 MiB would not pass every broker of a cluster."""
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/c", "ce-type": "x"}
    answer = publisher.client.post(publisher.url, headers=headers, content=b"x" * (1 << 20) + b"x")
    assert answer.status_code == 413


@local_only
def test_faults_by_a_seed_are_the_same_each_time() -> None:
    """The fault mode drops, doubles and delays a share of deliveries, reproducibly."""
    text = "seed=7, drop=0.2, double=0.2, reorder=0.3, delay=0.1"
    first, second = Faults.parse(text), Faults.parse(text)
    fates = [first.fates() for _ in range(1000)]
    assert fates == [second.fates() for _ in range(1000)]
    assert 100 < sum(not fate for fate in fates) < 300
    assert 100 < sum(len(fate) == 2 for fate in fates) < 300
    assert Faults.parse("").fates() == [0.0]


@local_only
def test_a_full_broker_says_429(monkeypatch: pytest.MonkeyPatch) -> None:
    """With too much pending the ingress asks to come again instead of growing."""
    monkeypatch.setattr("infra.local.broker.MAX_PENDING", 0)
    refused: list[int] = []

    async def main() -> None:
        broker = Broker([], EventSender({}))
        headers = [(f"ce-{k}".encode(), b"1.0") for k in ("specversion", "id", "source", "type")]
        request = wire.Request("POST", b"/broker", headers, wire.complete_body(b""), "127.0.0.1")
        with pytest.raises(wire.HttpError) as error:
            await broker.ingress(request, None)  # type: ignore[arg-type]
        refused.append(error.value.status)

    asyncio.run(main())
    assert refused == [429]
