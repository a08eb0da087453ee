"""Retries, backoff, Retry-After and dead letters, with a sender that answers from a script."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from email.utils import formatdate
from typing import Any

import pytest

from infra.local.delivery import Delivery, Outcome, Response, judge
from infra.local.events import Event
from infra.local.manifests import DeliverySpec, Destination
from infra.local.wire import Headers

SINK, GRAVE = Destination("sink"), Destination("grave", "/dead")
EVENT = Event({"specversion": "1.0", "id": "7", "source": "/s", "type": "t"}, b"{}", "text/json")
REPLY: Headers = [
    (b"ce-specversion", b"1.0"),
    (b"ce-id", b"r"),
    (b"ce-source", b"/r"),
    (b"ce-type", b"reply"),
]


class Script:
    """A sender that gives the next answer of a list and notes what it was sent."""

    def __init__(self, answers: Sequence[Response | Exception | int]) -> None:
        self._answers = list(answers)
        self.sent: list[tuple[Destination, dict[bytes, bytes], bytes]] = []
        self.timeouts: list[float] = []

    async def __call__(
        self, destination: Destination, headers: Headers, body: bytes, timeout_s: float
    ) -> Response:
        self.sent.append((destination, dict(headers), body))
        self.timeouts.append(timeout_s)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Response(answer, [], b"") if isinstance(answer, int) else answer


def deliver(script: Script, **spec: Any) -> tuple[Outcome, list[float]]:
    """Deliver EVENT to SINK; return how it ended and the pauses between attempts."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def run() -> Outcome:
        slots = asyncio.Semaphore(1)
        return await Delivery(SINK, DeliverySpec(**spec), script, slots, sleep).deliver(EVENT)

    return asyncio.run(run()), pauses


@pytest.mark.parametrize("failure", [404, 408, 409, 429, 500, 503, 599, OSError(), TimeoutError()])
def test_these_are_tried_again(failure: int | Exception) -> None:
    """404, 408, 409, 429, every 5xx and no answer at all are worth another attempt."""
    script = Script([failure, 202])
    outcome, _ = deliver(script, retry=1, backoff_policy="linear", backoff_s=1)
    assert outcome.acknowledged and len(script.sent) == 2


@pytest.mark.parametrize("status", [300, 302, 400, 401, 403, 405, 410, 413, 415, 422])
def test_these_are_final(status: int) -> None:
    """Any other 3xx or 4xx goes to the dead letter sink without another attempt."""
    script = Script([status, 202])
    outcome, pauses = deliver(script, retry=5, dead_letter=GRAVE)
    assert not outcome.acknowledged and pauses == []
    assert [sent[0] for sent in script.sent] == [SINK, GRAVE]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_an_empty_2xx_acknowledges(status: int) -> None:
    """A subscriber takes an event with any empty 2xx."""
    assert judge(Response(status, [], b"")) == Outcome(status, acknowledged=True)


@pytest.mark.parametrize("status", [200, 202])
def test_a_2xx_with_a_body_that_is_no_event_is_a_failure(status: int) -> None:
    """`200 OK` with a text, as the framework's decorator answers, is retried and dead-lettered."""
    outcome = judge(Response(status, [(b"content-type", b"text/plain")], b"OK"))
    assert not outcome.acknowledged and outcome.retryable


def test_only_a_200_carries_a_reply() -> None:
    """An event in a 200 is passed on, one in a 202 is accepted and forgotten."""
    replied = judge(Response(200, REPLY, b"x")).reply
    assert replied is not None and replied.attributes["type"] == "reply"
    accepted = judge(Response(202, REPLY, b"x"))
    assert accepted.acknowledged and accepted.reply is None


def test_exponential_backoff_doubles_from_the_delay() -> None:
    """The pauses are delay x 1, 2, 4 …"""
    _, pauses = deliver(
        Script([500, 500, 500, 500, 202]), retry=5, backoff_policy="exponential", backoff_s=0.5
    )
    assert pauses == [0.5, 1, 2, 4]


def test_linear_backoff_grows_by_the_delay_from_nothing() -> None:
    """The pauses are delay x 0, 1, 2 …, as in Knative's own code."""
    _, pauses = deliver(
        Script([500, 500, 500, 202]), retry=5, backoff_policy="linear", backoff_s=0.5
    )
    assert pauses == [0, 0.5, 1]


@pytest.mark.parametrize(
    ("status", "header", "limit_s", "pause_s"),
    [
        (429, b"7", None, 7.0),
        (503, b"7", None, 7.0),
        (500, b"7", None, 1.0),
        (503, b"0", None, 1.0),
        (503, b"7", 3.0, 3.0),
        (503, b"7", 0.0, 1.0),
        (503, b"soon", None, 1.0),
    ],
)
def test_retry_after_is_the_least_pause_for_429_and_503(
    status: int, header: bytes, limit_s: float | None, pause_s: float
) -> None:
    """Retry-After counts when it asks for more than the backoff, up to retryAfterMax."""
    answer = Response(status, [(b"retry-after", header)], b"")
    _, pauses = deliver(
        Script([answer, 202]),
        retry=1,
        backoff_policy="exponential",
        backoff_s=1,
        retry_after_max_s=limit_s,
    )
    assert pauses == [pause_s]


def test_retry_after_may_be_a_date() -> None:
    """An HTTP date in the past asks for no pause."""
    past = formatdate(0, usegmt=True).encode()
    assert judge(Response(503, [(b"retry-after", past)], b"")).retried_after_s == 0


def test_a_dead_letter_carries_what_happened() -> None:
    """The last error travels in Knative's extensions, its body as 1024 characters of base64."""
    script = Script([Response(503, [], b"\xff" * 2000), 202])
    deliver(script, dead_letter=GRAVE)
    destination, headers, body = script.sent[1]
    assert (destination, body) == (GRAVE, EVENT.data)
    assert headers[b"ce-id"] == b"7"
    assert headers[b"ce-knativeerrordest"] == b"http://sink.rdev.svc.cluster.local"
    assert headers[b"ce-knativeerrorcode"] == b"503"
    assert headers[b"ce-knativeerrordata"] == base64.b64encode(b"\xff" * 2000)[:1024]


def test_a_dead_letter_without_an_answer_has_code_500() -> None:
    """A connection error is told as the dispatcher tells it."""
    script = Script([ConnectionRefusedError("no"), 202])
    deliver(script, dead_letter=GRAVE)
    assert script.sent[1][1][b"ce-knativeerrorcode"] == b"500"


def test_the_dead_letter_sink_is_tried_again_too(caplog: pytest.LogCaptureFixture) -> None:
    """The same retries apply there, and an event that nobody takes is said to be lost."""
    script = Script([500, 500, 500, 500])
    deliver(script, retry=1, backoff_policy="linear", backoff_s=1, dead_letter=GRAVE)
    assert [sent[0] for sent in script.sent] == [SINK, SINK, GRAVE, GRAVE]
    assert "event 7 is lost" in caplog.text


def test_deliveries_ask_for_a_reply_and_use_the_timeout_of_the_trigger() -> None:
    """`Prefer: reply` and kn-namespace are set, and spec.delivery.timeout bounds the request."""
    script = Script([202])
    deliver(script, timeout_s=12.0)
    assert script.sent[0][1][b"prefer"] == b"reply"
    assert script.sent[0][1][b"kn-namespace"] == b"rdev"
    assert script.timeouts == [12.0]
