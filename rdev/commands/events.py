"""`rdev events`: send one, and look at those nothing came of."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import TYPE_CHECKING, Any

import click

from rdev import exit_codes, ids
from rdev.app import App
from rdev.errors import ServerFault, WrongUsage
from rdev.listing import print_items
from rdev.options import JSON, LABEL, TEXT, output_option
from rdev.text import age, parse_time, printable
from rdev.verb import Verbs

if TYPE_CHECKING:
    from rdev.output import Console


@click.group(cls=Verbs)
def events() -> None:
    """Send an event, see those that nothing came of, and replay them."""


@events.command(
    "send",
    examples=(
        'rdev events send --type com.example.hello --data \'{"name":"Ada"}\'',
        "rdev events send --event @event.json -o json",
    ),
)
@click.option("--type", "type_", type=TEXT, metavar="TYPE", help="What happened.")
@click.option("--source", type=TEXT, help="Where it happened.  [default: /cli]")
@click.option("--subject", type=TEXT, help="What it happened to.")
@click.option(
    "--id", "id_", type=TEXT, metavar="ID", help="Sent twice, it counts once.  [default: a new one]"
)
@click.option("--data", type=JSON, help="Its data, as JSON, @FILE or @-.")
@click.option(
    "--attribute", "attributes", type=LABEL, multiple=True, metavar="NAME=VALUE",
    help="A further attribute; repeat.",
)  # fmt: skip
@click.option("--event", type=JSON, help="Or a whole CloudEvent, as JSON, @FILE or @-.")
@output_option()
@click.pass_obj
def send(app: App, /, event: Any, mode: str, **given: Any) -> int:
    """Send an event, and print the commands it started; 125 says that it started none."""
    body = _event(event, given)
    with app.connect() as api:
        answer = api.post("/v1/events", body, kind="application/cloudevents+json").object
    if mode != "text":
        app.console.json(answer, compact=mode == "jsonl")
    started = _print_received(app.console, answer.get("events"), quiet=mode != "text")
    return exit_codes.OK if started else exit_codes.REFUSED


def _event(whole: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The id is chosen here, so that an attempt whose answer was lost can be repeated."""
    options = {
        "type": "type_",
        "source": "source",
        "subject": "subject",
        "id": "id_",
        "data": "data",
    }
    named = {n: given[o] for n, o in options.items() if given[o] is not None}
    named |= dict(given["attributes"])
    if whole is not None and (named or not isinstance(whole, dict)):
        raise WrongUsage("--event takes a JSON object, and nothing goes with it")
    event = named if whole is None else whole
    if not event.get("type"):
        raise WrongUsage("say what happened: --type com.example.something")
    plain = {"specversion": "1.0", "id": uuid.uuid4().hex, "source": "/cli"}
    kind = {"datacontenttype": "application/json"} if "data" in event else {}
    return plain | kind | event


def _print_received(console: Console, received: Any, *, quiet: bool) -> bool:
    """Commands on standard output, why there are none beside it; whether there is one."""
    if not isinstance(received, list):
        raise ServerFault("the server's answer is not about events; is this an rdev server?")
    commands = [t for event in received for t in event.get("triggers", [])]
    started = [t for t in commands if t.get("command_id")]
    if quiet:
        return bool(started)
    for one in started:
        console.line(str(one["command_id"]))
        if one.get("duplicate"):
            console.say(f"{one['command_id']} was started before, by the same event")
    for one in commands:
        if not one.get("command_id"):
            console.warn(printable(f"{one.get('trigger_id')} refused it: {one.get('reason')}"))
    for event in received:
        if not event.get("triggers"):
            console.warn(printable(f"nothing started: {event.get('outcome')}"))
    return bool(started)


@events.command("dead", examples=("rdev events dead", "rdev events dead --reason no_trigger --all"))
@click.option("--reason", type=TEXT, help="Only with this reason, such as no_trigger.")
@click.option("--type", "type_", type=TEXT, metavar="TYPE", help="Only of this type.")
@click.option("--source", type=TEXT, help="Only from this source.")
@click.option("--all", "all_", is_flag=True, help="Those that were replayed, too.")
@click.option(
    "-n", "most", type=click.IntRange(min=1), default=20, show_default=True, help="At most."
)
@click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
@output_option()
@click.pass_obj
def dead(app: App, /, all_: bool, most: int, quiet: bool, mode: str, **given: Any) -> int:
    """List events that nothing came of, newest first."""
    names = {"reason": "reason", "type": "type_", "source": "source"}
    asked = {n: str(given[o]) for n, o in names.items() if given[o]}
    asked |= {} if all_ else {"replayed": "false"}
    with app.connect() as api:
        items = list(api.pages("/v1/events/dead-letters", asked, limit=most))
    console = app.console
    if quiet:
        for item in items:
            console.line(str(item.get("id")))
        return 0
    headers = ("ID", "AGE", "REASON", "TYPE", "SOURCE", "DETAIL")
    print_items(console, items, mode, headers, map(_row, items), empty="no dead letter")
    return 0


def _row(item: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(item.get("id")),
        age(parse_time(item.get("created_at")), dt.datetime.now(dt.UTC)),
        *(printable(str(item.get(n) or "-")) for n in ("reason", "type", "source", "detail")),
    )


@events.command(
    "replay",
    examples=(
        "rdev events replay dlt_0190f3c2",
        "rdev events dead -q | xargs rdev events replay",
    ),
)
@click.argument("identifiers", nargs=-1, required=True, metavar="ID…")
@click.pass_obj
def replay(app: App, /, identifiers: tuple[str, ...]) -> int:
    """Take dead letters once more, the way they came; 125 says that one started nothing."""
    good = True
    with app.connect() as api:
        for letter in [ids.letter_id(api, text) for text in identifiers]:
            done = api.post(f"/v1/events/dead-letters/{letter}/replay").object
            outcome = str(done.get("outcome"))
            app.console.line(f"{letter} {printable(outcome)}")
            good = good and outcome in ("submitted", "duplicate", "published")
    return exit_codes.OK if good else exit_codes.REFUSED
