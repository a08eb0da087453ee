"""The Kubernetes adapter wired as the runner has it, on the fake."""

from __future__ import annotations

from pathlib import Path

from common.adapters.kubernetes.access import Access
from common.adapters.kubernetes.api import Api
from common.adapters.kubernetes.cluster import PodCluster
from common.adapters.kubernetes.pods import Pods
from common.adapters.kubernetes.transport import KubernetesTransport
from common.adapters.memory.dependencies import MemoryDependencies
from common.domain.breaker import Thresholds
from common.domain.discovery import Life
from common.domain.workspace import Place
from common.ports.dependencies import KUBERNETES
from common.services.breaker import SharedBreakers
from common.services.supervision import SupervisedWorkspace
from tests.fake_kubernetes.running import NAMESPACE, FakeKubernetes


class Bench:
    """One process's view of the fake; `folder` holds work tree and run directories of its pods."""

    def __init__(
        self,
        fake: FakeKubernetes,
        folder: Path,
        limits: Thresholds | None = None,
        access: Access | None = None,
    ) -> None:
        self.fake = fake
        self.folder = folder
        self.access = access or Access(kubeconfig=str(fake.kubeconfig))
        self.dependencies = MemoryDependencies()
        self.breakers = SharedBreakers(self.dependencies, limits or Thresholds())
        self.api = Api(self.access, self.breakers.of(KUBERNETES))
        self.cluster = PodCluster(self.api)
        runs = str(folder / "runs")
        self.transport = KubernetesTransport(self.access, Pods(self.api), self.breakers, runs)
        self.workspace = SupervisedWorkspace(self.transport)

    def place(self, name: str = "demo-0", project: str = "demo") -> Place:
        """A pod that is there, in the life it has now."""
        made = self.fake.get_pod(name)
        status = made["status"]["containerStatuses"][0]
        life = Life(
            made["metadata"]["uid"], status["restartCount"], name, status["name"], labelled=True
        )
        work = self.folder / project
        work.mkdir(exist_ok=True)
        return Place(project, str(work), NAMESPACE, name, str(life), status["name"])

    def close(self) -> None:
        self.access.close()
