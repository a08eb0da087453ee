"""`rdev doctor`: what is wrong with this machine or the server, and how to mend it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from rdev import exit_codes
from rdev.app import App
from rdev.diagnosis import Finding, Verdict, machine, server
from rdev.options import output_option
from rdev.verb import Verb

if TYPE_CHECKING:
    from rdev.output import Console

_MARKS = {
    Verdict.OK: ("ok  ", "green"),
    Verdict.WARN: ("warn", "yellow"),
    Verdict.BAD: ("BAD ", "red"),
}


@click.command(
    cls=Verb,
    examples=("rdev doctor", "rdev doctor -o json"),
)
@output_option()
@click.pass_obj
def doctor(app: App, /, mode: str) -> int:
    """Check this machine and the server, and say what to do about each thing that is wrong."""
    found = []
    for check in (*machine.CHECKS, *server.CHECKS):
        finding = check(app.settings)
        found.append(finding)
        if mode == "text":
            _print(app.console, finding)
        elif mode == "jsonl":
            app.console.json(dataclasses.asdict(finding), compact=True)
    if mode == "json":
        app.console.json({"items": [dataclasses.asdict(finding) for finding in found]})
    bad = any(finding.verdict is Verdict.BAD for finding in found)
    return exit_codes.FAILED if bad else exit_codes.OK


def _print(console: Console, finding: Finding) -> None:
    mark, style = _MARKS[finding.verdict]
    console.line(f"{console.styled(mark, style)}  {finding.subject}: {finding.detail}")
    if finding.advice:
        console.line(f"      → {finding.advice}")
