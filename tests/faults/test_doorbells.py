"""Events only say "look": dropped, doubled or reordered, they cost nothing but time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.running import Rdev

COMMANDS = 12


@pytest.mark.parametrize("faults", ["drop=1", "double=1", "seed=3,drop=0.3,double=0.3,reorder=0.5"])
def test_lost_doubled_and_reordered_doorbells(tmp_path: Path, faults: str) -> None:
    """Every command runs exactly once and ends."""
    rdev = Rdev(tmp_path / "home", RDEV_BROKER_FAULTS=faults).start()
    try:
        runs = tmp_path / "runs"
        submitted = [rdev.submit(script=f"echo {n} >> {runs}") for n in range(COMMANDS)]
        for command in submitted:
            assert rdev.ended(command["id"])["state"] == "succeeded"
        assert sorted(map(int, runs.read_text().split())) == list(range(COMMANDS))
    finally:
        rdev.stop()
