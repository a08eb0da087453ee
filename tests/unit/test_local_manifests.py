"""The YAML that the laptop reads, which is the cluster's."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.local import manifests
from infra.local.manifests import Destination, ManifestError, SecretKey, parse_duration

ROOT = Path(__file__).resolve().parents[2]

FUNCTION = """\
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: hello
  annotations:
    rdev.orchard9.ai/path-prefixes: "/v1/hello, /hi"
    rdev.orchard9.ai/local-path-prefixes: /local
spec:
  template:
    metadata:
      annotations:
        autoscaling.knative.dev/min-scale: "1"
        autoscaling.knative.dev/max-scale: "3"
        autoscaling.knative.dev/target: "20"
    spec:
      containerConcurrency: 40
      timeoutSeconds: 90
      responseStartTimeoutSeconds: 30
      containers:
        - command: [python, -m]
          args: [hello]
          env:
            - {name: FUNCTION_SOURCE, value: /app/functions/hello/main.py}
            - name: RDEV_DATABASE_URL
              valueFrom: {secretKeyRef: {name: rdev-database, key: url, optional: true}}
          readinessProbe: {httpGet: {path: /health/readiness}}
"""

TRIGGER = """\
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: t}
spec:
  broker: default
  filter: {attributes: {type: a}}
  subscriber:
    ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: hello}
    uri: /events
  delivery:
    retry: 5
    backoffPolicy: exponential
    backoffDelay: PT0.2S
    timeout: PT1M
    retryAfterMax: PT10S
    deadLetterSink: {uri: "http://127.0.0.1:1/dead"}
"""

BROKER = """\
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: default}
spec:
  delivery: {retry: 2, backoffPolicy: linear, backoffDelay: PT1S}
"""

PING = """\
apiVersion: sources.knative.dev/v1
kind: PingSource
metadata: {name: tick}
spec:
  schedule: "* * * * *"
  contentType: application/json
  data: "{}"
  ceOverrides: {extensions: {extra: x}}
  sink: {ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: hello}}
"""


def write(base: Path, **files: str) -> Path:
    """Lay out a folder like infra/base; `functions_a` becomes functions/a.yaml."""
    for name, text in {"functions_hello": FUNCTION, **files}.items():
        path = base / f"{name.replace('_', '/', 1)}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return base


def test_a_service_is_read_with_its_scale_limits_and_environment(tmp_path: Path) -> None:
    """Everything that decides how a function runs comes from its Service."""
    spec = manifests.load(write(tmp_path)).functions["hello"]
    assert spec.command == ("python", "-m", "hello")
    assert spec.path_prefixes == ("/v1/hello", "/hi", "/local")
    assert (spec.min_scale, spec.max_scale, spec.target, spec.concurrency) == (1, 3, 20.0, 40)
    assert (spec.timeout_s, spec.response_start_timeout_s, spec.idle_timeout_s) == (90, 30, None)
    assert spec.readiness_path == "/health/readiness"
    assert spec.env["RDEV_DATABASE_URL"] == SecretKey("rdev-database", "url", optional=True)


def test_without_a_target_seventy_percent_of_the_concurrency_is_the_target(tmp_path: Path) -> None:
    """Knative aims at 70 % of containerConcurrency unless told otherwise."""
    text = FUNCTION.replace('        autoscaling.knative.dev/target: "20"\n', "")
    spec = manifests.load(write(tmp_path, functions_hello=text)).functions["hello"]
    assert spec.target == pytest.approx(28)


def test_a_trigger_keeps_its_own_delivery_block(tmp_path: Path) -> None:
    """A Trigger's block replaces the Broker's, whole."""
    found = manifests.load(write(tmp_path, triggers_t=TRIGGER, broker=BROKER))
    (trigger,) = found.triggers
    assert trigger.subscriber == Destination("hello", "/events")
    assert trigger.delivery.retry == 5
    assert (trigger.delivery.backoff_s, trigger.delivery.timeout_s) == (0.2, 60)
    assert trigger.delivery.retry_after_max_s == 10
    assert trigger.delivery.dead_letter == Destination(uri="http://127.0.0.1:1/dead")


def test_a_trigger_without_a_block_uses_the_brokers(tmp_path: Path) -> None:
    """The Broker's delivery is the default."""
    text = TRIGGER[: TRIGGER.index("  delivery:")]
    found = manifests.load(write(tmp_path, triggers_t=text, broker=BROKER))
    assert found.triggers[0].delivery.retry == 2
    assert found.triggers[0].delivery.backoff_policy == "linear"


def test_filters_win_over_filter(tmp_path: Path) -> None:
    """Where both are given, `filters` decides."""
    text = TRIGGER.replace("  filter:", "  filters: [{prefix: {type: b}}]\n  filter:")
    found = manifests.load(write(tmp_path, triggers_t=text))
    assert found.triggers[0].filter({"type": "bc"})
    assert not found.triggers[0].filter({"type": "a"})


def test_a_ping_source_keeps_its_sink_data_and_overrides(tmp_path: Path) -> None:
    """Only the schedule of a PingSource is ours."""
    (source,) = manifests.load(write(tmp_path, sources_tick=PING)).sources
    assert source.sink == Destination("hello")
    assert (source.data, source.content_type) == (b"{}", "application/json")
    assert source.extensions == {"extra": "x"}
    assert source.source == "/apis/v1/namespaces/rdev/pingsources/tick"


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"functions_hello": "a: [", "x": ""}, "not YAML"),
        ({"functions_hello": FUNCTION.replace("name: hello", "nam: hello", 1)}, "KeyError"),
        ({"functions_hello": FUNCTION.replace("/v1\n", "/v2\n", 1)}, "apiVersion"),
        ({"functions_hello": "kind: ConfigMap"}, "no Knative Service"),
        ({"functions_two": FUNCTION.replace("name: hello", "name: two", 1)}, "belongs to"),
        ({"triggers_t": TRIGGER.replace("name: hello", "name: gone")}, "there is no function"),
        ({"triggers_t": TRIGGER.replace("kind: Service", "kind: Broker")}, "only a Service"),
        ({"triggers_t": TRIGGER.replace("exponential", "random")}, "neither exponential"),
        ({"triggers_t": TRIGGER.replace("    backoffDelay: PT0.2S\n", "")}, "without any delay"),
        ({"triggers_t": TRIGGER.replace("PT0.2S", "200ms")}, "ISO 8601"),
        ({"triggers_t": TRIGGER.replace("filter:", "filters: [{cesql: x}]\n  f:")}, "cesql"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(
    tmp_path: Path, files: dict[str, str], complaint: str
) -> None:
    """A manifest that would behave otherwise than in a cluster stops the start and says where."""
    with pytest.raises(ManifestError, match=complaint):
        manifests.load(write(tmp_path, **files))


@pytest.mark.parametrize(
    ("text", "seconds"), [("PT1S", 1), ("PT0.2S", 0.2), ("PT1M30S", 90), ("P1DT2H", 93600)]
)
def test_durations_are_iso_8601(text: str, seconds: float) -> None:
    """Delivery blocks write times as ISO 8601 durations."""
    assert parse_duration(text) == seconds


def test_the_projects_own_manifests_can_be_followed() -> None:
    """What infra/base holds runs on the laptop."""
    found = manifests.load(ROOT / "infra" / "base")
    assert "on-command-queued" in found.functions
    assert found.sources
