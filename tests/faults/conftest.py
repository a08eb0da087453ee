"""An rdev of its own for each fault test: these kill parts of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.running import Rdev


@pytest.fixture
def rdev(tmp_path: Path) -> Iterator[Rdev]:
    """A running rdev; whatever the test did to it, nothing of it lives on."""
    running = Rdev(tmp_path / "home").start()
    yield running
    if running.process is not None and running.process.poll() is None:
        running.stop()
