"""`python -m tests.security.dependencies`: known vulnerabilities of what uv.lock pins.

pip-audit answers 0 also when it could look nothing up, which would pass for a clean bill of health.
So its report is read here: what was not looked up is said, loudly, and what was found fails.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

LONGEST_S = 120  # for some hundred packages; who waits longer has no network


def verdict(report: dict[str, Any]) -> tuple[int, str]:
    """Exit code, and what a person reads, for a report of pip-audit."""
    packages = [p for p in report["dependencies"] if p["name"] != "rdev"]
    unknown = [p["name"] for p in packages if "skip_reason" in p]
    found = [(p, v) for p in packages for v in p.get("vulns", ())]
    lines = [
        f"{p['name']} {p['version']}: {v['id']}, fixed in {', '.join(v['fix_versions']) or '-'}"
        for p, v in found
    ]
    if unknown:
        lines.append(f"SKIPPED: {len(unknown)} of {len(packages)} packages could not be looked up")
    if len(unknown) < len(packages) and not found:
        lines.append(f"no known vulnerability in {len(packages) - len(unknown)} packages")
    return (1 if found else 0), "\n".join(lines)


def main() -> int:
    """Ask; answers 1 when something is known of a package."""
    command = [sys.executable, "-m", "pip_audit", "--local", "--progress-spinner=off"]
    try:
        done = subprocess.run(
            [*command, "--format=json", "--timeout=5"],
            capture_output=True, timeout=LONGEST_S, check=False,
        )  # fmt: skip
        code, said = verdict(json.loads(done.stdout))
    except subprocess.TimeoutExpired:
        code, said = 0, f"SKIPPED: the vulnerability service did not answer in {LONGEST_S} s"
    except json.JSONDecodeError:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"])[
            -1
        ]
        code, said = 0, f"SKIPPED: pip-audit could not look anything up: {last[:200]}"
    print(said, flush=True)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
