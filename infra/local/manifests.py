"""Reads the cluster's YAML: functions, triggers, sources and the broker's default delivery.

Only what the laptop acts on is read. What it would silently treat otherwise than Knative does (an
unknown filter dialect, a backoff without a delay) is refused with the file's name.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from infra.local.filters import Filter, parse_attributes, parse_filters

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SCALE = "autoscaling.knative.dev"
_PREFIXES = "rdev.orchard9.ai/path-prefixes"
_LOCAL_PREFIXES = "rdev.orchard9.ai/local-path-prefixes"
_WORKSPACES = "rdev.orchard9.ai/workspaces"

DEFAULT_TARGET = 100.0  # container-concurrency-target-default of Knative's config-autoscaler
DEFAULT_TIMEOUT_S = 300.0  # revision-timeout-seconds of Knative's config-defaults
_TARGET_UTILISATION = 0.7  # container-concurrency-target-percentage, for functions without target


class ManifestError(Exception):
    """A manifest that cannot be followed; the message names the file."""


@dataclass(frozen=True)
class SecretKey:
    """Where the value of an environment variable comes from."""

    secret: str
    key: str
    optional: bool = False


@dataclass(frozen=True)
class FunctionSpec:
    """One Knative Service."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str | SecretKey] = field(default_factory=dict)
    path_prefixes: tuple[str, ...] = ()
    min_scale: int = 0
    max_scale: int = 0  # 0: no limit
    target: float = DEFAULT_TARGET  # concurrent requests that one instance should have
    concurrency: int = 0  # concurrent requests that one instance may have; 0: no limit
    timeout_s: float = DEFAULT_TIMEOUT_S  # of the whole request
    response_start_timeout_s: float | None = None
    idle_timeout_s: float | None = None  # between two bytes of an answer
    readiness_path: str | None = None  # None: it is ready when its port accepts connections


@dataclass(frozen=True)
class Destination:
    """Where an event goes: a function's cluster-local address, or any URL."""

    service: str | None = None
    uri: str = ""

    def __str__(self) -> str:
        return (
            f"http://{self.service}.rdev.svc.cluster.local{self.uri}" if self.service else self.uri
        )


@dataclass(frozen=True)
class DeliverySpec:
    """What a broker does with an event that its subscriber did not take (times in seconds)."""

    retry: int = 0
    backoff_policy: str | None = None  # "exponential" or "linear"
    backoff_s: float = 0.0
    timeout_s: float | None = None
    retry_after_max_s: float | None = None
    dead_letter: Destination | None = None


@dataclass(frozen=True)
class TriggerSpec:
    name: str
    subscriber: Destination
    filter: Filter
    delivery: DeliverySpec


@dataclass(frozen=True)
class PingSpec:
    """A PingSource. Its schedule is replaced by the laptop's tick setting."""

    name: str
    sink: Destination
    data: bytes = b""
    content_type: str | None = None
    extensions: Mapping[str, str] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """The event source that Knative's PingSource adapter sets."""
        return f"/apis/v1/namespaces/rdev/pingsources/{self.name}"


@dataclass(frozen=True)
class Manifests:
    functions: Mapping[str, FunctionSpec]
    triggers: tuple[TriggerSpec, ...] = ()
    sources: tuple[PingSpec, ...] = ()


def load(base: Path, workspaces: str = "local") -> Manifests:
    """Read functions/, triggers/, sources/ and broker.yaml of a folder like `infra/base`.

    A function that is for another kind of workspace is not there.
    """
    functions = {
        spec.name: spec
        for doc in _documents(base / "functions", "serving.knative.dev/v1", "Service")
        if _annotations(doc.content).get(_WORKSPACES, workspaces) == workspaces
        for spec in [doc.read(_function)]
    }
    if not functions:
        raise ManifestError(f"there is no Knative Service in {base / 'functions'}")
    default = _broker_delivery(base / "broker.yaml")
    triggers = tuple(
        doc.read(lambda found: _trigger(found, default))
        for doc in _documents(base / "triggers", "eventing.knative.dev/v1", "Trigger")
    )
    sources = tuple(
        doc.read(_ping)
        for doc in _documents(base / "sources", "sources.knative.dev/v1", "PingSource")
    )
    manifests = Manifests(functions, triggers, sources)
    _check_references(manifests)
    return manifests


_Read = TypeVar("_Read")


class _Document:
    """One YAML document and where it came from."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path = path
        self.content = content

    def read(self, reader: Callable[[dict[str, Any]], _Read]) -> _Read:
        """Apply `reader`; say which file it was when the content is not as expected."""
        try:
            return reader(self.content)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise ManifestError(f"{self.path}: {type(error).__name__}: {error}") from error


def _documents(place: Path, api_version: str, kind: str) -> Iterator[_Document]:
    """Yield the documents of one kind in a folder, in the order of its files' names."""
    for path in sorted(place.glob("*.yaml")) if place.is_dir() else [place]:
        if not path.exists():
            continue
        try:
            found = list(yaml.load_all(path.read_text(), Loader=_LOADER))
        except yaml.YAMLError as error:
            raise ManifestError(f"{path}: not YAML: {error}") from error
        for content in found:
            if isinstance(content, dict) and content.get("kind") == kind:
                if content.get("apiVersion") != api_version:
                    raise ManifestError(f"{path}: {kind} must have apiVersion {api_version}")
                yield _Document(path, content)


def _function(doc: dict[str, Any]) -> FunctionSpec:
    template = doc["spec"]["template"]
    pod = template["spec"]
    annotations = {**_annotations(doc), **_annotations(template)}
    container = pod["containers"][0]
    concurrency = int(pod.get("containerConcurrency", 0))
    target = annotations.get(f"{_SCALE}/target")
    default_target = concurrency * _TARGET_UTILISATION or DEFAULT_TARGET
    return FunctionSpec(
        name=doc["metadata"]["name"],
        command=(*container.get("command", ()), *container.get("args", ())),
        env={item["name"]: _env_value(item) for item in container.get("env", [])},
        path_prefixes=(*_words(annotations, _PREFIXES), *_words(annotations, _LOCAL_PREFIXES)),
        min_scale=int(annotations.get(f"{_SCALE}/min-scale", 0)),
        max_scale=int(annotations.get(f"{_SCALE}/max-scale", 0)),
        target=float(target) if target else default_target,
        concurrency=concurrency,
        timeout_s=float(pod.get("timeoutSeconds", DEFAULT_TIMEOUT_S)),
        response_start_timeout_s=_seconds_or_none(pod.get("responseStartTimeoutSeconds")),
        idle_timeout_s=_seconds_or_none(pod.get("idleTimeoutSeconds")),
        readiness_path=container.get("readinessProbe", {}).get("httpGet", {}).get("path"),
    )


def _annotations(doc: dict[str, Any]) -> dict[str, str]:
    return doc.get("metadata", {}).get("annotations") or {}


def _words(annotations: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[,\s]+", annotations.get(name, "")) if word)


def _env_value(item: dict[str, Any]) -> str | SecretKey:
    if "valueFrom" not in item:
        return str(item.get("value", ""))
    reference = item["valueFrom"]["secretKeyRef"]
    return SecretKey(reference["name"], reference["key"], bool(reference.get("optional")))


def _seconds_or_none(value: object) -> float | None:
    return float(str(value)) if value else None


def _trigger(doc: dict[str, Any], default: DeliverySpec) -> TriggerSpec:
    spec = doc["spec"]
    # `filters` wins over `filter` where both are given, and an empty list counts as absent.
    chosen = parse_filters(spec["filters"]) if spec.get("filters") else None
    if chosen is None:
        chosen = parse_attributes((spec.get("filter") or {}).get("attributes") or {})
    # The in-memory broker does not merge: a Trigger's own block replaces the broker's.
    delivery = _delivery(spec["delivery"]) if spec.get("delivery") else default
    return TriggerSpec(doc["metadata"]["name"], _destination(spec["subscriber"]), chosen, delivery)


def _ping(doc: dict[str, Any]) -> PingSpec:
    spec = doc["spec"]
    overrides = spec.get("ceOverrides", {}).get("extensions", {})
    return PingSpec(
        name=doc["metadata"]["name"],
        sink=_destination(spec["sink"]),
        data=str(spec.get("data", "")).encode(),
        content_type=spec.get("contentType"),
        extensions={str(name): str(value) for name, value in overrides.items()},
    )


def _broker_delivery(path: Path) -> DeliverySpec:
    """Return the delivery block of the Broker, which its Triggers without one use."""
    for doc in _documents(path, "eventing.knative.dev/v1", "Broker"):
        return doc.read(lambda found: _delivery(found["spec"].get("delivery") or {}))
    return DeliverySpec()


def _delivery(block: dict[str, Any]) -> DeliverySpec:
    policy = block.get("backoffPolicy")
    if policy not in {None, "exponential", "linear"}:
        raise ValueError(f"backoffPolicy {policy!r} is neither exponential nor linear")
    if block.get("retry") and (policy is None or "backoffDelay" not in block):
        raise ValueError("retry without backoffPolicy and backoffDelay retries without any delay")
    sink = block.get("deadLetterSink")
    return DeliverySpec(
        retry=int(block.get("retry", 0)),
        backoff_policy=policy,
        backoff_s=parse_duration(block["backoffDelay"]) if "backoffDelay" in block else 0.0,
        timeout_s=parse_duration(block["timeout"]) if "timeout" in block else None,
        retry_after_max_s=(
            parse_duration(block["retryAfterMax"]) if "retryAfterMax" in block else None
        ),
        dead_letter=_destination(sink) if sink else None,
    )


def _destination(block: dict[str, Any]) -> Destination:
    reference = block.get("ref")
    if reference is None:
        return Destination(uri=block["uri"])
    if reference["kind"] != "Service":
        raise ValueError(f"only a Service can be a sink here, not a {reference['kind']}")
    return Destination(reference["name"], block.get("uri", ""))


_DURATION = re.compile(
    r"P(?:(?P<days>[\d.]+)D)?(?:T(?:(?P<hours>[\d.]+)H)?(?:(?P<minutes>[\d.]+)M)?"
    r"(?:(?P<seconds>[\d.]+)S)?)?"
)
_UNITS = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}


def parse_duration(text: str) -> float:
    """Turn an ISO 8601 duration such as `PT0.2S` into seconds."""
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is not an ISO 8601 duration such as PT0.2S")
    return sum(float(match[unit] or 0) * seconds for unit, seconds in _UNITS.items())


def _check_references(manifests: Manifests) -> None:
    """Refuse events for functions that do not exist, and path prefixes that two functions claim."""
    sinks = [(f"trigger {trigger.name}", trigger.subscriber) for trigger in manifests.triggers]
    sinks += [
        (f"trigger {trigger.name}", trigger.delivery.dead_letter)
        for trigger in manifests.triggers
        if trigger.delivery.dead_letter is not None
    ]
    sinks += [(f"source {source.name}", source.sink) for source in manifests.sources]
    for owner, sink in sinks:
        if sink.service is not None and sink.service not in manifests.functions:
            raise ManifestError(f"{owner}: there is no function {sink.service}")
    claimed: dict[str, str] = {}
    for function in manifests.functions.values():
        for prefix in function.path_prefixes:
            if prefix in claimed:
                raise ManifestError(f"{prefix} belongs to {claimed[prefix]} and {function.name}")
            claimed[prefix] = function.name
