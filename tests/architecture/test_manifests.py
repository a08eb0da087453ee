"""The cluster's YAML: it builds, and no Service lacks the hardening."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from typing import Any

import pytest
import yaml

from common.entrypoints.function import Account
from infra.generation import declared, manifests

ROOT = declared.ROOT
BASE = ROOT / "infra" / "base"
FUNCTIONS = declared.functions()
SERVICES = {
    f.service: yaml.safe_load((BASE / "functions" / f"{f.service}.yaml").read_text())
    for f in FUNCTIONS
}


@cache
def built() -> list[dict[str, Any]]:
    """Everything `kubectl apply -k infra/base` would apply."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("there is no kubectl here (Debian: kubernetes-client)")
    done = subprocess.run([kubectl, "kustomize", BASE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [doc for doc in built() if doc["kind"] == kind]


def test_the_base_builds_and_holds_everything() -> None:
    """One Knative Service per function, a Broker, the triggers, the tick and the migration."""
    assert {doc["metadata"]["name"] for doc in of_kind("Service")} == set(SERVICES)
    assert [doc["metadata"]["name"] for doc in of_kind("Broker")] == ["default"]
    assert {doc["metadata"]["name"] for doc in of_kind("Trigger")} == {
        f.service for f in FUNCTIONS if f.trigger
    }
    assert {doc["metadata"]["name"] for doc in of_kind("PingSource")} == {
        f.service for f in FUNCTIONS if f.schedule
    }


def test_everything_is_in_one_namespace() -> None:
    """Nothing is applied outside of `rdev`, and nothing has rights beyond it."""
    assert {doc["metadata"]["namespace"] for doc in built() if doc["kind"] != "Namespace"} == {
        "rdev"
    }
    assert not [doc for doc in built() if doc["kind"].startswith("Cluster")]


def test_the_migration_is_named_after_the_image() -> None:
    """A Job cannot change, so another version is another Job."""
    (job,) = of_kind("Job")
    tag = job["spec"]["template"]["spec"]["containers"][0]["image"].rsplit(":", 1)[1]
    assert job["metadata"]["name"] == f"rdev-migrate-{tag}"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_hardened(name: str) -> None:
    """No rights it does not need: user, filesystem, capabilities, token, links, name outside."""
    doc = SERVICES[name]
    pod = doc["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert doc["metadata"]["labels"]["networking.knative.dev/visibility"] == "cluster-local"
    assert container["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert pod["enableServiceLinks"] is False
    has_rights = pod["serviceAccountName"] in {Account.RUNNER, Account.WATCHER}
    assert pod["automountServiceAccountToken"] is has_rights
    assert {"cpu", "memory"} == set(container["resources"]["limits"])
    assert {"cpu", "memory"} == set(container["resources"]["requests"])
    (tmp, *more), (scratch, *others) = container["volumeMounts"], pod["volumes"]
    assert (tmp, set(scratch)) == ({"name": "tmp", "mountPath": "/tmp"}, {"name", "emptyDir"})
    assert all(mount["readOnly"] for mount in more)
    # Only the runner starts claude, so only it has the credentials that projects name.
    assert [v["secret"]["secretName"] for v in others] == (
        ["rdev-claude-credentials"] if name == "on-command-queued" else []
    )


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_nothing_that_knative_refuses(name: str) -> None:
    """Fields that are off by default or overwritten are left out, and so is the probes' period."""
    pod = SERVICES[name]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert not {"securityContext", "initContainers", "affinity", "tolerations"} & set(pod)
    assert not {"lifecycle", "ports"} & set(container)
    assert container["readinessProbe"] == {"httpGet": {"path": "/health/readiness"}}
    assert container["livenessProbe"]["httpGet"] == {"path": "/health/liveness"}
    assert not [e for e in container["env"] if e["name"] == "PORT" or e["name"].startswith("K_")]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.name)
def test_a_service_says_what_its_declaration_says(function: Any) -> None:
    """Scale, timeouts, prefixes, account and secrets come from the folder's declaration."""
    doc = SERVICES[function.service]
    scale, template = function.scale, doc["spec"]["template"]
    annotations = template["metadata"]["annotations"]
    assert annotations["autoscaling.knative.dev/max-scale"] == str(scale.maximum)
    assert annotations["autoscaling.knative.dev/min-scale"] == str(scale.minimum)
    assert annotations["autoscaling.knative.dev/target"] == str(scale.target)
    assert template["spec"]["timeoutSeconds"] == scale.timeout_s
    assert template["spec"]["containerConcurrency"] == scale.concurrency
    own = doc["metadata"].get("annotations", {})
    prefixes = own.get("rdev.orchard9.ai/path-prefixes", "")
    assert tuple(p for p in prefixes.split(",") if p) == function.prefixes
    env = {e["name"]: e for e in template["spec"]["containers"][0]["env"]}
    assert env["FUNCTION_SOURCE"]["value"] == f"/app/functions/{function.name}/main.py"
    assert env["FUNCTION_TARGET"]["value"] == "handle"
    assert ("RDEV_SECRET_KEYS" in env) is function.secret_keys
    assert env["RDEV_DATABASE_LISTEN_URL"]["valueFrom"]["secretKeyRef"]["optional"] is True


def test_every_delivery_block_is_whole_and_the_same() -> None:
    """The in-memory broker does not merge them, and a dead letter never returns to the broker."""
    (broker,) = of_kind("Broker")
    for trigger in of_kind("Trigger"):
        assert trigger["spec"]["delivery"] == broker["spec"]["delivery"]
        assert trigger["spec"]["filter"]["attributes"]
    assert set(broker["spec"]["delivery"]) == {
        "retry",
        "backoffPolicy",
        "backoffDelay",
        "timeout",
        "deadLetterSink",
    }
    assert broker["spec"]["delivery"]["deadLetterSink"]["ref"]["name"] == "on-dead-letter"


def test_accounts_have_the_rights_of_their_kind_and_no_more() -> None:
    """The runner gets pods and execs into them, the watcher reads pods and configmaps."""
    rights = {
        doc["metadata"]["name"]: {
            (resource, verb)
            for rule in doc["rules"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }
        for doc in of_kind("Role")
    }
    assert rights == {
        "rdev-runner": {("pods", "get"), ("pods/exec", "get"), ("pods/exec", "create")},
        "rdev-watcher": {
            (resource, verb)
            for resource in ("pods", "configmaps")
            for verb in ("get", "list", "watch")
        },
    }
    assert {doc["metadata"]["name"] for doc in of_kind("ServiceAccount")} == set(map(str, Account))


def test_one_version_everywhere() -> None:
    """The image's tag is the package's version wherever it is written."""
    import tomllib

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    (image,) = yaml.safe_load((BASE / "kustomization.yaml").read_text())["images"]
    assert image["newTag"] == version
    assert yaml.safe_load((ROOT / "func.yaml").read_text())["image"].endswith(f":{version}")
    assert f"IMAGE ?= rdev:{version}\n" in (ROOT / "Makefile").read_text()
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


def test_one_uv_everywhere() -> None:
    """The image and the Makefile build with the same uv."""
    makefile, dockerfile = (ROOT / "Makefile").read_text(), (ROOT / "Dockerfile").read_text()
    (version,) = [
        line.split()[-1] for line in makefile.splitlines() if line.startswith("UV_VERSION :=")
    ]
    assert f"ARG UV_VERSION={version}\n" in dockerfile


def test_the_laptop_can_read_what_the_cluster_gets() -> None:
    """The local runner loads the same folder and finds every function, trigger and source."""
    from infra.local.manifests import load

    found = load(BASE, "kubernetes")
    assert set(found.functions) == set(SERVICES)
    assert set(SERVICES) - set(load(BASE).functions) == {"on-pods-changed"}
    assert len(found.triggers) == len([f for f in FUNCTIONS if f.trigger])
    assert len(found.sources) == len([f for f in FUNCTIONS if f.schedule])


def test_an_empty_folder_of_manifests_builds_too() -> None:
    """A kustomization without resources says so instead of naming none."""
    assert "resources: []" in manifests._kustomization([])
