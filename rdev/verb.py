"""What every verb has in common: the shape of its help, and how its failure is told.

Help is one sentence, usage, options, two examples. The examples are data and not prose, so that a
test can parse each and the reference is generated from the same tree (`rdev.main.cli`).

A verb's function returns its exit code, or raises a CliError; the error is a sentence on standard
error, and with `-o json` or `jsonl` also a document on standard output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from rdev import exit_codes
from rdev.app import App
from rdev.errors import CliError, ReaderGone


class Verb(click.Command):
    """A command with examples that work as pasted."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", {}).setdefault("help_option_names", ["-h", "--help"])
        # In the list of verbs the whole sentence, not the 45 characters that click cuts it to.
        kwargs.setdefault("short_help", kwargs.get("help"))
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One sentence, usage, options, examples."""
        _write_help(self, ctx, formatter)
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"  {example}\n")

    def invoke(self, ctx: click.Context) -> int:
        """Run the verb; the exit code is the result, also when it failed."""
        app = ctx.find_object(App)
        assert app is not None
        try:
            return int(super().invoke(ctx))
        except KeyboardInterrupt:
            return exit_codes.INTERRUPTED
        except CliError as error:
            _report(app, error, ctx.params.get("mode"))
            return error.exit_code

    def to_info_dict(self, ctx: click.Context) -> dict[str, Any]:
        """What the reference is generated from, the examples included."""
        return {**super().to_info_dict(ctx), "examples": list(self.examples)}


class Verbs(click.Group):
    """A group of verbs, listed in the order in which a person needs them."""

    command_class = Verb

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", {}).setdefault("help_option_names", ["-h", "--help"])
        kwargs.setdefault("short_help", kwargs.get("help"))
        super().__init__(*args, **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of their declaration; the alphabet knows nothing of work."""
        del ctx
        return list(self.commands)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One sentence, usage, options, verbs."""
        _write_help(self, ctx, formatter)


class Root(Verbs):
    """`rdev` itself: its help ends with the exit codes, which belong to every verb."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One sentence, usage, options, verbs, exit codes."""
        super().format_help(ctx, formatter)
        with formatter.section("Exit codes (any other is the command's own)"):
            codes = exit_codes.MEANINGS.items()
            formatter.write_dl([(str(code), meaning) for code, meaning in codes])


Verbs.group_class = Verbs


def _write_help(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    formatter.write(f"{command.help}\n\n")
    command.format_usage(ctx, formatter)
    command.format_options(ctx, formatter)
    command.format_epilog(ctx, formatter)


def _report(app: App, error: CliError, mode: object) -> None:
    if isinstance(error, ReaderGone):
        # Like any program that SIGPIPE ends: the reader has left, so nobody is told.
        return
    app.console.error(str(error), error.hint)
    if mode in ("json", "jsonl"):
        try:
            app.console.json(error.as_json(), compact=mode == "jsonl")
        except ReaderGone:
            return
