"""One rdev for the whole package; tests tell their commands apart by id."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_kubernetes.rdev import rdev_on
from tests.fake_kubernetes.running import FakeKubernetes
from tests.harness.running import Rdev


@pytest.fixture(scope="session")
def rdev(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rdev]:
    """A running rdev with the project `demo`; a suite may ask for it in a pod, by `pods`."""
    home: Path = tmp_path_factory.mktemp("home")
    if getattr(request, "param", "directories") == "directories":
        running = Rdev(home, RDEV_WEBHOOK_ALLOW="127.0.0.0/8").start()
        yield running
        running.stop()
        return
    with FakeKubernetes(tmp_path_factory.mktemp("kubernetes")) as fake:
        running = rdev_on(fake, home).start("--kubernetes")
        yield running
        running.stop()
