"""The result of one check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from rdev.settings import Settings


class Verdict(StrEnum):
    """`warn`: rdev works, but not all of it. `bad`: it does not."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, what was found, and what to do; no advice when all is well."""

    subject: str
    verdict: Verdict
    detail: str
    advice: str | None = None


Check = Callable[[Settings], Finding]


def ok(subject: str, detail: str) -> Finding:
    """All is well."""
    return Finding(subject, Verdict.OK, detail)


def warn(subject: str, detail: str, advice: str) -> Finding:
    """Something will not work."""
    return Finding(subject, Verdict.WARN, detail, advice)


def bad(subject: str, detail: str, advice: str) -> Finding:
    """Nothing will work until this is mended."""
    return Finding(subject, Verdict.BAD, detail, advice)
