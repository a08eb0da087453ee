"""The queue as a whole: depth, oldest age and running by project and priority; pause and resume."""

from __future__ import annotations

from common.domain.resources import queue_resource
from common.entrypoints import examples
from common.entrypoints.call import Call, Reply
from common.entrypoints.function import Function, Scale

function = Function(
    name="queue",
    summary="What waits and runs where; pause and resume a project",
    prefixes=("/v1/queue",),
    scale=Scale(maximum=1),  # used by few; connections are for those who work
)
READ = ("projects:read", "queue:admin")


@function.get("/v1/queue", summary="Every project's queue", scope=READ, answer="QueuePage",
              answer_example=examples.page_of(examples.QUEUE))  # fmt: skip
def listed(call: Call) -> Reply:
    found = call.app.oversee.queues(call.caller)
    return Reply({"items": [queue_resource(q) for q in found], "next_cursor": None})


@function.get("/v1/queue/{project}", summary="One project's queue", scope=READ, answer="Queue",
              answer_example=examples.QUEUE)  # fmt: skip
def show(call: Call) -> Reply:
    return Reply(queue_resource(call.app.oversee.queue(call.path["project"], call.caller)))


@function.post("/v1/queue/{project}/pause", summary="Start nothing more there; what runs goes on",
               scope="queue:admin", answer="Queue", answer_example=examples.QUEUE | {"paused_at": "2026-01-01T00:00:00.000Z"})  # fmt: skip
def pause(call: Call) -> Reply:
    queue = call.app.oversee.pause(call.path["project"], call.caller, call.origin)
    return Reply(queue_resource(queue))


@function.post("/v1/queue/{project}/resume", summary="Let what waits there start again", scope="queue:admin",
               answer="Queue", answer_example=examples.QUEUE)  # fmt: skip
def resume(call: Call) -> Reply:
    queue = call.app.oversee.resume(call.path["project"], call.caller, call.origin)
    return Reply(queue_resource(queue))


handle = function.target()
