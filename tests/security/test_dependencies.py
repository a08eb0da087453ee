"""tests/security/dependencies.py: silence of the vulnerability service is not a clean bill."""

from __future__ import annotations

from typing import Any

import pytest

from tests.security.dependencies import verdict

CLEAN = {"name": "clean", "version": "1", "vulns": []}
UNKNOWN = {"name": "unknown", "skip_reason": "could not be audited"}
BROKEN = {"name": "broken", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}
OURSELVES = {"name": "rdev", "skip_reason": "is editable"}


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([CLEAN, OURSELVES], 0, "no known vulnerability in 1 packages"),
        ([UNKNOWN, OURSELVES], 0, "SKIPPED: 1 of 1 packages could not be looked up"),
        ([CLEAN, UNKNOWN], 0, "SKIPPED: 1 of 2 packages could not be looked up"),
        ([CLEAN, BROKEN], 1, "broken 1: CVE-1, fixed in 2"),
        ([UNKNOWN, BROKEN], 1, "SKIPPED: 1 of 2 packages could not be looked up"),
    ],
)
def test_what_was_not_looked_up_is_said(packages: list[Any], code: int, said: str) -> None:
    """A vulnerability fails, and what nobody could say is named as that."""
    got, text = verdict({"dependencies": packages})
    assert got == code
    assert said in text
    assert ("no known" in text) == (code == 0 and CLEAN in packages)
