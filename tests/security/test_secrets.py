"""Row 71: nothing in the repository looks like a secret that somebody could use."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from common.domain import keys

ROOT = Path(__file__).resolve().parents[2]
# The shapes that gitleaks looks for (its rules of the providers whose keys are near this product).
SHAPES = re.compile(
    rb"sk-ant-(?:api|admin)[0-9]{2}-[A-Za-z0-9_-]{80,}"
    rb"|gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{82}|glpat-[A-Za-z0-9_-]{20}"
    rb"|\b(?:AKIA|ASIA)[A-Z2-7]{16}\b|xox[baprs]-[0-9A-Za-z-]{20,}"
    rb"|-----BEGIN (?:RSA |EC |OPENSSH |DSA |)PRIVATE KEY-----"
    rb"|\beyJ[A-Za-z0-9_-]{17,}\.eyJ[A-Za-z0-9_-]{17,}\.[A-Za-z0-9_-]{10,}"
)
OURS = re.compile(rb"rdev_[0-9A-Za-z]{8}_[0-9A-Za-z]{38}")


def found_in(data: bytes) -> list[bytes]:
    """What looks like a secret; a key of ours only when its checksum is right."""
    ours = [k for k in OURS.findall(data) if keys.is_well_formed(k.decode())]
    return [*(match[0] for match in SHAPES.finditer(data)), *ours]


@pytest.mark.row(71)
def test_no_file_of_the_repository_holds_a_secret() -> None:
    """Every file that git tracks, whatever it is."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    names = [name for name in listed.stdout.decode().split("\0") if name]
    assert names
    leaks = {
        name: len(found)
        for name in names
        if (ROOT / name).is_file() and (found := found_in((ROOT / name).read_bytes()))
    }
    assert leaks == {}


def test_the_scan_sees_what_it_looks_for() -> None:
    """A key of ours and one of each kind nearby, which are put together only here."""
    kinds = [
        b"sk-ant-" + b"api03-" + b"a" * 90,
        b"gh" + b"p_" + b"a" * 36,
        b"AK" + b"IA" + b"A" * 16,
        b"-----BEGIN " + b"PRIVATE KEY-----",
        keys.new_key().encode(),
    ]
    assert all(found_in(b"x = '" + kind + b"'") for kind in kinds)
