"""infra/workspace and rights in the cluster: what a workspace may reach, and who reaches it."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.adapters.kubernetes.pods import to_pod
from common.domain.discovery import merge
from common.settings import Settings
from infra.generation.declared import functions

ROOT = Path(__file__).resolve().parents[2]
BASE, WORKSPACE = ROOT / "infra" / "base", ROOT / "infra" / "workspace"
BOX = WORKSPACE / "claudebox.yaml"


@cache
def documents(path: Path) -> list[dict[str, Any]]:
    return [doc for doc in yaml.safe_load_all(path.read_text()) if doc]


def of_kind(path: Path, kind: str) -> list[dict[str, Any]]:
    return [doc for doc in documents(path) if doc["kind"] == kind]


def stateful_set() -> dict[str, Any]:
    (found,) = of_kind(BOX, "StatefulSet")
    return found


def pod_spec() -> dict[str, Any]:
    spec: dict[str, Any] = stateful_set()["spec"]["template"]["spec"]
    return spec


# -- the example ----------------------------------------------------------------------------------


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


def test_the_example_is_restricted() -> None:
    """Pod Security `restricted`, and more: no token, no writable root, no links."""
    spec = pod_spec()
    (box,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & spec.keys()
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert box["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory", "ephemeral-storage"} == box["resources"]["limits"].keys()
    assert [next(iter(v.keys() - {"name"})) for v in spec["volumes"]] == ["emptyDir"]
    (account,) = of_kind(WORKSPACE / "service-account.yaml", "ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    assert account["metadata"]["name"] == spec["serviceAccountName"]


def test_its_account_has_no_rights() -> None:
    """No RoleBinding anywhere names it."""
    bound = {s["name"] for b in of_kind(BASE / "roles.yaml", "RoleBinding") for s in b["subjects"]}
    assert "claudebox" not in bound
    assert not of_kind(BOX, "RoleBinding")


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


# -- what a workspace may reach -------------------------------------------------------------------


def policies() -> list[dict[str, Any]]:
    """The policies that select the example's pod, in both folders."""
    found = of_kind(BASE / "network-policies.yaml", "NetworkPolicy")
    found += of_kind(WORKSPACE / "network-policy.yaml", "NetworkPolicy")
    labels = stateful_set()["spec"]["template"]["metadata"]["labels"]
    return [p for p in found if _selects(p["spec"]["podSelector"], labels)]


def _selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    exists = all(e["key"] in labels for e in selector.get("matchExpressions", []))
    return bool(wanted and exists)


def reaches(address: str, port: int) -> bool:
    """Whether any policy lets the pod connect to an address (policies add up)."""
    egress = [rule for p in policies() for rule in p["spec"].get("egress", [])]
    for rule in egress:
        ports = {p["port"] for p in rule.get("ports", [])}
        for peer in rule["to"]:
            block = peer.get("ipBlock")
            if block is None or (ports and port not in ports):
                continue
            target = ip_address(address)
            inside = target in ip_network(block["cidr"])
            if inside and not any(target in ip_network(e) for e in block["except"]):
                return True
    return False


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "10.96.0.1", "172.17.0.2", "192.168.1.1", "100.64.0.1"]
)
@pytest.mark.parametrize("port", [80, 443, 5432, 6443, 8012])
def test_nothing_of_the_cluster_is_reached(address: str, port: int) -> None:
    """Pods, services, the API server, PostgreSQL and the broker are in private ranges."""
    assert not reaches(address, port)


def test_metadata_is_not_reached() -> None:
    """Neither on its usual port nor over TLS, and IPv6 not at all."""
    assert not reaches("169.254.169.254", 80)
    assert not reaches("169.254.169.254", 443)
    assert not reaches("fd00:ec2::254", 443)


def test_the_web_and_git_are_reached_and_nothing_else() -> None:
    """443 and 22 to public addresses."""
    assert reaches("140.82.121.4", 443)
    assert reaches("140.82.121.4", 22)
    assert not reaches("140.82.121.4", 25)
    assert not reaches("140.82.121.4", 53)


def test_names_come_from_the_clusters_resolver_only() -> None:
    """Port 53 is open to kube-dns by its labels, and to nobody else."""
    for policy in policies():
        for rule in policy["spec"].get("egress", []):
            if {53} == {p["port"] for p in rule.get("ports", [])}:
                (peer,) = rule["to"]
                assert peer["podSelector"] == {"matchLabels": {"k8s-app": "kube-dns"}}
                assert "namespaceSelector" in peer


def test_nobody_reaches_a_workspace() -> None:
    """Ingress is denied by every policy that selects it; exec does not come over the network."""
    assert [p["spec"].get("ingress", []) for p in policies()] == [[] for _ in policies()]
    assert all("Ingress" in p["spec"]["policyTypes"] for p in policies())


# -- rights ---------------------------------------------------------------------------------------


def allowed(account: str) -> set[tuple[str, str]]:
    """(resource, verb) pairs of an account, by its bindings."""
    roles = {r["metadata"]["name"]: r for r in of_kind(BASE / "roles.yaml", "Role")}
    bindings = of_kind(BASE / "roles.yaml", "RoleBinding")
    mine = [b for b in bindings if account in {s["name"] for s in b["subjects"]}]
    rules = [rule for b in mine for rule in roles[b["roleRef"]["name"]]["rules"]]
    assert all(rule["apiGroups"] == [""] for rule in rules)
    return {(r, verb) for rule in rules for r in rule["resources"] for verb in rule["verbs"]}


def test_who_may_do_what() -> None:
    """The runner gets pods and execs into them; watchers read pods and ConfigMaps; nothing more."""
    reading = ("get", "list", "watch")
    assert allowed("rdev-runner") == {
        ("pods", "get"),
        ("pods/exec", "get"),
        ("pods/exec", "create"),
    }
    assert allowed("rdev-watcher") == {(r, v) for r in ("pods", "configmaps") for v in reading}
    assert allowed("rdev-api") == allowed("claudebox") == set()
    assert not [d for d in documents(BASE / "roles.yaml") if d["kind"].startswith("Cluster")]


def test_the_source_only_rings() -> None:
    """ApiServerSource sends references, with an account that may read what it watches."""
    (source,) = documents(BASE / "sources" / "on-pods-changed.yaml")
    spec = source["spec"]
    assert (source["kind"], spec["mode"]) == ("ApiServerSource", "Reference")
    assert [r["kind"] for r in spec["resources"]] == ["Pod", "ConfigMap"]
    assert spec["sink"]["ref"]["name"] == "on-pods-changed"
    assert ("pods", "watch") in allowed(spec["serviceAccountName"])
    (watcher,) = [f for f in functions() if f.watches]
    assert watcher.scale.minimum == 1
