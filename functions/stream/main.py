"""Streams: the events of a command, or of a project's commands, as they happen (SSE)."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Annotated
from uuid import UUID

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import ASGIApp

from common.bootstrap import App
from common.domain import identifiers
from common.domain.keys import ApiKey
from common.domain.sse import MAX_CURSOR_CHARS
from common.entrypoints.call import Call
from common.entrypoints.function import Function, Scale
from common.entrypoints.models.base import Query
from common.entrypoints.sse import Limits, Streams
from common.services.tailing import Ended

function = Function(
    name="stream",
    summary="Server-sent events of commands and projects: replay after an id, then live",
    prefixes=("/v1/streams",),
    scale=Scale(
        maximum=10,
        target=500,
        concurrency=0,
        timeout_s=600,
        response_start_s=30,
        burst_capacity=0,
    ),
)

COMMAND_EXAMPLE = 'id: 7\nevent: output\ndata: {"seq":7,"stream":"merged","offset":0,"text":"hello\\n","at":"2026-01-01T00:00:00.000Z"}\n\n'
PROJECT_EXAMPLE = 'id: AQBvJ3…\nevent: state\ndata: {"command_id":"cmd_0190f3c2a4b87c0e9a5d1f2e3c4b5a69","seq":1,"state":"queued","at":"2026-01-01T00:00:00.000Z"}\n\n'


class After(Query):
    """`after`: like Last-Event-ID, for who cannot set it; the header wins."""

    after: Annotated[str, Field(max_length=MAX_CURSOR_CHARS)] | None = None


class AfterInProject(After):
    output: bool = False


@cache
def streams(app: App) -> Streams:
    """The open streams of this process."""

    def may_still_read(key_id: UUID) -> bool:
        key = app.keys.get(key_id)
        return key is not None and _is_valid(key, datetime.now(UTC))

    limits = Limits(max_age_s=app.settings.stream_max_age_s, per_key=app.settings.streams_per_key)
    return Streams(app.draining, may_still_read, limits)


def _is_valid(key: ApiKey, now: datetime) -> bool:
    return all(end is None or end > now for end in (key.revoked_at, key.expires_at))


def _last_event_id(call: Call) -> str | None:
    after: str | None = call.headers.get("last-event-id") or call.query.after
    return after


@function.stream("/v1/streams/commands/{id}", summary="Events of a command; 204 after its end",
                 scope="commands:read", query=After, answer_example=COMMAND_EXAMPLE,
                 others={204: "It has ended, and everything was sent before"})  # fmt: skip
async def command(call: Call) -> ASGIApp:
    open_streams = streams(call.app)
    open_streams.admit(call.caller)
    command_id = identifiers.parse(identifiers.COMMAND, call.path["id"])
    try:
        subscription = await call.app.tailer.follow(command_id, call.caller, _last_event_id(call))
    except Ended:
        return Response(status_code=204, headers={"cache-control": "no-store"})
    return open_streams.open(subscription, call.caller)


@function.stream("/v1/streams/projects/{project}", summary="State changes of a project's commands; `output=1` their output too",
                 scope="commands:read", query=AfterInProject, answer_example=PROJECT_EXAMPLE)  # fmt: skip
async def project(call: Call) -> ASGIApp:
    open_streams = streams(call.app)
    open_streams.admit(call.caller)
    found = await run_in_threadpool(call.app.read_projects.one, call.path["project"], call.caller)
    subscription = await call.app.tailer.follow_project(
        found.name, _last_event_id(call), output=call.query.output
    )
    return open_streams.open(subscription, call.caller)


@function.on_shutdown
async def stop(app: App) -> None:
    """Streams tell their clients to reconnect; then nobody is left to read for."""
    await streams(app).ended()
    await app.tailer.close()


handle = function.target()
