"""Public means documented: every environment variable that code reads is in the reference."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from common.settings import Settings
from infra.generation import declared

ROOT = declared.ROOT
PAGE = (ROOT / "docs" / "reference" / "settings.md").read_text()
# Names inside the supervisor's own processes, and what a deny list matches; nobody sets them.
INTERNAL = {"RDEV_BEHIND_NUL", "RDEV_FOLLOWER", "RDEV_HELPER", "RDEV_"}


@pytest.mark.parametrize("field", fields(Settings), ids=lambda f: f.metadata["variable"])
def test_a_setting_is_described(field: object) -> None:
    """Each field of Settings has a variable, a sentence and a row in the table."""
    metadata = field.metadata  # type: ignore[attr-defined]
    assert metadata["what"]
    assert f"`{metadata['variable']}`" in PAGE


def test_no_variable_is_read_in_secret() -> None:
    """Every RDEV_ name in the code is on the page."""
    found = {
        name
        for folder in ("common", "functions", "infra", "rdev")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".sh")
        for name in re.findall(r"\bRDEV_[A-Z_]*\b", path.read_text())
    }
    missing = {name for name in found - INTERNAL if f"`{name}`" not in PAGE}
    assert missing == set()
