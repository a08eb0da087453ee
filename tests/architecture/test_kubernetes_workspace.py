"""infra/workspace and what rings for it; tests/security/test_kubernetes.py attacks both."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import yaml

from common.adapters.kubernetes.pods import to_pod
from common.domain.discovery import merge
from common.settings import Settings
from infra.generation.declared import functions
from tests.harness.kubernetes_yaml import (
    BASE,
    ROOT,
    WORKSPACE,
    can,
    documents,
    pod_spec,
    stateful_set,
)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="SKIPPED LOUDLY: no kubectl here")
def test_the_example_builds() -> None:
    """kubectl makes it out of the folder, with the registry's image."""
    built = subprocess.run(
        ["kubectl", "kustomize", str(WORKSPACE)], capture_output=True, check=True, text=True
    ).stdout
    docs = list(yaml.safe_load_all(built))
    assert {doc["metadata"]["namespace"] for doc in docs} == {"rdev"}
    assert "image: ghcr.io/orchard9/rdev-workspace:" in built


def test_rdev_finds_the_example() -> None:
    """Its pod is the project `demo` with its work tree, and there is nothing to complain about."""
    template = stateful_set()["spec"]["template"]
    (box,) = template["spec"]["containers"]
    status = {
        "phase": "Running",
        "containerStatuses": [{"name": box["name"], "ready": True, "state": {"running": {}}}],
    }
    metadata = {"name": "claudebox-demo-0", "namespace": "rdev", "uid": "u"} | template["metadata"]
    pod = to_pod({"metadata": metadata, "spec": template["spec"], "status": status})
    (project,) = merge([pod], {}).projects
    assert (project.name, project.workspace, project.container) == (
        "demo",
        "/workspace",
        "claudebox",
    )
    assert (str(project.phase), project.issues) == ("ready", ())


def test_runs_outlive_the_container_outside_the_work_tree() -> None:
    """Run directories are on a volume, and not on the one with the project."""
    (box,) = pod_spec()["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in box["volumeMounts"]}
    runs = Settings().workspace_runs
    holding = [path for path in mounts if runs.startswith(f"{path}/")]
    assert holding == ["/tmp"]
    assert not runs.startswith("/workspace")
    assert mounts["/workspace"] == mounts["/home/claude"] == "data"


def test_the_image_reaps() -> None:
    """PID 1 of the workspace's stage is tini, the user the pod's; functions are the default."""
    stages = (ROOT / "Dockerfile").read_text().split("\nFROM ")
    (stage,) = [s for s in stages if s.partition("\n")[0].endswith(" AS workspace")]
    assert 'ENTRYPOINT ["tini", "-g", "--"]' in stage
    assert f"USER {pod_spec()['securityContext']['runAsUser']}:" in stage
    assert "common.entrypoints.serve" in stages[-1]


def test_the_source_only_rings() -> None:
    """ApiServerSource sends references, with an account that may read what it watches."""
    (source,) = documents(BASE / "sources" / "on-pods-changed.yaml")
    spec = source["spec"]
    assert (source["kind"], spec["mode"]) == ("ApiServerSource", "Reference")
    assert [r["kind"] for r in spec["resources"]] == ["Pod", "ConfigMap"]
    assert spec["sink"]["ref"]["name"] == "on-pods-changed"
    assert can(spec["serviceAccountName"], "watch", "pods")
    (watcher,) = [f for f in functions() if f.watches]
    assert watcher.scale.minimum == 1
