"""`rdev show`: everything about one command."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import click

from rdev import ids
from rdev.app import App
from rdev.options import output_option
from rdev.resources import Command
from rdev.text import printable, seconds_as_text
from rdev.verb import Verb

if TYPE_CHECKING:
    from rdev.output import Console


@click.command(
    cls=Verb,
    examples=("rdev show $(rdev ps -q -n 1)", "rdev show -o json $(rdev ps -q -n 1)"),
)
@output_option(("text", "json", "jsonl", "raw"))
@click.argument("identifier", metavar="ID")
@click.pass_obj
def show(app: App, /, identifier: str, mode: str) -> int:
    """Show one command: what it runs, its state, and how it ended."""
    with app.connect() as api:
        answer = api.get(f"/v1/commands/{ids.command_id(api, identifier)}")
    command = Command.parse(answer.json)
    if mode == "raw":
        app.console.remote("stdout", answer.body)
    elif mode == "text":
        _print(app.console, command)
    else:
        app.console.json(command.raw, compact=mode == "jsonl")
    return 0


def _print(console: Console, command: Command) -> None:
    rows = [
        ("id", command.id),
        ("project", command.project),
        ("kind", command.kind),
        ("runs", command.summary),
        ("state", _state(command)),
        *_labels(command),
        *_times(command),
        *_outcome(command),
        *_agent(command),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        console.line(f"{name.ljust(width)}  {printable(value)}")


def _state(command: Command) -> str:
    if command.state == "queued" and command.queue_position:
        return f"queued at position {command.queue_position}"
    return f"{command.state} ({command.reason})" if command.reason else command.state


def _labels(command: Command) -> list[tuple[str, str]]:
    labels = command.raw.get("labels")
    if not isinstance(labels, dict) or not labels:
        return []
    return [("labels", " ".join(f"{name}={value}" for name, value in sorted(labels.items())))]


def _times(command: Command) -> list[tuple[str, str]]:
    rows = [
        (field.removesuffix("_at"), str(command.raw[field]))
        for field in ("created_at", "run_at", "started_at", "finished_at")
        if command.raw.get(field)
    ]
    started = command.time("started_at")
    if started is not None:
        until = command.time("finished_at") or dt.datetime.now(dt.UTC)
        rows.append(("took", seconds_as_text((until - started).total_seconds())))
    return rows


def _outcome(command: Command) -> list[tuple[str, str]]:
    outcome = command.outcome
    rows = [
        (name.replace("_", " "), str(outcome[name]))
        for name in ("exit_code", "signal")
        if outcome.get(name) is not None
    ]
    output = outcome.get("output")
    if isinstance(output, dict):
        rows.append(("output", _size(output)))
        if isinstance(output.get("stderr"), dict):
            rows.append(("stderr", _size(output["stderr"])))
    if outcome.get("orphans_killed"):
        rows.append(("left behind", f"{outcome['orphans_killed']} processes, killed"))
    return rows


def _size(output: dict[str, object]) -> str:
    cut = ", cut at the limit" if output.get("truncated") else ""
    return f"{output.get('bytes')} bytes, sha256 {output.get('sha256')}{cut}"


def _agent(command: Command) -> list[tuple[str, str]]:
    rows = [("session", command.session_id)] if command.session_id else []
    agent = command.agent
    if "num_turns" in agent:
        rows.append(("turns", str(agent["num_turns"])))
    if isinstance(agent.get("cost_usd"), int | float):
        rows.append(("cost", f"${agent['cost_usd']:.4f}"))
    if agent.get("result"):
        rows.append(("result", str(agent["result"])))
    return rows
