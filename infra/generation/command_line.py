"""docs/reference/cli.md: the verbs of `rdev`, from its own tree of commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final

import click

from infra.generation.markdown import page, table
from rdev import exit_codes
from rdev.main import cli

PATH: Final = PurePosixPath("docs/reference/cli.md")
# Usage lines wrap where a terminal would; here one width, whatever terminal generates.
_WIDTH: Final = 88


def files() -> dict[PurePosixPath, str]:
    """The page."""
    codes = [[f"`{code}`", meaning] for code, meaning in exit_codes.MEANINGS.items()]
    text = page(
        "Command line",
        "`rdev/main.py`",
        f"{cli.help} The same in a terminal: `rdev --help`, `rdev run --help`.",
        *_verbs(cli, "rdev", None),
        "## Exit codes",
        "Any other is the command's own; a signal is 128 and its number.",
        table(["code", "meaning"], codes),
    )
    return {PATH: text}


def _verbs(group: click.Group, name: str, parent: click.Context | None) -> Iterator[str]:
    context = click.Context(group, info_name=name, parent=parent, terminal_width=_WIDTH)
    for verb in group.list_commands(context):
        command = group.get_command(context, verb)
        if command is None or command.hidden:
            continue
        if isinstance(command, click.Group):
            yield from _verbs(command, verb, context)
        else:
            yield from _verb(command, verb, context)


def _verb(command: click.Command, name: str, parent: click.Context) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=parent, terminal_width=_WIDTH)
    yield f"## `{context.command_path}`"
    yield command.help or ""
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"```\n{usage}\n```"
    options = [
        record
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option)
        and (record := parameter.get_help_record(context)) is not None
    ]
    yield table(["option", "meaning"], [[f"`{names}`", text] for names, text in options])
    examples: tuple[str, ...] = getattr(command, "examples", ())
    if examples:
        yield "```sh\n" + "\n".join(examples) + "\n```"
