"""kubectl judges the fake Kubernetes API: what an independent client takes for a cluster is one."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.fake_kubernetes.running import FakeKubernetes

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None,
    reason="SKIPPED LOUDLY: no kubectl here (Debian: kubernetes-client), nobody judges the fake",
)
Kubectl = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeKubernetes]:
    """One fake with two pods."""
    with FakeKubernetes(tmp_path_factory.mktemp("fake")) as running:
        running.pod("one", project="demo", containers=("claudebox", "sidecar"))
        running.pod("two", labels={"tier": "back"})
        yield running


@pytest.fixture(scope="module")
def kubectl(fake: FakeKubernetes) -> Kubectl:
    """Run kubectl against it."""
    cache = str(fake.folder / "cache")

    def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = ["kubectl", "--kubeconfig", str(fake.kubeconfig), "--cache-dir", cache]
        return subprocess.run(
            [*command, *arguments], input=stdin, capture_output=True, timeout=60, check=False
        )

    return run


def test_get_lists_and_shows(kubectl: Kubectl) -> None:
    """`get` knows the pods, one pod as JSON, and one that is not there."""
    assert kubectl("get", "pods", "-o", "name").stdout == b"pod/one\npod/two\n"
    shown = json.loads(kubectl("get", "pod", "two", "-o", "json").stdout)
    assert shown["status"]["phase"] == "Running"
    missing = kubectl("get", "pod", "three")
    assert missing.returncode == 1 and b"NotFound" in missing.stderr


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("rdev.orchard9.ai/project=true", b"pod/one\n"),
        ("tier!=back", b"pod/one\n"),
        ("tier in (front,back)", b"pod/two\n"),
        ("!tier", b"pod/one\n"),
        ("tier,tier notin (front)", b"pod/two\n"),
    ],
)
def test_selectors_select(kubectl: Kubectl, selector: str, names: bytes) -> None:
    """`-l` selects by equality and by sets."""
    assert kubectl("get", "pods", "-l", selector, "-o", "name").stdout == names


def test_pages_make_one_list(kubectl: Kubectl) -> None:
    """kubectl asks for one object at a time and puts them together."""
    assert kubectl("get", "pods", "--chunk-size=1", "-o", "name").stdout == b"pod/one\npod/two\n"


@pytest.mark.parametrize("code", [0, 1, 7, 137])
def test_exec_carries_both_streams_and_the_exit_code(kubectl: Kubectl, code: int) -> None:
    """stdout and stderr arrive apart, and kubectl exits as the program did."""
    ran = kubectl("exec", "two", "--", "sh", "-c", f"echo out; echo err >&2; exit {code}")
    assert (ran.returncode, ran.stdout) == (code, b"out\n")
    assert ran.stderr.startswith(b"err\n")


def test_exec_i_carries_bytes(kubectl: Kubectl) -> None:
    """What `exec -i` sends comes back byte for byte, and ends."""
    data = bytes(range(256)) * 4096
    assert kubectl("exec", "-i", "one", "--", "cat", stdin=data).stdout == data


def test_exec_chooses_a_container(kubectl: Kubectl) -> None:
    """`-c` takes a container of the pod and no other."""
    assert kubectl("exec", "one", "-c", "sidecar", "--", "true").returncode == 0
    assert kubectl("exec", "one", "-c", "nobody", "--", "true").returncode == 1


def test_objects_are_created_once_and_deleted(fake: FakeKubernetes, kubectl: Kubectl) -> None:
    """A second create is 409; a deleted pod is gone with its processes."""
    body = json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "three"},
            "spec": {"containers": [{"name": "c", "image": "x"}]},
        }
    ).encode()
    create = ("create", "--validate=false", "-f", "-")
    assert kubectl(*create, stdin=body).returncode == 0
    again = kubectl(*create, stdin=body)
    assert again.returncode == 1 and b"AlreadyExists" in again.stderr
    proof = fake.folder / "alive"
    left = "(trap '' TERM; while :; do date >$0; sleep 0.02; done) >/dev/null 2>&1 &"
    assert kubectl("exec", "three", "--", "setsid", "sh", "-c", left, str(proof)).returncode == 0
    assert kubectl("delete", "pod", "three", "--wait=false").returncode == 0
    proof.unlink(missing_ok=True)
    assert kubectl("exec", "three", "--", "true").returncode == 1
    assert not proof.exists()
