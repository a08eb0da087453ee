"""The attack table's rows about the cluster: rights, a workspace's pod, its network, labels."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Any

import cel
import pytest

from common.adapters.kubernetes.cluster import PodCluster
from common.domain.claude_config import Kind
from common.domain.command import Reason
from common.domain.discovery import NAME_LABEL, PROJECT, Container, Entry, Life, Pod, merge
from common.domain.errors import Unavailable
from common.domain.project import FoundProject
from common.domain.workspace import Job, KillMode, Place, WorkspaceUnreachable
from common.services import claude_files, supervision
from common.services.claude_files import WorkspaceClaudeFiles
from common.services.delivery import Script
from common.services.supervision import SupervisedWorkspace
from common.settings import Settings
from infra.generation.declared import functions
from tests.harness.kubernetes_yaml import (
    BASE,
    WORKSPACE,
    can,
    documents,
    of_kind,
    pod_spec,
    rules_of,
    stateful_set,
)

# -- rights ---------------------------------------------------------------------------------------

# Who of the functions talks to the API server, and what for; all others have no token at all.
EXEC = {"on-command-queued", "claude-config"}
WATCH = {"on-pods-changed", "on-tick"}
READ = ("get", "list", "watch")
WRITE = ("create", "update", "patch", "delete", "deletecollection")
ODD = ("bind", "escalate", "impersonate", "proxy", "*")
RIGHTS = {
    "exec": {("pods", "get"), ("pods/exec", "get"), ("pods/exec", "create")},
    "watch": {(resource, verb) for resource in ("pods", "configmaps") for verb in READ},
    "none": set(),
}
RESOURCES = (
    "pods", "pods/exec", "pods/attach", "pods/portforward", "pods/log", "pods/ephemeralcontainers",
    "pods/proxy", "pods/eviction", "pods/status", "configmaps", "secrets", "serviceaccounts",
    "serviceaccounts/token", "nodes", "nodes/proxy", "services", "events", "namespaces",
    "persistentvolumeclaims", "deployments", "statefulsets", "roles", "rolebindings",
    "clusterroles", "customresourcedefinitions", "*",
)  # fmt: skip
GROUPS = ("", "apps", "batch", "rbac.authorization.k8s.io", "serving.knative.dev")


def service(name: str) -> dict[str, Any]:
    """The pod template of a function's Knative Service."""
    (found,) = documents(BASE / "functions" / f"{name}.yaml")
    spec: dict[str, Any] = found["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("name", sorted(f.service for f in functions()))
def test_row_64_what_a_function_can_do(name: str) -> None:
    """Every verb on every resource: those that run commands exec, watchers watch, nobody more."""
    kind = "exec" if name in EXEC else "watch" if name in WATCH else "none"
    spec = service(name)
    account = spec["serviceAccountName"]
    allowed = {
        (resource, verb)
        for group in GROUPS
        for resource in RESOURCES
        for verb in (*READ, *WRITE, *ODD)
        if can(account, verb, resource, group)
    }
    assert allowed == RIGHTS[kind]
    assert spec["automountServiceAccountToken"] is (kind != "none")


def test_row_64_no_rule_has_a_wildcard_or_leaves_the_namespace() -> None:
    """A read-only `*` would include exec; and there are no cluster roles."""
    roles = documents(BASE / "roles.yaml")
    assert {doc["kind"] for doc in roles} == {"Role", "RoleBinding"}
    assert not [rule for doc in roles for rule in doc.get("rules", []) if "*" in str(rule)]


def test_row_64_a_workspace_is_nobody() -> None:
    """Its account is bound to nothing, here or in the example."""
    assert rules_of(pod_spec()["serviceAccountName"]) == []
    kinds = {doc["kind"] for path in WORKSPACE.glob("*.yaml") for doc in documents(path)}
    assert not {kind for kind in kinds if "Role" in kind}


# -- the pod --------------------------------------------------------------------------------------


def test_row_65_a_workspace_has_no_token() -> None:
    """Neither its pod nor its account mounts one, and no volume projects one."""
    spec = pod_spec()
    (account,) = of_kind(WORKSPACE / "service-account.yaml", "ServiceAccount")
    assert account["metadata"]["name"] == spec["serviceAccountName"]
    assert spec["automountServiceAccountToken"] is False
    assert account["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert [next(iter(v.keys() - {"name"})) for v in spec["volumes"]] == ["emptyDir"]


def test_row_65_a_workspace_is_restricted() -> None:
    """Pod Security `restricted`, and a root filesystem that nobody writes."""
    spec = pod_spec()
    (box,) = spec["containers"]
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers", "initContainers"} & spec.keys()
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert box["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "ports" not in box
    assert {"cpu", "memory", "ephemeral-storage"} == box["resources"]["limits"].keys()


# -- the network ----------------------------------------------------------------------------------


def policies() -> list[dict[str, Any]]:
    """The policies that select the example's pod, in both folders; they add up."""
    found = of_kind(BASE / "network-policies.yaml", "NetworkPolicy")
    found += of_kind(WORKSPACE / "network-policy.yaml", "NetworkPolicy")
    labels = stateful_set()["spec"]["template"]["metadata"]["labels"]
    return [p for p in found if _selects(p["spec"]["podSelector"], labels)]


def _selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    exists = all(e["key"] in labels for e in selector.get("matchExpressions", []))
    return bool(wanted and exists)


def egress() -> list[dict[str, Any]]:
    return [rule for p in policies() for rule in p["spec"].get("egress", [])]


def reaches(address: str, port: int) -> bool:
    """Whether any policy lets the pod connect to an address."""
    for rule in egress():
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
@pytest.mark.parametrize("port", [53, 80, 443, 5432, 6443, 8012])
def test_row_66_nothing_of_the_cluster_is_reached(address: str, port: int) -> None:
    """Pods, services, the API server, PostgreSQL and the broker are in private ranges."""
    assert not reaches(address, port)


def test_row_66_metadata_is_not_reached() -> None:
    """Neither on its usual port nor over TLS, and IPv6 not at all."""
    assert not reaches("169.254.169.254", 80)
    assert not reaches("169.254.169.254", 443)
    assert not reaches("fd00:ec2::254", 443)


def test_row_66_the_web_and_git_are_reached_and_nothing_else() -> None:
    """443 and 22 to public addresses."""
    assert reaches("140.82.121.4", 443)
    assert reaches("140.82.121.4", 22)
    assert not reaches("140.82.121.4", 25)
    assert not reaches("140.82.121.4", 53)


def test_row_66_names_come_from_the_clusters_resolver_only() -> None:
    """Whatever rule is not about addresses is port 53 to kube-dns by its labels."""
    named = [rule for rule in egress() if any("ipBlock" not in peer for peer in rule["to"])]
    assert named
    for rule in named:
        (peer,) = rule["to"]
        assert {p["port"] for p in rule["ports"]} == {53}
        assert peer["podSelector"] == {"matchLabels": {"k8s-app": "kube-dns"}}
        assert peer["namespaceSelector"] == {
            "matchLabels": {"kubernetes.io/metadata.name": "kube-system"}
        }


def test_row_66_nobody_reaches_a_workspace() -> None:
    """Ingress is denied by every policy that selects it; exec does not come over the network."""
    assert [p["spec"].get("ingress", []) for p in policies()] == [[] for _ in policies()]
    assert all("Ingress" in p["spec"]["policyTypes"] for p in policies())


# -- what the runner's account may exec -----------------------------------------------------------


class Recorder:
    """A transport that goes nowhere and remembers what it was asked to run."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def runs(self, place: Place) -> str:
        return f"{Settings().workspace_runs}/{place.project}"

    def verify(self, place: Place) -> None:
        """There is nobody to ask."""

    def open(self, place: Place, argv: Sequence[str], stdin: bytes = b"") -> Any:
        self.asked.append(list(argv))
        raise WorkspaceUnreachable("recorded")


def every_exec() -> list[list[str]]:
    """The argv of every verb, and of deliveries."""
    recorder, place, run = Recorder(), Place("my-app2", "/workspace"), "0" * 32
    workspace, files = SupervisedWorkspace(recorder), WorkspaceClaudeFiles(recorder)
    for call in (
        lambda: workspace.start(place, Job(run, ("true",))),
        lambda: workspace.follow(place, run, "merged", 7),
        lambda: workspace.status(place, run),
        lambda: workspace.kill(place, run, KillMode.FORCE, "user"),
        lambda: workspace.refuse(place, run),
        lambda: workspace.send(place, run, 0, b"x"),
        lambda: workspace.gc(place, 60),
        lambda: files.read(place),
        lambda: files.remove(place, Kind.AGENTS, "a-b", "0"),
        lambda: Script(recorder, supervision.SCRIPT).deliver(place),
        lambda: Script(recorder, claude_files.SCRIPT).deliver(place),
    ):
        with pytest.raises(WorkspaceUnreachable):
            call()
    return recorder.asked


def admitted(command: list[str], user: str = "rdev-runner", **options: Any) -> bool:
    """What the policy says of an exec, by a CEL evaluator."""
    (policy,) = of_kind(WORKSPACE / "exec-policy.yaml", "ValidatingAdmissionPolicy")
    spec = policy["spec"]
    account = {"userInfo": {"username": f"system:serviceaccount:rdev:{user}"}}
    seen = {"request": account, "object": {"stdin": True, "command": command} | options}
    if not all(cel.evaluate(c["expression"], seen) for c in spec["matchConditions"]):
        return True
    return all(cel.evaluate(v["expression"], seen) for v in spec["validations"])


def test_row_67_the_protocol_is_admitted() -> None:
    """Every verb of the supervisor, the configuration's and deliveries, as they are really sent."""
    asked = every_exec()
    assert len(asked) == 11
    assert [argv for argv in asked if not admitted(argv)] == []


SCRIPT = "/tmp/.rdev/runs/demo/.bin/supervisor-0123456789abcdef.sh"  # in a workspace
USE = '[ -f "$0" ] || exit 97; . "$0"'


@pytest.mark.parametrize(
    "command",
    [
        ["id"],
        ["sh"],
        ["sh", "-c", "id", SCRIPT, "start"],
        ["sh", "-c", f"{USE}; id", SCRIPT, "start"],
        ["sh", "-c", USE, "/workspace/evil.sh", "start"],
        ["sh", "-c", USE, f"{SCRIPT}\n", "start"],
        ["sh", "-c", USE, SCRIPT.replace("demo", "../demo"), "start"],
        ["bash", "-c", USE, SCRIPT, "start"],
    ],
    ids=str,
)
def test_row_67_anything_else_is_refused(command: list[str]) -> None:
    """For the runner's account; other people's exec is none of this policy's business."""
    assert not admitted(command)
    assert admitted(command, user="somebody")


def test_row_67_a_terminal_is_refused() -> None:
    """rdev never asks for one."""
    good = ["sh", "-c", USE, SCRIPT, "status"]
    assert admitted(good)
    assert not admitted(good, tty=True)


def test_row_67_the_policy_holds_for_exec_and_fails_closed() -> None:
    """Admission sees an exec as CONNECT; one that cannot be judged is refused."""
    policy, binding = documents(WORKSPACE / "exec-policy.yaml")
    (rule,) = policy["spec"]["matchConstraints"]["resourceRules"]
    assert (rule["operations"], rule["resources"]) == (["CONNECT"], ["pods/exec"])
    assert policy["spec"]["failurePolicy"] == "Fail"
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    assert "Deny" in binding["spec"]["validationActions"]


# -- labels ---------------------------------------------------------------------------------------

UP = (Container("claudebox", ready=True, running=True),)


def pod(name: str, project: str, created: str = "2026-01-01T00:00:00Z") -> Pod:
    labels = {PROJECT: "true", NAME_LABEL: project}
    return Pod("rdev", name, f"uid-{name}", "Running", UP, created, labels=labels)


def demo_of(pods: list[Pod], entries: dict[str, Entry] | None = None) -> FoundProject:
    return next(p for p in merge(pods, entries or {}).projects if p.name == "demo")


class OneNamespace:
    """An API server that answers for a namespace and remembers what it was asked."""

    def __init__(self) -> None:
        self.namespace = "rdev"
        self.asked: list[str] = []

    def list_all(self, path: str, query: Any = None) -> tuple[list[dict[str, Any]], str]:
        self.asked.append(path)
        raise Unavailable("recorded")


def test_row_68_a_label_in_another_namespace_is_not_seen() -> None:
    """Nobody asks for the pods of any other, by list or by watch."""
    api = OneNamespace()
    cluster = PodCluster(api)  # type: ignore[arg-type]  # what it needs of an Api
    with pytest.raises(Unavailable):
        cluster.look({})
    watching = cluster.watch(lambda: None)
    watching.close()
    assert set(api.asked) <= {f"/api/v1/namespaces/rdev/{kind}" for kind in ("pods", "configmaps")}


@pytest.mark.parametrize("created", ["2020-01-01T00:00:00Z", "2026-02-02T00:00:00Z"])
def test_row_68_no_label_takes_a_project_from_its_pod(created: str) -> None:
    """However old the pod is that is labelled so now; and that there are two is said."""
    mine, forged = pod("demo-0", "demo"), pod("evil", "demo", created)
    holders = {"demo": demo_of([mine]).pod_uid or ""}
    (shown,) = merge([forged, mine], {}, holders).projects
    assert shown.pod == "demo-0"
    assert shown.issues == ("2 pods match (demo-0, evil): using demo-0",)


def test_row_68_no_label_takes_a_project_that_names_its_pod() -> None:
    """`pod_selector` is stronger than any label, also than an older pod's."""
    old, forged = pod("demo-0", "demo", "2026-01-02T00:00:00Z"), pod("evil", "demo")
    shown = demo_of([forged, old], {"demo": Entry({"pod_selector": "demo-0"})})
    assert (shown.pod, shown.issues) == ("demo-0", ())


def test_row_68_a_command_stays_with_the_pod_it_started_in() -> None:
    """Whatever labels say later: another pod is another life, and a start asks the label again."""
    mine, forged = pod("demo-0", "demo"), pod("evil", "demo")
    life = Life.parse(demo_of([mine]).pod_uid or "")
    assert life is not None
    assert life.ended(mine) is None
    assert life.ended(forged) is Reason.POD_DELETED
    assert not life.has_left(mine, "demo")
    assert life.has_left(pod("demo-0", "other"), "demo")
