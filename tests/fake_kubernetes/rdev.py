"""An rdev whose workspaces are pods of the fake."""

from __future__ import annotations

import json
from pathlib import Path

from tests.fake_kubernetes.running import FakeKubernetes
from tests.harness.running import Rdev


def rdev_on(fake: FakeKubernetes, home: Path, **environment: str) -> Rdev:
    """Not yet started. Its project `demo` is a pod with the laptop's own demo as work tree."""
    make_pod(fake, home, "demo-0", "demo")
    return Rdev(
        home,
        KUBECONFIG=str(fake.kubeconfig),
        RDEV_WORKSPACE_RUNS=str(home / "runs"),
        **environment,
    )


def make_pod(fake: FakeKubernetes, home: Path, name: str, project: str, **env: str) -> None:
    """A pod; its run directories go with it, its work tree stays."""
    work = home / "workspaces" / project
    if project != "demo":
        work.mkdir(parents=True, exist_ok=True)
    notes = {
        "rdev.orchard9.ai/workspace": str(work),
        "fake/home": str(home),
        "fake/env": json.dumps(env),
        "fake/volumes": str(home / "runs" / project),
    }
    fake.pod(name, project=project, annotations=notes)
