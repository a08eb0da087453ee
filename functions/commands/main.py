"""Commands: create, list, show, cancel, reprioritise, retry, approve; their stored output."""

from __future__ import annotations

from common.domain import identifiers
from common.domain.command import Priority, State
from common.domain.resources import approval_resource, command_resource
from common.entrypoints import examples, pages
from common.entrypoints.call import Call, Later, Reply
from common.entrypoints.function import Function, Scale
from common.entrypoints.models.commands import (
    CancelBody,
    CreateCommand,
    DecisionBody,
    ListCommands,
    OutputQuery,
    PriorityBody,
    RetryBody,
)
from common.entrypoints.submission import SCOPES, accepted, answered, submit, wanted_wait
from common.ports.commands import Filter

function = Function(
    name="commands",
    summary="Create, list, show, cancel, reprioritise, retry and approve commands; read their output",
    prefixes=("/v1/commands",),
    scale=Scale(maximum=10),
    secret_keys=True,
)


@function.post("/v1/commands", summary="Run a command", scope=SCOPES, body=CreateCommand,
               idempotent=True, status=202, body_example=examples.CREATE_SHELL,
               others={404: "There is no such project"}, answer="Command", answer_example=examples.COMMAND)  # fmt: skip
def create(call: Call, body: CreateCommand) -> Reply | Later:
    return submit(call, body.command(body.project))


@function.get("/v1/commands", summary="List commands, newest first", scope="commands:read",
              query=ListCommands, answer="CommandPage", answer_example=examples.page_of(examples.COMMAND))  # fmt: skip
def listed(call: Call) -> Reply:
    q: ListCommands = call.query
    projects = frozenset(q.project) if q.project else None
    states = [*q.state, State.CLAIMED] if "queued" in q.state else q.state
    labels = tuple((name, value) for name, _, value in (text.partition("=") for text in q.label))
    before = pages.before(identifiers.COMMAND, q.cursor)
    wanted = Filter(projects, states, q.kind, labels, before, q.limit + 1)
    found = call.app.read_commands.many(wanted, call.caller)
    return Reply(pages.page(found, q.limit, identifiers.COMMAND, command_resource))


@function.get("/v1/commands/{id}", summary="Show a command; `Prefer: wait=N` waits for its end",
              scope="commands:read", answer="Command", answer_example=examples.COMMAND)  # fmt: skip
def show(call: Call) -> Reply | Later:
    command = call.app.read_commands.one(call.path["id"], call.caller)
    seconds = wanted_wait(call)
    if command.ended or seconds is None:
        return Reply(command_resource(command))

    async def later() -> Reply:
        return Reply(command_resource(await call.app.wait(command.id, seconds) or command))

    return later


@function.patch("/v1/commands/{id}", summary="Change the priority while it waits", scope=SCOPES,
                body=PriorityBody, body_example={"priority": "high"}, others={409: "It no longer waits"}, answer="Command", answer_example=examples.COMMAND)  # fmt: skip
def reprioritise(call: Call, body: PriorityBody) -> Reply:
    priority = Priority[body.priority.upper()]
    command = call.app.reprioritise(call.path["id"], priority, call.caller, call.origin)
    return Reply(command_resource(command))


@function.post("/v1/commands/{id}/cancel", summary="End a command", scope=SCOPES, body=CancelBody,
               body_optional=True, status=202, body_example={"mode": "graceful"}, others={200: "It had ended before"}, answer="Command", answer_example=examples.COMMAND)  # fmt: skip
def cancel(call: Call, body: CancelBody) -> Reply:
    command, ended = call.app.cancel(call.path["id"], body.mode, call.caller, call.origin)
    return Reply(command_resource(command)) if ended else accepted(command_resource(command))


@function.post("/v1/commands/{id}/retry", summary="Run an ended command again, as a new one", scope=SCOPES,
               body=RetryBody, body_optional=True, idempotent=True, status=202, body_example={}, answer="Command", answer_example=examples.COMMAND)  # fmt: skip
def retry(call: Call, body: RetryBody) -> Reply | Later:
    secrets = body.mcp_secrets()
    again = call.app.retry(
        call.path["id"], body.env, secrets, call.caller, call.origin, call.idempotency
    )
    return answered(call, again)


@function.get("/v1/commands/{id}/approvals", summary="What claude asked for permission to do there",
              scope="commands:read", answer="ApprovalPage", answer_example=examples.page_of(examples.APPROVAL))  # fmt: skip
def approvals(call: Call) -> Reply:
    found = call.app.approve.list(call.path["id"], call.caller)
    return Reply({"items": [approval_resource(a) for a in found], "next_cursor": None})


@function.post("/v1/commands/{id}/approvals/{tool_use_id}", summary="Allow or deny what claude asked for",
               scope="approvals:write", body=DecisionBody, body_example={"decision": "allow"},
               others={409: "It was decided before, or too late"}, answer="Approval", answer_example=examples.APPROVAL | {"state": "allowed"})  # fmt: skip
def decide(call: Call, body: DecisionBody) -> Reply:
    act = call.app.approve.allow if body.decision == "allow" else call.app.approve.deny
    decided = act(call.path["id"], call.path["tool_use_id"], body.message, call.caller, call.origin)
    return Reply(approval_resource(decided))


@function.get("/v1/commands/{id}/output", summary="Stored output as plain text, from an offset",
              scope="commands:read", query=OutputQuery, media_type="text/plain", answer_example="hello\n",
              others={416: "`offset` is beyond the end"})  # fmt: skip
def output(call: Call) -> Reply:
    q: OutputQuery = call.query
    part = call.app.read_output(call.path["id"], q.stream, q.offset, q.limit, call.caller)
    headers = {
        "content-length": str(part.length),
        "rdev-output-size": str(part.size),
        "x-content-type-options": "nosniff",
    }
    return Reply(part.pieces, 200, headers, "text/plain; charset=utf-8")


handle = function.target()
