"""Options that several verbs share, and the types of their values."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from rdev.text import parse_duration, require_utf8

_RATE = re.compile(r"([0-9]{1,7})/(\w+)")

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[F], F]


class Duration(click.ParamType[int]):
    """Seconds, written `90`, `30s`, `5m`, `2h` or `1d`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Seconds as a number; a usage error for anything else."""
        if isinstance(value, int):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Text(click.ParamType[str]):
    """Text that JSON can carry; bytes that are not UTF-8 are refused, never changed."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text itself; a usage error when it is not UTF-8 or holds a NUL."""
        try:
            return require_utf8(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Pair(click.ParamType[tuple[str, str]]):
    """`NAME=VALUE`; for environments `NAME` alone takes the value from ours, unseen in `ps`."""

    name = "name=value"

    def __init__(self, *, from_environment: bool) -> None:
        self._from_environment = from_environment

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Name and value; a usage error without a name or a value."""
        if isinstance(value, tuple):
            return value
        name, equals, content = value.partition("=")
        if not equals and self._from_environment and name in os.environ:
            content, equals = os.environ[name], "="
        if not name or not equals:
            self.fail(self._complaint(name, equals), param, ctx)
        try:
            return require_utf8(name), require_utf8(content)
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def _complaint(self, name: str, equals: str) -> str:
        if name and not equals and self._from_environment:
            return f"{name} is not set here; write {name}=VALUE"
        return "write NAME=VALUE"


class Rate(click.ParamType[dict[str, int]]):
    """`100/60` or `100/1m`: that many requests in that time."""

    name = "n/duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, int]:
        """As the API writes it; a usage error for anything else."""
        if isinstance(value, dict):
            return value
        match = _RATE.fullmatch(value)
        if match is None:
            self.fail("write it as 100/60 or 100/1m", param, ctx)
        try:
            return {"limit": int(match[1]), "window_s": parse_duration(match[2])}
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Json(click.ParamType[Any]):
    """JSON as it stands, or `@FILE` with it, `@-` for standard input."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value; a usage error for what is not JSON."""
        if not isinstance(value, str):
            return value
        try:
            if value == "@-":
                value = sys.stdin.buffer.read().decode()
            elif value.startswith("@"):
                value = Path(value[1:]).read_bytes().decode()
            return json.loads(value)
        except OSError as error:
            self.fail(f"{value[1:]}: {error.strerror}", param, ctx)
        except ValueError as error:
            self.fail(f"this is not JSON: {error}", param, ctx)


TEXT = Text()
RATE = Rate()
JSON = Json()
DURATION = Duration()
ENVIRONMENT = Pair(from_environment=True)
LABEL = Pair(from_environment=False)


def output_option(modes: Sequence[str] = ("text", "json", "jsonl")) -> Decorator[Any]:
    """`-o`: text for people, json and jsonl for programs, raw as the other side wrote it."""
    return click.option(
        "-o",
        "--output",
        "mode",
        type=click.Choice(modes),
        default="text",
        show_default=True,
        help="How to print.",
    )


def project_option(function: F) -> F:
    """`-p`: the project."""
    return click.option(
        "-p",
        "--project",
        type=TEXT,
        metavar="NAME",
        help="Project; by default RDEV_PROJECT, the profile's, or the only one.",
    )(function)


def interrupt_option(function: F) -> F:
    """`--on-interrupt`: what Ctrl-C does."""
    return click.option(
        "--on-interrupt",
        type=click.Choice(["ask", "detach", "cancel"]),
        help="What Ctrl-C does; by default ask on a terminal, else cancel.",
    )(function)


def detach_option(function: F) -> F:
    """`-d`: do not follow."""
    return click.option(
        "-d", "--detach", is_flag=True, help="Print the id and return; the command runs on."
    )(function)


def environment_option(function: F) -> F:
    """`--env`: variables of the command."""
    return click.option(
        "--env",
        "environment",
        type=ENVIRONMENT,
        multiple=True,
        metavar="NAME[=VALUE]",
        help="Set a variable; NAME alone takes it from here, so the value is in no process list.",
    )(function)


def submit_options(function: F) -> F:
    """Everything that run, claude and git have in common, in the order of the help."""
    options: list[Decorator[Any]] = [
        project_option,
        detach_option,
        environment_option,
        click.option("--cwd", type=TEXT, metavar="DIR", help="Folder inside the workspace."),
        click.option(
            "--priority",
            type=click.Choice(["low", "normal", "high", "urgent"]),
            help="Place among the waiting commands.  [default: normal]",
        ),
        click.option(
            "--timeout", "run_s", type=DURATION, help="Longest time to run, such as 90 or 5m."
        ),
        click.option(
            "--idle-timeout", "idle_s", type=DURATION, help="Longest time without any output."
        ),
        click.option(
            "--queue-timeout", "queue_s", type=DURATION, help="Longest time to wait for a start."
        ),
        click.option(
            "--if-busy",
            type=click.Choice(["queue", "reject"]),
            help="When no slot is free: wait in the queue, or be refused.  [default: queue]",
        ),
        click.option(
            "--label",
            "labels",
            type=LABEL,
            multiple=True,
            metavar="NAME=VALUE",
            help="Attach a label.",
        ),
        interrupt_option,
        output_option(("text", "json", "jsonl", "raw")),
    ]
    for option in reversed(options):
        function = option(function)
    return function
