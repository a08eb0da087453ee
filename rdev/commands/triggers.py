"""`rdev triggers`: which events start which commands."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from rdev import exit_codes, ids
from rdev.app import App
from rdev.errors import OutcomeUnknown, ServerFault, WrongUsage
from rdev.listing import print_items
from rdev.options import (
    DURATION,
    ENVIRONMENT,
    JSON,
    LABEL,
    RATE,
    TEXT,
    Decorator,
    output_option,
    project_option,
)
from rdev.text import age, parse_time, printable
from rdev.verb import Verbs

if TYPE_CHECKING:
    from rdev.output import Console

_MOST = 10_000
_CHANNELS = ("http", "github", "broker")


@click.group(cls=Verbs)
def triggers() -> None:
    """Say which events start which commands, try it, and see what came of it."""


def _what_options(function: Any) -> Any:
    """The filter and the command, as `create` and `update` take them."""
    options: list[Decorator[Any]] = [
        click.option("--type", "type_", type=TEXT, metavar="TYPE", help="Events of this type."),
        click.option("--source", type=TEXT, metavar="PREFIX", help="Whose source begins so."),
        click.option("--subject", type=TEXT, help="Whose subject is this."),
        click.option("--filter", "filter_", type=JSON, help="Or a whole filter, as JSON or @FILE."),
        project_option,
        click.option("--script", type=TEXT, help="Run it by `sh -c`, with places: {{ data.ref }}."),
        click.option("--prompt", type=TEXT, help="Give it to claude, with places in it."),
        click.option("--command", type=JSON, help="Or a whole command, as JSON or @FILE."),
        click.option(
            "--from-data", "kinds", type=click.Choice(["claude", "shell", "git"]), multiple=True,
            help="Or take the command from the event's data: of this kind; repeat.",
        ),
        click.option(
            "--env", "environment", type=ENVIRONMENT, multiple=True, metavar="NAME[=VALUE]",
            help="Set a variable of the command; places can be in it.",
        ),
        click.option(
            "--label", "labels", type=LABEL, multiple=True, metavar="NAME=VALUE",
            help="Attach a label to the command.",
        ),
        click.option(
            "--accept", type=click.Choice(_CHANNELS), multiple=True,
            help="Where events may come from; repeat.  [default: http, github]",
        ),
        click.option("--rate-limit", type=RATE, help="Most commands in a time.  [default: 60/1h]"),
        output_option(),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


@triggers.command(
    "create",
    examples=(
        "rdev triggers create greet --type com.example.hello --script 'echo {{ data.name }}'",
        "rdev triggers create builds --type com.github.push -p demo -- make REF={{data.ref}}",
    ),
)
@_what_options
@click.option("--disabled", is_flag=True, help="Start nothing until it is enabled.")
@click.argument("name", type=TEXT, metavar="NAME")
@click.argument("argv", type=TEXT, nargs=-1, metavar="[-- CMD [ARG…]]")
@click.pass_obj
def create(app: App, /, name: str, mode: str, disabled: bool, **given: Any) -> int:
    """Make a trigger and print its id; the secret for GitHub is shown this once."""
    body: dict[str, Any] = {"name": name, **({"enabled": False} if disabled else {})}
    with app.connect() as api:
        body |= _what(given, fallback=lambda: app.project(api, given["project"]))
        if "command" not in body:
            raise WrongUsage("say what to run: --script, --prompt, --command, or -- CMD")
        made = api.create("/v1/triggers", body, starting=False)
        _print_made(app.console, made.object, mode)
    return 0


def _what(given: dict[str, Any], *, fallback: Any) -> dict[str, Any]:
    """The fields that options name. `fallback` knows the project when none of them does."""
    body: dict[str, Any] = {}
    if (wanted := _filter(given)) is not None:
        body["filter"] = wanted
    if (command := _command(given, fallback)) is not None:
        body["command"] = command
    if given["accept"]:
        body["accept"] = list(given["accept"])
    if given["rate_limit"]:
        body["rate_limit"] = given["rate_limit"]
    return body


def _filter(given: dict[str, Any]) -> Any:
    parts: list[dict[str, Any]] = []
    exact = {n: given[o] for n, o in (("type", "type_"), ("subject", "subject")) if given[o]}
    if exact:
        parts.append({"exact": exact})
    if given["source"]:
        parts.append({"prefix": {"source": given["source"]}})
    if given["filter_"] is not None:
        if parts:
            raise WrongUsage("give either --filter or --type, --source and --subject")
        return given["filter_"]
    return {"all": parts} if len(parts) > 1 else parts[0] if parts else None


def _command(given: dict[str, Any], fallback: Any) -> Any:
    named = [n for n in ("script", "prompt", "command", "kinds", "argv") if given[n]]
    extra = {
        name: dict(given[option])
        for name, option in (("env", "environment"), ("labels", "labels"))
        if given[option]
    }
    if not named and not extra:
        return None
    if len(named) != 1:
        raise WrongUsage("give one of --script, --prompt, --command, --from-data and -- CMD")
    if named[0] in ("command", "kinds") and extra:
        raise WrongUsage("--env and --label do not go with a whole command")
    if given["command"]:
        return given["command"]
    project = given["project"] or fallback()
    if given["kinds"]:
        return {"from": "data", "projects": [project], "kinds": list(given["kinds"])}
    if given["prompt"]:
        return {"project": project, "kind": "claude", "prompt": given["prompt"], **extra}
    what = {"script": given["script"]} if given["script"] else {"argv": list(given["argv"])}
    return {"project": project, "kind": "shell", **what, **extra}


@triggers.command("ls", examples=("rdev triggers ls", "rdev triggers ls -q"))
@click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
@output_option()
@click.pass_obj
def ls(app: App, /, quiet: bool, mode: str) -> int:
    """List the triggers, newest first."""
    with app.connect() as api:
        items = list(api.pages("/v1/triggers", {}, limit=_MOST))
    if quiet:
        for item in items:
            app.console.line(_id(item))
        return 0
    empty = "no trigger; `rdev triggers create --help` shows how to make one"
    headers = ("ID", "STATE", "ACCEPTS", "PROJECTS", "NAME", "WHAT")
    print_items(app.console, items, mode, headers, map(_row, items), empty=empty)
    return 0


@triggers.command(
    "show", examples=("rdev triggers show trg_0190f3c2", "rdev triggers show trg_0190f3c2 -o json")
)
@output_option()
@click.argument("identifier", type=TEXT, metavar="ID")
@click.pass_obj
def show(app: App, /, identifier: str, mode: str) -> int:
    """Show one trigger, without its secrets."""
    with app.connect() as api:
        found = api.get(f"/v1/triggers/{ids.trigger_id(api, identifier)}").object
    _print_one(app.console, found, mode)
    return 0


@triggers.command(
    "update",
    examples=(
        "rdev triggers update trg_0190f3c2 --rate-limit 10/1m",
        "rdev triggers update trg_0190f3c2 --script 'make REF={{ data.ref }}'",
    ),
)
@_what_options
@click.option("--name", type=TEXT, help="Another name.")
@click.argument("identifier", type=TEXT, metavar="ID")
@click.argument("argv", type=TEXT, nargs=-1, metavar="[-- CMD [ARG…]]")
@click.pass_obj
def update(app: App, /, identifier: str, name: str | None, mode: str, **given: Any) -> int:
    """Change a trigger; what it does is then done with your key's rights."""
    with app.connect() as api:
        path = f"/v1/triggers/{ids.trigger_id(api, identifier)}"
        read = api.get(path)
        body = _what(given, fallback=lambda: _only_project(read.object))
        if name is not None:
            body["name"] = name
        if not body:
            raise WrongUsage(
                "nothing to change", hint="`rdev triggers update --help` lists what can be"
            )
        changed = api.patch(path, body, if_match=read.headers.get("etag"))
    _print_one(app.console, changed.object, mode)
    return 0


def _only_project(trigger: dict[str, Any]) -> str:
    command = trigger.get("command") or {}
    projects = command.get("projects") or [command.get("project")]
    if len(projects) != 1:
        raise WrongUsage("it has several projects: say which with -p")
    return str(projects[0])


@triggers.command(
    "enable",
    examples=(
        "rdev triggers enable trg_0190f3c2",
        "rdev triggers ls -q | xargs rdev triggers enable",
    ),
)
@click.argument("identifiers", nargs=-1, required=True, metavar="ID…")
@click.pass_obj
def enable(app: App, /, identifiers: tuple[str, ...]) -> int:
    """Let triggers start commands again, from the next event on."""
    return _set(app, identifiers, enabled=True)


@triggers.command(
    "disable",
    examples=(
        "rdev triggers disable trg_0190f3c2",
        "rdev triggers ls -q | xargs rdev triggers disable",
    ),
)
@click.argument("identifiers", nargs=-1, required=True, metavar="ID…")
@click.pass_obj
def disable(app: App, /, identifiers: tuple[str, ...]) -> int:
    """Let triggers start nothing until they are enabled; events that come meanwhile are lost."""
    return _set(app, identifiers, enabled=False)


def _set(app: App, identifiers: Sequence[str], *, enabled: bool) -> int:
    with app.connect() as api:
        for trigger in [ids.trigger_id(api, text) for text in identifiers]:
            api.patch(f"/v1/triggers/{trigger}", {"enabled": enabled}, if_match="*")
            app.console.line(f"{trigger} {'enabled' if enabled else 'disabled'}")
    return 0


@triggers.command(
    "rm", examples=("rdev triggers rm trg_0190f3c2", "rdev triggers ls -q | xargs rdev triggers rm")
)
@click.argument("identifiers", nargs=-1, required=True, metavar="ID…")
@click.pass_obj
def rm(app: App, /, identifiers: tuple[str, ...]) -> int:
    """Delete triggers and the log of what came to them; what they started goes on."""
    with app.connect() as api:
        for trigger in [ids.trigger_id(api, text) for text in identifiers]:
            api.delete(f"/v1/triggers/{trigger}", if_match="*")
            app.console.line(f"{trigger} deleted")
    return 0


@triggers.command(
    "rotate",
    examples=(
        "rdev triggers rotate trg_0190f3c2",
        "rdev triggers rotate trg_0190f3c2 --grace 1h -o json",
    ),
)
@click.option("--grace", type=DURATION, help="How long the old one is taken.  [default: 1d]")
@output_option()
@click.argument("identifier", type=TEXT, metavar="ID")
@click.pass_obj
def rotate(app: App, /, identifier: str, grace: int | None, mode: str) -> int:
    """Replace the secret that GitHub signs with, and print it; it is shown this once."""
    with app.connect() as api:
        path = f"/v1/triggers/{ids.trigger_id(api, identifier)}/rotate"
        body = {} if grace is None else {"grace_s": grace}
        made = api.create(path, body, starting=False).object
    if mode != "text":
        app.console.json(made, compact=mode == "jsonl")
        return 0
    app.console.line(_secret(made))
    return 0


@triggers.command(
    "test",
    examples=(
        'rdev triggers test trg_0190f3c2 --type com.example.hello --data \'{"name":"Ada"}\'',
        "rdev triggers test trg_0190f3c2 --event @event.json",
    ),
)
@click.option("--type", "type_", type=TEXT, metavar="TYPE", help="The event's type.")
@click.option("--source", type=TEXT, default="/cli", show_default=True, help="Its source.")
@click.option("--subject", type=TEXT, help="Its subject.")
@click.option("--data", type=JSON, help="Its data, as JSON, @FILE or @-.")
@click.option("--event", type=JSON, help="Or a whole CloudEvent, as JSON, @FILE or @-.")
@click.option(
    "--channel", type=click.Choice(_CHANNELS), default="http", show_default=True,
    help="How it comes.",
)  # fmt: skip
@output_option()
@click.argument("identifier", type=TEXT, metavar="ID")
@click.pass_obj
def test(app: App, /, identifier: str, channel: str, event: Any, mode: str, **given: Any) -> int:
    """Show the command that an event would give; nothing runs, and 1 says that none would."""
    if event is None and not given["type_"]:
        raise WrongUsage("say what happens: --type com.example.something, or --event")
    if event is None:
        event = {"type": given["type_"], **{n: given[n] for n in ("source", "subject", "data")}}
        event = {name: value for name, value in event.items() if value is not None}
    with app.connect() as api:
        path = f"/v1/triggers/{ids.trigger_id(api, identifier)}/test"
        found = api.post(path, {"event": event, "channel": channel}).object
    if mode != "text":
        app.console.json(found, compact=mode == "jsonl")
    elif found.get("command"):
        app.console.json(found["command"])
    else:
        app.console.line(printable(f"{found.get('reason')}: {found.get('detail')}"))
    return exit_codes.OK if found.get("command") else exit_codes.FAILED


@triggers.command(
    "matches",
    examples=(
        "rdev triggers matches trg_0190f3c2",
        "rdev triggers matches trg_0190f3c2 --outcome refused -n 5",
    ),
)
@click.option("--outcome", type=click.Choice(["submitted", "refused"]), help="Only these.")
@click.option(
    "-n", "most", type=click.IntRange(min=1), default=20, show_default=True, help="At most."
)
@output_option()
@click.argument("identifier", type=TEXT, metavar="ID")
@click.pass_obj
def matches(app: App, /, identifier: str, outcome: str | None, most: int, mode: str) -> int:
    """List the events that came to a trigger and what became of them, newest first."""
    with app.connect() as api:
        path = f"/v1/triggers/{ids.trigger_id(api, identifier)}/matches"
        asked = {"outcome": outcome} if outcome else {}
        items = list(api.pages(path, asked, limit=most))
    headers = ("AT", "OUTCOME", "EVENT", "SOURCE", "COMMAND OR WHY")
    rows = map(_match_row, items)
    print_items(app.console, items, mode, headers, rows, empty="nothing has come yet")
    return 0


# -- printing --------------------------------------------------------------------------------------


def _print_made(console: Console, made: dict[str, Any], mode: str) -> None:
    if mode != "text":
        console.json(made, compact=mode == "jsonl")
        return
    console.line(_id(made))
    if address := (made.get("links") or {}).get("github"):
        console.warn(f"GitHub sends to {address} with the secret {_secret(made)}")
        console.warn("the secret is not shown again")


def _print_one(console: Console, trigger: dict[str, Any], mode: str) -> None:
    if mode != "text":
        console.json(trigger, compact=mode == "jsonl")
        return
    rate = trigger.get("rate_limit") or {}
    facts = {
        "id": _id(trigger),
        "name": trigger.get("name"),
        "state": _state(trigger),
        "owner": trigger.get("key_id"),
        "accepts": " ".join(trigger.get("accept") or []),
        "rate limit": f"{rate.get('limit')}/{rate.get('window_s')}s",
        "created at": trigger.get("created_at"),
        "updated at": trigger.get("updated_at"),
        "github": (trigger.get("links") or {}).get("github") or "-",
    }
    for name, value in facts.items():
        console.line(f"{name.ljust(10)}  {printable(str(value))}")
    console.json({"filter": trigger.get("filter"), "command": trigger.get("command")})


def _row(item: dict[str, Any]) -> tuple[str, ...]:
    command = item.get("command") or {}
    kinds = command.get("kinds") or [command.get("kind")]
    text = next((command[n] for n in ("script", "prompt", "argv", "args") if n in command), "")
    shown = " ".join(map(str, text)) if isinstance(text, list) else str(text)
    return (
        _id(item),
        _state(item),
        " ".join(item.get("accept") or []),
        printable(" ".join(map(str, command.get("projects") or [command.get("project")]))),
        printable(str(item.get("name"))),
        printable(f"{' '.join(map(str, kinds))}: {shown or 'from data'}"),
    )


def _match_row(item: dict[str, Any]) -> tuple[str, ...]:
    why = f"{item.get('reason')}: {item.get('detail')}"
    return (
        age(parse_time(item.get("at")), dt.datetime.now(dt.UTC)),
        str(item.get("outcome")),
        printable(str(item.get("event_id"))),
        printable(str(item.get("source"))),
        printable(str(item.get("command_id") or why)),
    )


def _state(trigger: dict[str, Any]) -> str:
    return "enabled" if trigger.get("enabled") else "disabled"


def _id(trigger: Any) -> str:
    if isinstance(trigger, dict) and isinstance(trigger.get("id"), str):
        return str(trigger["id"])
    raise ServerFault("the server's answer is not a trigger; is this an rdev server?")


def _secret(made: dict[str, Any]) -> str:
    """The secret of a first answer; it was lost when the first answer was."""
    if made.get("secret"):
        return str(made["secret"])
    raise OutcomeUnknown(
        f"{_id(made)} has a new secret, but the answer that held it was lost on the way",
        hint=f"make another with `rdev triggers rotate {_id(made)}`",
    )
