"""func.yaml against the rules of func's own schema, which refuses keys that it does not know.

Written down from knative/func, schema/func_yaml-schema.json at 023aea15: `specVersion` and
`created` are required, and no object has other keys than these.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import yaml

from infra.generation import declared

FUNC: dict[str, Any] = yaml.load(
    (declared.ROOT / "func.yaml").read_text(),
    Loader=yaml.BaseLoader,  # BaseLoader makes text only
)
KEYS: dict[str, set[str]] = {
    "": {
        "specVersion", "name", "domain", "runtime", "registry", "image", "namespace", "created",
        "invoke", "build", "run", "deploy",
    },
    "run": {"volumes", "envs", "podSecurityContext", "startTimeout"},
    "deploy": {
        "namespace", "image", "annotations", "options", "labels", "healthEndpoints",
        "serviceAccountName", "subscriptions",
    },
    "deploy.healthEndpoints": {"liveness", "readiness"},
    "deploy.options": {"scale", "resources"},
    "deploy.options.scale": {"min", "max", "metric", "target", "utilization"},
    "deploy.options.resources": {"requests", "limits"},
    "deploy.options.resources.requests": {"cpu", "memory"},
    "deploy.options.resources.limits": {"cpu", "memory", "concurrency"},
}  # fmt: skip
QUANTITY = re.compile(r"([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)")


def at(path: str) -> dict[str, Any]:
    value = FUNC
    for part in path.split(".") if path else []:
        value = value[part]
    return value


def test_it_has_no_key_that_func_does_not_know() -> None:
    """Every object of the file has only keys of the schema."""
    for path, known in KEYS.items():
        assert set(at(path)) <= known, path


def test_it_has_what_func_requires() -> None:
    """Version and time of creation are there and readable, names and words are of func's kinds."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", FUNC["specVersion"])
    assert datetime.fromisoformat(FUNC["created"]).tzinfo is not None
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", FUNC["name"])
    assert FUNC["runtime"] == "python"
    assert FUNC["invoke"] in {"http", "cloudevent"}
    assert at("deploy.options.scale")["metric"] in {"concurrency", "rps"}


def test_its_lists_and_quantities_are_func_s() -> None:
    """A variable has a name or is a whole ConfigMap, labels have keys, amounts have units."""
    for env in at("run")["envs"]:
        assert set(env) <= {"name", "value"}
        assert "name" in env or re.fullmatch(r"{{ (configMap|secret):[\w-]+ }}", env["value"])
    assert all(
        "key" in label and set(label) <= {"key", "value"} for label in at("deploy")["labels"]
    )
    for kind in ("requests", "limits"):
        amounts = at("deploy.options.resources")[kind]
        assert all(QUANTITY.fullmatch(amount) for amount in amounts.values())


def test_it_says_the_same_as_the_declaration() -> None:
    """Name, prefix, scale, account and health paths are those of functions/commands."""
    (function,) = [f for f in declared.functions() if f.name == "commands"]
    env = {e.get("name"): e["value"] for e in at("run")["envs"]}
    assert FUNC["name"] == function.service
    assert env["FUNCTION_SOURCE"] == f"/app/functions/{function.name}/main.py"
    assert at("deploy")["serviceAccountName"] == function.account
    scale = at("deploy.options.scale")
    assert (int(scale["min"]), int(scale["max"])) == (
        function.scale.minimum,
        function.scale.maximum,
    )
    assert int(at("deploy.options.resources.limits")["concurrency"]) == function.scale.concurrency
