"""`python -m tests.security.scan`: whether a file that git tracks holds what looks like a secret.

The shapes are those that gitleaks looks for, of the providers whose keys are near this product, and
our own keys by their checksum.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from common.domain import keys

ROOT = Path(__file__).resolve().parents[2]
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


def leaks() -> dict[str, int]:
    """How many there are in each tracked file that has any."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    names = [name for name in listed.stdout.decode().split("\0") if name]
    assert names, "git tracks nothing here"
    return {
        name: len(found)
        for name in names
        if (ROOT / name).is_file() and (found := found_in((ROOT / name).read_bytes()))
    }


def main() -> int:
    """Name the files; never what was found in them."""
    if not (ROOT / ".git").exists():
        print("SKIPPED: no git here, the repository was not searched for secrets")
        return 0
    found = leaks()
    for name, count in found.items():
        print(f"{name}: {count} of what look like secrets", file=sys.stderr)
    if not found:
        print("no file of the repository looks as if it held a secret")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
