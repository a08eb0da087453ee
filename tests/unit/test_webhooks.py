"""common/domain/webhooks.py: the message, the schedule, and what an answer means."""

from __future__ import annotations

import base64
import json
import random
from datetime import UTC, datetime
from uuid import UUID

import pytest

from common.domain import webhooks
from common.domain.announcements import MAX_DATA_BYTES, bounded
from common.domain.events import dumps
from common.domain.webhooks import Answer, Message, Payload

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DATA = {"id": "cmd_1", "project": "demo", "kind": "shell", "state": "failed", "outcome": {"a": 1}}


def message(**data: object) -> Message:
    return Message(UUID(int=5), "command.failed", AT, DATA | data, {"labels": {"a": "b"}})


def test_a_thin_message_is_ids_and_state() -> None:
    """In the envelope of Standard Webhooks; the id is that of the CloudEvent."""
    told = json.loads(message().body(Payload.THIN))
    assert told == {
        "type": "command.failed",
        "timestamp": "2026-01-02T03:04:05.000Z",
        "data": {"id": "cmd_1", "project": "demo", "kind": "shell", "state": "failed"},
    }
    assert message().name == f"evt_{UUID(int=5).hex}"


def test_a_full_message_has_outcome_and_facts() -> None:
    """The same bytes each time."""
    told = json.loads(message().body(Payload.FULL))
    assert told["data"] == DATA | {"labels": {"a": "b"}}
    assert message().body(Payload.FULL) == message().body(Payload.FULL)


def test_no_event_outgrows_what_is_forwarded() -> None:
    """What a program reported about itself is left out then; how it ended stays."""
    agent = {"usage": {"x": "y" * MAX_DATA_BYTES}}
    outcome = {"reason": "exit_zero", "exit_code": 0, "agent": agent}
    cut = bounded({"id": "cmd_1", "outcome": outcome})
    assert cut["outcome"] == {"reason": "exit_zero", "exit_code": 0, "agent": None}
    assert len(message(outcome=outcome).body(Payload.FULL)) < 64 * 1024
    small = {"id": "cmd_1", "outcome": outcome | {"agent": None}}
    assert bounded(small) is small
    assert bounded({"id": 1}) == {"id": 1}
    assert len(dumps(cut)) < MAX_DATA_BYTES


def test_a_secret_is_of_the_specification() -> None:
    """whsec_, base64, 24 bytes, and never the same."""
    one, two = webhooks.new_secret(), webhooks.new_secret()
    assert one != two
    assert len(base64.b64decode(one.removeprefix("whsec_"), validate=True)) == 24


def test_the_schedule_is_that_of_the_specification_with_jitter() -> None:
    """Nine waits after the first attempt, each at most 20 % off; then there is none."""
    failed = Answer(500, 1)
    for tries, expected in enumerate(
        (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400), start=1
    ):
        waits = [webhooks.retry_in_s(tries, failed, random.Random(n)) for n in range(50)]
        assert all(w is not None and 0.8 * expected <= w <= 1.2 * expected for w in waits)
        assert len(set(waits)) > 1
    assert webhooks.retry_in_s(10, failed) is None


def test_retry_after_is_honoured_within_bounds() -> None:
    """Longer than the schedule it counts, but no more than an hour; shorter it does not."""
    assert webhooks.retry_in_s(1, Answer(429, 1, retry_after_s=60.0)) == 60.0
    assert webhooks.retry_in_s(1, Answer(503, 1, retry_after_s=1e9)) == 3600.0
    short = webhooks.retry_in_s(2, Answer(503, 1, retry_after_s=1.0))
    assert short is not None and short >= 240
    assert webhooks.rest_s(1, Answer(429, 1, retry_after_s=60.0)) == 60.0
    assert webhooks.rest_s(1, Answer(503, 1, retry_after_s=1e9)) == 3600.0


@pytest.mark.parametrize("status", [429, 502, 503, 504, None])
def test_who_cannot_take_more_rests_twice_as_long_each_time(status: int | None) -> None:
    """From a second to a minute."""
    rests = [webhooks.rest_s(n, Answer(status, 1)) for n in range(1, 9)]
    assert rests == [1, 2, 4, 8, 16, 32, 60, 60]
    assert webhooks.rest_s(10_000, Answer(status, 1)) == 60


@pytest.mark.parametrize("status", [400, 404, 500, 301])
def test_who_only_refuses_this_one_does_not_rest(status: int) -> None:
    """The next delivery may be fine."""
    assert webhooks.rest_s(3, Answer(status, 1)) == 0
    assert webhooks.rest_s(3, Answer(None, 1, "refused", refused=True)) == 0


@pytest.mark.parametrize(
    ("status", "delivered"),
    [(200, True), (204, True), (299, True), (199, False), (301, False), (302, False), (400, False),
     (410, False), (500, False), (None, False)],
)  # fmt: skip
def test_only_2xx_is_delivered(status: int | None, delivered: bool) -> None:
    """A redirect is not."""
    assert Answer(status, 1).delivered is delivered
    assert Answer(status, 1).gone is (status == 410)


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ({"X-Team": "blue", "Authorization": "Bearer x y"}, None),
        ({"X\r\nY": "a"}, "no header name"),
        ({"": "a"}, "no header name"),
        ({"X A": "a"}, "no header name"),
        ({"X": "a\r\nY: b"}, "printable ASCII"),
        ({"X": "a\nb"}, "printable ASCII"),
        ({"X": ""}, "printable ASCII"),
        ({"X": " a"}, "printable ASCII"),
        ({"X": "é"}, "printable ASCII"),
        ({"X": "a" * 1025}, "printable ASCII"),
        ({"X": "a", "x": "b"}, "there twice"),
        ({"Host": "evil"}, "not for others"),
        ({"webhook-id": "1"}, "not for others"),
        ({"Webhook-Signature": "1"}, "not for others"),
        ({"Content-Length": "1"}, "not for others"),
        ({"Transfer-Encoding": "chunked"}, "not for others"),
        ({f"X-{n}": "a" for n in range(11)}, "at most 10"),
    ],
)
def test_custom_headers_are_plain(headers: dict[str, str], problem: str | None) -> None:
    """Row 61: nothing that could end a header or take one of ours."""
    said = webhooks.header_problem(headers)
    assert said is None if problem is None else problem in (said or "")
