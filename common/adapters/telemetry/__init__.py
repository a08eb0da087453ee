"""Logs as JSON lines on stderr, and OpenTelemetry exporters when `OTEL_*` asks for them.

The SDK and its exporters are imported only then, so telemetry that is off costs nothing.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import structlog
from structlog.tracebacks import ExceptionDictTransformer

from common.domain.redaction import Redactor


def start(service: str, log_level: str, redact: Redactor | None = None) -> None:
    """Configure this process; call once, after any fork. Lines go out without secrets."""
    redact = redact or Redactor()
    to_json = structlog.processors.JSONRenderer()

    def rendered(logger: Any, name: str, event: structlog.typing.EventDict) -> str:
        return redact(str(to_json(logger, name, event)))

    level = logging.getLevelNamesMapping().get(log_level.upper(), logging.INFO)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            # Frames without locals: those hold keys, environment values and prompts.
            structlog.processors.ExceptionRenderer(
                ExceptionDictTransformer(show_locals=False, max_frames=20)
            ),
            structlog.processors.EventRenamer("msg"),
            rendered,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(
        service=service, revision=os.environ.get("K_REVISION", "local")
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    for handler in logging.getLogger().handlers:  # what libraries say, uvicorn for one
        handler.setFormatter(_Redacted(redact))
    if wanted():
        _export(service)


class _Redacted(logging.Formatter):
    """Level, name and message of a line of somebody else's, with its traceback."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__(logging.BASIC_FORMAT)
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        return self._redact(super().format(record))


def wanted() -> bool:
    """Whether the environment asks for an exporter."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    names = (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    )
    return any(os.environ.get(name) for name in names)


def _export(service: str) -> None:
    from opentelemetry import metrics, trace
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # A process that scales to zero cannot be scraped: it pushes deltas under its own instance id.
    os.environ.setdefault("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
    resource = Resource.create({"service.namespace": "rdev", "service.name": service})
    spans = TracerProvider(resource=resource)
    spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(spans)
    reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    metrics.set_meter_provider(MeterProvider([reader], resource=resource))
