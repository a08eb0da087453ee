"""What infra/base and infra/workspace say, as tests ask it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
BASE, WORKSPACE = ROOT / "infra" / "base", ROOT / "infra" / "workspace"


@cache
def documents(path: Path) -> list[dict[str, Any]]:
    return [doc for doc in yaml.safe_load_all(path.read_text()) if doc]


def of_kind(path: Path, kind: str) -> list[dict[str, Any]]:
    return [doc for doc in documents(path) if doc["kind"] == kind]


def stateful_set() -> dict[str, Any]:
    """The example workspace."""
    (found,) = of_kind(WORKSPACE / "claudebox.yaml", "StatefulSet")
    return found


def pod_spec() -> dict[str, Any]:
    spec: dict[str, Any] = stateful_set()["spec"]["template"]["spec"]
    return spec


def rules_of(account: str) -> list[dict[str, Any]]:
    """The rules that bindings give a service account of the namespace `rdev`."""
    roles = {role["metadata"]["name"]: role for role in of_kind(BASE / "roles.yaml", "Role")}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": "rdev"}
    bindings = of_kind(BASE / "roles.yaml", "RoleBinding")
    bound = [b["roleRef"]["name"] for b in bindings if subject in b["subjects"]]
    return [rule for name in bound for rule in roles[name]["rules"]]


def can(account: str, verb: str, resource: str, group: str = "") -> bool:
    """`kubectl auth can-i VERB RESOURCE --as=ACCOUNT`, by the rules and their wildcards.

    `pods/*` and `*` hold subresources; a rule with `resourceNames` is for less than any name.
    """
    subresource = resource.partition("/")[2]
    names = {resource, "*", f"*/{subresource}" if subresource else resource}
    return any(
        {verb, "*"} & set(rule["verbs"])
        and names & set(rule["resources"])
        and {group, "*"} & set(rule["apiGroups"])
        and not rule.get("resourceNames")
        for rule in rules_of(account)
    )
