"""The fake as tests use it: a process, its kubeconfig, and pods made by one call."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "work"
LABEL = "rdev.orchard9.ai/project"


class FakeKubernetes:
    """A running fake; use it as a context manager."""

    def __init__(self, folder: Path, *, tls: Path | None = None) -> None:
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fake_kubernetes", *(["--tls", str(tls)] if tls else [])],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().decode().strip()
        assert self.url, "the fake did not start"
        self.kubeconfig = folder / "kubeconfig"
        authority = str(tls / "ca.crt") if tls else ""
        cluster = {"certificate-authority": authority} if tls else {}
        self.write_kubeconfig({"token": "fake-token"}, cluster)
        verify = ssl.create_default_context(cafile=authority) if tls else True
        self._http = httpx.Client(base_url=self.url, trust_env=False, timeout=30, verify=verify)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def write_kubeconfig(self, user: dict[str, Any], cluster: dict[str, Any]) -> None:
        """A kubeconfig whose current context is the fake."""
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.url, **cluster}}],
            "users": [{"name": "fake", "user": user}],
            "contexts": [
                {
                    "name": "fake",
                    "context": {"cluster": "fake", "user": "fake", "namespace": NAMESPACE},
                }
            ],
        }
        self.kubeconfig.write_text(yaml.safe_dump(document))

    # -- steering ------------------------------------------------------------------------------

    def steer(self, **wanted: Any) -> dict[str, Any]:
        answer = self._http.post("/_fake", json=wanted)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def fail(self, **faults: Any) -> None:
        """Set exactly these faults; none given: all is well again."""
        self.steer(faults=faults)

    @property
    def seen(self) -> dict[str, int]:
        """How many requests of each kind came since the last reset."""
        found: dict[str, int] = self._http.get("/_fake").json()["seen"]
        return found

    # -- objects -------------------------------------------------------------------------------

    def pod(
        self,
        name: str,
        *,
        project: str | None = None,
        labels: dict[str, str] | None = None,
        annotations: dict[str, str] | None = None,
        containers: tuple[str, ...] = ("claudebox",),
        created: str | None = None,
        namespace: str = NAMESPACE,
    ) -> dict[str, Any]:
        """Create a pod; with `project` it carries rdev's labels."""
        marks = {LABEL: "true", f"{LABEL[:-8]}/name": project} if project else {}
        metadata: dict[str, Any] = {
            "name": name,
            "labels": marks | (labels or {}),
            "annotations": annotations or {},
        }
        if created:
            metadata["creationTimestamp"] = created
        spec = {"containers": [{"name": c, "image": "fake"} for c in containers]}
        return self._send(
            "POST", f"/namespaces/{namespace}/pods", {"metadata": metadata, "spec": spec}
        )

    def config(self, data: dict[str, str], name: str = "rdev-projects") -> dict[str, Any]:
        """Create or replace a ConfigMap."""
        path = f"/namespaces/{NAMESPACE}/configmaps"
        body = {"metadata": {"name": name}, "data": data}
        answer = self._http.put(f"/api/v1{path}/{name}", json=body)
        if answer.status_code == 404:
            return self._send("POST", path, body)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def get_pod(self, name: str) -> dict[str, Any]:
        return self._send("GET", f"/namespaces/{NAMESPACE}/pods/{name}")

    def relabel(self, name: str, labels: dict[str, str]) -> None:
        """Replace a pod's labels."""
        made = self.get_pod(name)
        made["metadata"]["labels"] = labels
        self._send("PUT", f"/namespaces/{NAMESPACE}/pods/{name}", made)

    def delete_pod(self, name: str) -> None:
        self._send("DELETE", f"/namespaces/{NAMESPACE}/pods/{name}")

    def restart_pod(self, name: str) -> None:
        """Its container dies and is started again."""
        self.steer(restart=[NAMESPACE, name])

    def set_status(self, name: str, phase: str, *, ready: bool) -> None:
        self.steer(status=[NAMESPACE, name, phase, ready])

    def reset(self) -> None:
        """No faults, no objects, no counts."""
        self.steer(reset=True)

    def _send(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        answer = self._http.request(method, f"/api/v1{path}", json=body)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found
