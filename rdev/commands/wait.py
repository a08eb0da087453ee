"""`rdev wait`: until commands have ended, without their output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from rdev import exit_codes, ids
from rdev.app import App
from rdev.follow import Discard, Follower
from rdev.options import output_option
from rdev.resources import Command
from rdev.retry import Clock
from rdev.submission import explain
from rdev.verb import Verb

HOLD_S: Final = 45
"""The longest that the server holds a question (api.md)."""

if TYPE_CHECKING:
    from rdev.http import Api


@click.command(
    cls=Verb,
    examples=("rdev wait $(rdev ps -q -n 1)", "rdev wait -o json $(rdev ps -q -n 3)"),
)
@output_option()
@click.argument("identifiers", nargs=-1, required=True, metavar="ID…")
@click.pass_obj
def wait(app: App, /, identifiers: tuple[str, ...], mode: str) -> int:
    """Wait until commands have ended; exit with the code of the first that did not succeed."""
    with app.connect() as api:
        wanted = [ids.command_id(api, text) for text in identifiers]
        # One after the other takes no longer than all at once: it is over when the last one is.
        ended = [_until_ended(app, api, command_id, mode) for command_id in wanted]
    if mode == "json":
        app.console.json({"items": [command.raw for command in ended]})
    codes = (command.exit_code for command in ended)
    return next((code for code in codes if code != exit_codes.OK), exit_codes.OK)


def _until_ended(app: App, api: Api, command_id: str, mode: str) -> Command:
    command = _held_until_ended(app, api, command_id)
    if not command.ended:
        command = Follower(api, command_id, app.console, Discard()).run().command
    if mode == "jsonl":
        app.console.json(command.raw, compact=True)
    elif mode == "text":
        app.console.say(f"{command_id} {command.state}")
        explain(app.console, command)
    return command


def _held_until_ended(app: App, api: Api, command_id: str) -> Command:
    """The command once it has ended; or as it is, when the server would not hold the question.

    Asking this way transfers no output. A server that holds many questions already answers at
    once; asking it again and again would be polling, so the events are followed then.
    """
    path, clock = f"/v1/commands/{command_id}", Clock()
    command = Command.parse(api.get(path).json)
    if not command.ended:
        app.console.say(f"waiting for {command_id} ({command.state})")
    held = True
    while held and not command.ended:
        asked = clock.now()
        command = Command.parse(api.get_waiting(path, HOLD_S).json)
        held = clock.now() - asked > HOLD_S / 2
    return command
