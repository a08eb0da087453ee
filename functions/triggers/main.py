"""Triggers: when an event like this arrives, run this command there."""

from __future__ import annotations

from common.domain import identifiers
from common.domain.errors import InvalidField
from common.domain.resources import match_resource, trigger_resource
from common.domain.triggers import Channel, Trigger
from common.entrypoints import examples, intake, pages
from common.entrypoints.call import Call, Reply
from common.entrypoints.conditions import etag, if_match
from common.entrypoints.function import Function
from common.entrypoints.models.commands import new_command
from common.entrypoints.models.triggers import (
    CreateTrigger,
    ListMatches,
    ListTriggers,
    RotateSecret,
    TestTrigger,
    UpdateTrigger,
)
from common.ports.triggers import CreatedTrigger

function = Function(
    name="triggers",
    summary="What events start: filters, command templates, dry runs, and a log of what matched",
    prefixes=("/v1/triggers",),
    secret_keys=True,
)


@function.post("/v1/triggers", summary="Create a trigger; its secret for GitHub is in this answer only",
               scope="triggers:write", body=CreateTrigger, idempotent=True, status=201, body_example=examples.CREATE_TRIGGER,
               others={409: "There are too many"}, answer="CreatedTrigger", answer_example=examples.TRIGGER | {"secret": "…"})  # fmt: skip
def create(call: Call, body: CreateTrigger) -> Reply:
    wanted, secrets = body.trigger()
    made = call.app.manage_triggers.create(
        wanted, secrets, call.caller, call.origin, call.idempotency
    )
    return _with_secret(*made)


def _with_secret(made: CreatedTrigger, secret: str | None) -> Reply:
    resource = trigger_resource(made.trigger) | {"secret": secret}
    headers = {"location": resource["links"]["self"], "etag": etag(str(made.trigger.version))}
    if made.replayed:
        headers["idempotency-replayed"] = "true"
    return Reply(resource, 201, headers)


def _shown(trigger: Trigger) -> Reply:
    return Reply(trigger_resource(trigger), headers={"etag": etag(str(trigger.version))})


@function.get("/v1/triggers", summary="List triggers, newest first", scope="triggers:write", query=ListTriggers,
              answer="TriggerPage", answer_example=examples.page_of(examples.TRIGGER))  # fmt: skip
def listed(call: Call) -> Reply:
    q: ListTriggers = call.query
    before = pages.before(identifiers.TRIGGER, q.cursor)
    found = call.app.manage_triggers.many(before, q.limit + 1, call.caller)
    return Reply(pages.page(found, q.limit, identifiers.TRIGGER, trigger_resource))


@function.get("/v1/triggers/{id}", summary="Show a trigger, without its secret", scope="triggers:write",
              answer="Trigger", answer_example=examples.TRIGGER)  # fmt: skip
def show(call: Call) -> Reply:
    return _shown(call.app.manage_triggers.one(call.path["id"], call.caller))


@function.patch("/v1/triggers/{id}", summary="Change a trigger; who changes what it does becomes its owner",
                scope="triggers:write", body=UpdateTrigger, body_example={"enabled": False}, conditional=True,
                answer="Trigger", answer_example=examples.TRIGGER)  # fmt: skip
def update(call: Call, body: UpdateTrigger) -> Reply:
    fields, secrets = body.changes()
    changed = call.app.manage_triggers.update(
        call.path["id"], if_match(call.headers), fields, secrets, call.caller, call.origin
    )
    return _shown(changed)


@function.delete("/v1/triggers/{id}", summary="Delete a trigger, and the log of what came to it", scope="triggers:write",
                 status=204, conditional=True)  # fmt: skip
def delete(call: Call) -> Reply:
    wanted = if_match(call.headers)
    call.app.manage_triggers.delete(call.path["id"], wanted, call.caller, call.origin)
    return Reply(status=204)


@function.post("/v1/triggers/{id}/rotate", summary="Replace the secret; the old one is taken for `grace_s` seconds more",
               scope="triggers:write", body=RotateSecret, body_optional=True, idempotent=True, status=201,
               body_example={"grace_s": 3600}, answer="CreatedTrigger", answer_example=examples.TRIGGER | {"secret": "…"})  # fmt: skip
def rotate(call: Call, body: RotateSecret) -> Reply:
    made = call.app.manage_triggers.rotate(
        call.path["id"], body.grace_s, call.caller, call.origin, call.idempotency
    )
    return _with_secret(*made)


@function.post("/v1/triggers/{id}/test", summary="Show the command that an event would give; nothing runs",
               scope="triggers:write", body=TestTrigger, body_example={"event": examples.EVENT},
               answer="DryRun", answer_example=examples.DRY_RUN)  # fmt: skip
def test(call: Call, body: TestTrigger) -> Reply:
    envelope = {"specversion": "1.0", "id": "test"} | body.event
    event = intake.event_of(envelope, Channel(body.channel))
    done = call.app.manage_triggers.dry_run(call.path["id"], event, new_command, call.caller)
    return Reply(intake.dry_run_resource(done))


@function.get("/v1/triggers/{id}/matches", summary="What came to a trigger and was for it, newest first",
              scope="triggers:write", query=ListMatches, answer="MatchPage", answer_example=examples.page_of(examples.MATCH))  # fmt: skip
def matches(call: Call) -> Reply:
    q: ListMatches = call.query
    before = pages.before(identifiers.MATCH, q.cursor)
    number = None if before is None else before.int
    if number is not None and number >= 1 << 63:
        raise InvalidField.one("cursor", "invalid", "cursor: not one of ours")
    found = call.app.manage_triggers.matches(
        call.path["id"], q.outcome, number, q.limit + 1, call.caller
    )
    return Reply(pages.page(found, q.limit, identifiers.MATCH, match_resource))


handle = function.target()
