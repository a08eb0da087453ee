"""Events in: CloudEvents over HTTP with a key, deliveries of GitHub, and the dead letters."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qs

from common.domain import identifiers
from common.domain.errors import InvalidRequest
from common.entrypoints import examples, intake, pages, strict_json
from common.entrypoints.call import Call, Reply
from common.entrypoints.cloud_events import STRUCTURED
from common.entrypoints.function import Function, Scale
from common.entrypoints.models.commands import new_command
from common.entrypoints.models.events import ListLetters
from common.ports.dead_letters import LetterFilter

# GitHub sends up to 25 MB; 2,048 commits of a push are about 3 MB. It is read before its signature
# can be checked, so what anybody could make one instance hold is this times `concurrency`.
MAX_DELIVERY: Final = 5 << 20
_EVENTS: Final = {  # in binary mode the body is the data, and the rest is in `ce-` headers
    STRUCTURED: examples.EVENT,
    intake.BATCH: [examples.EVENT],
    "application/json": examples.EVENT["data"],
}

function = Function(
    name="events",
    summary="CloudEvents in over HTTP, deliveries of GitHub, and events that nothing came of",
    prefixes=("/v1/events",),
    scale=Scale(target=8, concurrency=16),
    secret_keys=True,
)


@function.post("/v1/events", summary="Take a CloudEvent (binary or structured) or a batch of them", scope="events:write",
               status=202, raw_body=_EVENTS,
               answer="ReceivedEvents", answer_example=examples.RECEIVED)  # fmt: skip
def take(call: Call) -> Reply:
    events = intake.events_of(call.headers, call.raw_body)
    done = call.app.receive(events, new_command, call.origin, call.caller)
    return Reply({"events": [intake.received_resource(one) for one in done]}, 202)


@function.post("/v1/events/github/{trigger}", summary="Take a delivery of GitHub, known by X-Hub-Signature-256", signed=True,
               status=202, raw_body={"application/json": {"ref": "refs/heads/main"}}, max_body=MAX_DELIVERY,
               answer="ReceivedEvents", answer_example=examples.RECEIVED)  # fmt: skip
def take_from_github(call: Call) -> Reply:
    def payload_of(body: bytes) -> Any:
        return _payload(call, body)

    done = call.app.receive_github(
        call.path["trigger"], call.headers, call.raw_body, payload_of, new_command, call.origin
    )
    return Reply({"events": [intake.received_resource(done)] if done else []}, 202)


def _payload(call: Call, body: bytes) -> Any:
    """The payload of a delivery, in either content type that GitHub offers."""
    kind = call.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        return strict_json.loads(body)
    try:
        [text] = parse_qs(body.decode(), strict_parsing=True, max_num_fields=10)["payload"]
    except (ValueError, KeyError):
        raise InvalidRequest("the form must have one field, payload") from None
    return strict_json.loads(text.encode())


@function.get("/v1/events/dead-letters", summary="List events that nothing came of, newest first", scope="triggers:write",
              query=ListLetters, answer="DeadLetterPage", answer_example=examples.page_of(examples.LETTER))  # fmt: skip
def dead_letters(call: Call) -> Reply:
    q: ListLetters = call.query
    projects = frozenset(q.project) if q.project else None
    before = pages.before(identifiers.LETTER, q.cursor)
    wanted = LetterFilter(projects, q.reason, q.type, q.source, q.replayed, before, q.limit + 1)
    found = call.app.read_dead_letters.many(wanted, call.caller)
    return Reply(pages.page(found, q.limit, identifiers.LETTER, intake.letter_resource))


@function.get("/v1/events/dead-letters/{id}", summary="Show a dead letter with its data", scope="triggers:write",
              answer="WholeDeadLetter", answer_example=examples.WHOLE_LETTER)  # fmt: skip
def dead_letter(call: Call) -> Reply:
    letter = call.app.read_dead_letters.one(call.path["id"], call.caller)
    return Reply(intake.whole_letter_resource(letter))


@function.post("/v1/events/dead-letters/{id}/replay", summary="Take a dead letter once more, the way it came",
               scope="triggers:write", others={409: "It cannot be replayed"}, answer="ReplayedDeadLetter", answer_example=examples.REPLAYED)  # fmt: skip
def replay(call: Call) -> Reply:
    done = call.app.read_dead_letters.replay(call.path["id"], new_command, call.caller, call.origin)
    event = intake.received_resource(done.received) if done.received else None
    letter = intake.letter_resource(done.letter)
    return Reply({"outcome": done.outcome, "event": event, "letter": letter})


handle = function.target()
