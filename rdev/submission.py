"""From a command line to an exit code: submit, follow, and end as the command ended.

run, claude, git and retry differ in what they ask for; everything after that is here.
"""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rdev import exit_codes
from rdev.approving import Approver
from rdev.errors import CliError, Interrupted, ReaderGone
from rdev.follow import Follower
from rdev.interrupts import Interrupts, Policy, Target, how_to_come_back
from rdev.queue_notice import QueueNotice
from rdev.resources import WAITING, Command
from rdev.sinks import sink_for
from rdev.text import printable

if TYPE_CHECKING:
    from rdev.app import App
    from rdev.http import Api
    from rdev.output import Console


@dataclass(frozen=True, slots=True)
class Wishes:
    """The values of `options.submit_options`, named as click names them."""

    project: str | None
    detach: bool
    environment: tuple[tuple[str, str], ...]
    cwd: str | None
    priority: str | None
    run_s: int | None
    idle_s: int | None
    queue_s: int | None
    if_busy: str | None
    labels: tuple[tuple[str, str], ...]
    on_interrupt: str | None
    mode: str

    def body(self, project: str, specific: dict[str, Any]) -> dict[str, Any]:
        """The request; what was not wished for is left out, so that the server's defaults hold."""
        times = {"run_s": self.run_s, "idle_s": self.idle_s, "queue_s": self.queue_s}
        common = {
            "cwd": self.cwd,
            "priority": self.priority,
            "if_busy": self.if_busy,
            "timeouts": {name: value for name, value in times.items() if value is not None} or None,
            "env": dict(self.environment) or None,
            "labels": dict(self.labels) or None,
        }
        chosen = {name: value for name, value in common.items() if value is not None}
        return {"project": project, **specific, **chosen}


@dataclass(frozen=True, slots=True)
class Showing:
    """How a started command is shown: the rest of the options, for retry too."""

    detach: bool
    on_interrupt: str | None
    mode: str


def submit(app: App, wishes: Wishes, specific: dict[str, Any]) -> int:
    """Submit a command in its project and see it through."""
    with app.connect() as api:
        project = app.project(api, wishes.project)
        command = start(api, "/v1/commands", wishes.body(project, specific))
        showing = Showing(wishes.detach, wishes.on_interrupt, wishes.mode)
        return see_through(app, api, command, showing)


def start(api: Api, path: str, body: dict[str, Any] | None) -> Command:
    """POST what starts a command, and say so when Ctrl-C left it unknown whether it did."""
    try:
        return Command.parse(api.create(path, body, starting=True).json)
    except KeyboardInterrupt as error:
        raise Interrupted(
            "interrupted before the server answered; it may have taken the command",
            signal_number=signal.SIGINT,
            hint="`rdev ps` shows it",
        ) from error


def see_through(app: App, api: Api, command: Command, showing: Showing) -> int:
    """Follow `command` to its end, or only print it when the person wants to detach."""
    if showing.detach:
        _print_started(app.console, command, showing.mode)
        return exit_codes.OK
    console = app.console
    policy = Policy.chosen(showing.on_interrupt, on_terminal=console.err_is_terminal)
    target = Target(command.id, lambda: cancel(api, command.id))
    try:
        with Interrupts(policy, target, console):
            return _follow(api, command, console, showing.mode)
    except ReaderGone:
        _reader_gone(api, command, console, policy)
        raise


def cancel(api: Api, command_id: str, mode: str = "graceful") -> Command:
    """Ask for the command to be cancelled; asking twice, or too late, is no error."""
    return Command.parse(api.post(f"/v1/commands/{command_id}/cancel", {"mode": mode}).json)


def _follow(api: Api, command: Command, console: Console, mode: str) -> int:
    sink = sink_for(mode, command.kind, console, live=console.out_is_terminal)
    if _can_ask(command, console, mode):
        sink = Approver(sink, api, command.id, console, sys.stdin)
    if not (console.err_is_terminal and command.state in WAITING):
        followed = Follower(api, command.id, console, sink).run()
    else:
        with QueueNotice(sink, api, command.id, console) as notice:
            followed = Follower(api, command.id, console, notice).run()
    explain(console, followed.command)
    return followed.exit_code


def _can_ask(command: Command, console: Console, mode: str) -> bool:
    """Whether somebody reads the question and can answer it."""
    options = command.spec.get("options") or {}
    asks = bool(options.get("approvals")) and mode == "text"
    return asks and console.err_is_terminal and sys.stdin.isatty()


def _reader_gone(api: Api, command: Command, console: Console, policy: Policy) -> None:
    """`rdev run … | head`: the same choice as at Ctrl-C, except that nobody can be asked."""
    if policy is not Policy.CANCEL:
        console.say(f"nobody reads the output any more, but {command.id} runs on")
        console.say(how_to_come_back(command.id))
        return
    try:
        cancel(api, command.id)
    except CliError as error:
        console.error(f"could not cancel {command.id}: {error}")


def _print_started(console: Console, command: Command, mode: str) -> None:
    if mode in ("json", "jsonl"):
        console.json(command.raw, compact=mode == "jsonl")
        return
    console.line(command.id)
    console.say(how_to_come_back(command.id))


def explain(console: Console, command: Command) -> None:
    """Say why the exit code is not the remote program's own."""
    reason = command.reason or "no reason given"
    detail = command.outcome.get("message") or command.outcome.get("detail")
    more = f": {printable(str(detail))}" if detail else ""
    if command.state == "timed_out":
        console.warn(f"{command.id} ran out of time ({reason}){more}")
    elif command.state == "cancelled":
        console.warn(f"{command.id} was cancelled ({reason}){more}")
    elif command.state == "lost":
        console.warn(f"{command.id} is lost ({reason}): nobody knows how it ended{more}")
    elif command.state == "failed" and reason == "signalled":
        console.say(f"{command.id} was ended by signal {command.outcome.get('signal')}")
    elif command.state == "failed" and reason != "exit_nonzero":
        console.warn(f"{command.id} failed ({reason}){more}")
    orphans = command.outcome.get("orphans_killed")
    if orphans:
        console.say(f"{orphans} processes that it left behind were killed")
