"""What was used: commands, seconds, cost and tokens by project, key, model and day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from common.domain import identifiers
from common.domain.oversight import UsageFilter
from common.domain.resources import usage_resource
from common.entrypoints import examples
from common.entrypoints.call import Call, Reply
from common.entrypoints.function import Function, Scale
from common.entrypoints.models.usage import UsageQuery

function = Function(
    name="usage",
    summary="Commands, seconds, cost and tokens by project, key, model and day",
    prefixes=("/v1/usage",),
    scale=Scale(maximum=1),  # asked by few; connections are for those who work
)
LOOK_BACK = timedelta(days=30)


@function.get("/v1/usage", summary="Sums over ended commands; the last 30 days unless told otherwise",
              scope="usage:read", query=UsageQuery, answer="UsagePage",
              answer_example=examples.page_of(examples.USAGE))  # fmt: skip
def summed(call: Call) -> Reply:
    q: UsageQuery = call.query
    until = q.until or datetime.now(UTC)
    wanted = UsageFilter(
        since=q.since or until - LOOK_BACK,
        until=until,
        by=frozenset(q.by) or frozenset({"project", "day"}),
        projects=frozenset(q.project) if q.project else None,
        key_id=identifiers.parse(identifiers.KEY, q.key) if q.key else None,
        model=q.model,
    )
    found = call.app.oversee.usage(wanted, call.caller)
    return Reply({"items": [usage_resource(u) for u in found], "next_cursor": None})


handle = function.target()
