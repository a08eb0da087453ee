"""What `rdev doctor` looks at: `machine` needs no server, `server` asks one.

A check is a function from the settings to one Finding. It changes nothing, and it never fails: what
it cannot find out is its finding.
"""

from rdev.diagnosis.finding import Check, Finding, Verdict

__all__ = ["Check", "Finding", "Verdict"]
