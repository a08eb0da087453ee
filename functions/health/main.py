"""Health: liveness of the API, readiness of the whole system, and metrics."""

from __future__ import annotations

from common.domain.errors import Unavailable
from common.entrypoints.call import Call, Reply
from common.entrypoints.function import Function
from common.entrypoints.problem import body_of, headers_of

function = Function(
    name="health",
    summary="Liveness, readiness of the whole system, metrics",
    prefixes=("/health", "/ready"),
    local_prefixes=("/metrics",),
)


@function.get(
    "/health", summary="The API answers", answer="Alive", answer_example={"status": "alive"}
)
def alive(_call: Call) -> Reply:
    return Reply({"status": "alive"})


@function.get("/ready", summary="Everything configured works, or 503 with the check that does not",
              answer="Ready", answer_example={"status": "ready", "checks": {"database": {"status": "ok"}}})  # fmt: skip
def ready(call: Call) -> Reply:
    well, checks = call.app.health.ready()
    if not well:
        broken = [
            f"{n}: {c.get('detail') or c['status']}"
            for n, c in checks.items()
            if c["status"] != "ok"
        ]
        error = Unavailable("; ".join(broken))
        problem = body_of(error, call.origin.request_id) | {"checks": checks}
        return Reply(problem, 503, headers_of(error), "application/problem+json")
    return Reply({"status": "ready", "checks": checks})


@function.get("/metrics", summary="Gauges of commands, queue and outbox as Prometheus text",
              media_type="text/plain", answer_example='rdev_queue_depth{priority="normal"} 0\n')  # fmt: skip
def metrics(call: Call) -> Reply:
    return Reply(call.app.health.metrics().encode(), media_type="text/plain; version=0.0.4")


handle = function.target()
