"""One rdev for the whole package; tests tell their commands apart by id."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.running import Rdev


@pytest.fixture(scope="session")
def rdev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rdev]:
    """A running rdev with the project `demo`."""
    home: Path = tmp_path_factory.mktemp("home")
    running = Rdev(home).start()
    yield running
    running.stop()
