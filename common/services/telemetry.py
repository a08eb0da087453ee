"""Every span, metric and log name rdev uses, in one module, through the OpenTelemetry API only.

Without an exporter configured the API's no-op objects answer, which costs next to nothing; the SDK
is set up by `adapters/telemetry` when `OTEL_*` asks for it. Nothing here ever carries a prompt, an
environment value, a key or output.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"

_tracer = trace.get_tracer("rdev", schema_url=SCHEMA_URL)
_meter = metrics.get_meter("rdev", schema_url=SCHEMA_URL)
_w3c = TraceContextTextMapPropagator()

request_duration = _meter.create_histogram("http.server.request.duration", "s")
submitted = _meter.create_counter("rdev.command.submitted")
finished = _meter.create_counter("rdev.command.finished")
queue_wait = _meter.create_histogram("rdev.command.queue_wait", "s")
start_latency = _meter.create_histogram("rdev.command.start_latency", "s")
command_duration = _meter.create_histogram("rdev.command.duration", "s")
output_bytes = _meter.create_counter("rdev.output.bytes", "By")
output_chunks = _meter.create_counter("rdev.output.chunks")
output_truncated = _meter.create_counter("rdev.output.truncated")
stream_opened = _meter.create_counter("rdev.stream.opened")
stream_closed = _meter.create_counter("rdev.stream.closed")
stream_active = _meter.create_up_down_counter("rdev.stream.active")
stream_resume_gap = _meter.create_counter("rdev.stream.resume_gap")
stream_resume_replayed = _meter.create_counter("rdev.stream.resume_replayed")
tick_rescued = _meter.create_counter("rdev.tick.rescued")
webhook_attempts = _meter.create_counter("rdev.webhook.attempts")
event_dead = _meter.create_counter("rdev.event.dead")
event_refused = _meter.create_counter("rdev.event.refused")
lease_fenced = _meter.create_counter("rdev.lease.fenced")
ratelimit_rejected = _meter.create_counter("rdev.ratelimit.rejected")
auth_denied = _meter.create_counter("rdev.auth.denied")
exec_reattach = _meter.create_counter("rdev.exec.reattach")
discovery_written = _meter.create_histogram("rdev.discovery.written", "s")
breaker_opened = _meter.create_counter("rdev.breaker.opened")
pg_discarded = _meter.create_counter("rdev.pg.discarded")
invariant_violation = _meter.create_counter("rdev.invariant.violation")


def logger(name: str) -> Any:
    """A structured logger; messages are constants, everything that varies is a field."""
    return structlog.get_logger(name)


def parent_of(traceparent: str | None) -> Context | None:
    """The context behind a W3C traceparent, for spans that continue it."""
    return _w3c.extract({"traceparent": traceparent}) if traceparent else None


def traceparent() -> str | None:
    """The current span as a W3C traceparent; None when nothing is traced."""
    carrier: dict[str, str] = {}
    _w3c.inject(carrier)
    return carrier.get("traceparent")


@contextmanager
def span(
    name: str, kind: SpanKind = SpanKind.INTERNAL, *, parent: str | None = None, **attributes: Any
) -> Iterator[Span]:
    """A span; keyword names use `__` for the dots of attribute names."""
    named = {name_.replace("__", "."): value for name_, value in attributes.items()}
    with _tracer.start_as_current_span(
        name, context=parent_of(parent), kind=kind, attributes=named
    ) as current:
        yield current


@dataclass
class Seen:
    """What became of a request."""

    status: int = 500
    span: Span | None = None

    def failed(self, error: BaseException) -> None:
        """Log an unexpected error with its stack, for us; the caller sees none of it."""
        logger("rdev.http").error("request failed", exc_info=error)
        if self.span is not None:
            self.span.record_exception(error)
            self.span.set_status(StatusCode.ERROR)


@contextmanager
def request(
    service: str, method: str, route: Any, headers: Mapping[str, str], request_id: str
) -> Iterator[Seen]:
    """Span, duration metric and one log line around a request."""
    path = route.path if route is not None else "unmatched"
    began = time.monotonic()
    with span(
        f"{method} {path}",
        SpanKind.SERVER,
        parent=headers.get("traceparent"),
        http__request__method=method,
        http__route=path,
        faas__name=service,
    ) as current:
        ids = {"request_id": request_id}
        context = current.get_span_context()
        if context.is_valid:
            ids |= {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
        with structlog.contextvars.bound_contextvars(**ids):
            seen = Seen(span=current)
            try:
                yield seen
            finally:
                _account(seen, method, path, time.monotonic() - began, current)


def _account(seen: Seen, method: str, path: str, seconds: float, current: Span) -> None:
    current.set_attribute("http.response.status_code", seen.status)
    request_duration.record(
        seconds,
        {
            "http.request.method": method,
            "http.route": path,
            "http.response.status_code": seen.status,
        },
    )
    logger("rdev.http").info(
        "request", method=method, route=path, status=seen.status, dur_ms=round(seconds * 1000, 2)
    )
