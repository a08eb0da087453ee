"""`rdev webhooks`: where events are sent, and what became of them."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from rdev import exit_codes, ids, webhook_text
from rdev.app import App
from rdev.errors import OutcomeUnknown, WrongUsage
from rdev.listing import print_items
from rdev.options import DURATION, TEXT, Pair, output_option
from rdev.retry import Clock
from rdev.verb import Verbs

if TYPE_CHECKING:
    from rdev.http import Api

_MOST = 10_000
_PING_S = 20.0
"""How long a ping is waited for: the receiver has 15 s, a function that starts comes on top."""
_PAUSE_S = 0.25
_AGO = re.compile(r"[0-9]+[smhd]([0-9smhd]*)")

_modes = output_option()
_webhook = click.argument("identifier", type=TEXT, metavar="ID")
_delivery = click.argument("delivery", type=TEXT, metavar="DELIVERY")


def _content(function: Callable[..., Any]) -> Callable[..., Any]:
    """What `create` and `update` have in common."""
    options = (
        click.option(
            "--event", "event_types", type=TEXT, multiple=True, help="A type; repeat for more."
        ),
        click.option(
            "--project", "projects", type=TEXT, multiple=True, help="Only of this project; repeat."
        ),
        click.option(
            "--payload",
            type=click.Choice(["thin", "full"]),
            help="How much is sent: ids, or all that is public.  [default: thin]",
        ),
        click.option(
            "--header",
            "headers",
            type=Pair(from_environment=True),
            multiple=True,
            metavar="NAME[=VALUE]",
            help="Send a header too; NAME alone takes the value from this variable. Repeat.",
        ),
        click.option("--description", type=TEXT, help="What it is for."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.group(cls=Verbs)
def webhooks() -> None:
    """Send events to addresses of yours, and see what became of them."""


@webhooks.command(
    "create",
    examples=(
        "rdev webhooks create https://example.com/hook --project demo",
        "rdev webhooks create https://example.com/hook --event command.failed -o json",
    ),
)
@_content
@_modes
@click.argument("url", type=TEXT, metavar="URL")
@click.pass_obj
def create(app: App, /, url: str, mode: str, **given: Any) -> int:
    """Create a webhook and print its secret; it is shown this once and never again."""
    with app.connect() as api:
        made = api.create("/v1/webhooks", {"url": url} | _fields(given), starting=False).object
    return _print_secret(app, made, mode, f"remove it with `rdev webhooks rm {made.get('id')}`")


@webhooks.command("ls", examples=("rdev webhooks ls", "rdev webhooks ls -q"))
@click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
@_modes
@click.pass_obj
def ls(app: App, /, quiet: bool, mode: str) -> int:
    """List webhooks, newest first."""
    with app.connect() as api:
        items = list(api.pages("/v1/webhooks", {}, limit=_MOST))
    if quiet:
        for item in items:
            app.console.line(str(item.get("id")))
        return 0
    rows = map(webhook_text.webhook_row, items)
    headers, empty = webhook_text.WEBHOOKS, webhook_text.NO_WEBHOOK
    print_items(app.console, items, mode, headers, rows, empty=empty)
    return 0


@webhooks.command(
    "show", examples=("rdev webhooks show whk_0190f3c2", "rdev webhooks show whk_0190f3c2 -o json")
)
@_modes
@_webhook
@click.pass_obj
def show(app: App, /, identifier: str, mode: str) -> int:
    """Show a webhook, without its secret."""
    with app.connect() as api:
        found = api.get(_path(api, identifier)).object
    return _print_one(app, found, mode)


@webhooks.command(
    "update",
    examples=(
        "rdev webhooks update whk_0190f3c2 --enable",
        "rdev webhooks update whk_0190f3c2 --all-events --payload full",
    ),
)
@click.option("--url", type=TEXT, help="Another address.")
@_content
@click.option("--all-events", is_flag=True, help="Every type.")
@click.option("--all-projects", is_flag=True, help="Every project of its key.")
@click.option("--no-headers", is_flag=True, help="No headers of its own.")
@click.option("--enable", is_flag=True, help="Send again; what waits is sent at once.")
@click.option("--disable", is_flag=True, help="Send nothing until it is enabled.")
@_modes
@_webhook
@click.pass_obj
def update(app: App, /, identifier: str, mode: str, **given: Any) -> int:
    """Change a webhook; what is not named stays."""
    body = _changes(given)
    with app.connect() as api:
        found = api.patch(_path(api, identifier), body).object
    return _print_one(app, found, mode)


@webhooks.command(
    "rm",
    examples=("rdev webhooks rm whk_0190f3c2", "rdev webhooks rm whk_0190f3c2 whk_0190f3d8"),
)
@click.argument("identifiers", nargs=-1, required=True, metavar="ID…")
@click.pass_obj
def rm(app: App, /, identifiers: tuple[str, ...]) -> int:
    """Delete webhooks: nothing more is sent."""
    with app.connect() as api:
        wanted = [ids.webhook_id(api, text) for text in identifiers]
        for webhook_id in wanted:
            api.delete(f"/v1/webhooks/{webhook_id}")
            app.console.line(f"{webhook_id} deleted")
    return 0


@webhooks.command(
    "rotate",
    examples=(
        "rdev webhooks rotate whk_0190f3c2",
        "rdev webhooks rotate whk_0190f3c2 --grace 1h -o json",
    ),
)
@click.option("--grace", type=DURATION, help="How long the old secret signs too.  [default: 1d]")
@_modes
@_webhook
@click.pass_obj
def rotate(app: App, /, identifier: str, grace: int | None, mode: str) -> int:
    """Replace the secret and print the new one; until the grace is over both sign."""
    body = {} if grace is None else {"grace_s": grace}
    with app.connect() as api:
        made = api.create(f"{_path(api, identifier)}/rotate", body, starting=False).object
    return _print_secret(app, made, mode, "rotate it again")


@webhooks.command(
    "ping", examples=("rdev webhooks ping whk_0190f3c2", "rdev webhooks ping whk_0190f3c2 -d")
)
@click.option("-d", "--detach", is_flag=True, help="Do not wait for the answer.")
@_modes
@_webhook
@click.pass_obj
def ping(app: App, /, identifier: str, detach: bool, mode: str) -> int:
    """Send a test event and say what was answered; exit with 1 when it did not arrive."""
    with app.connect() as api:
        sent = api.post(f"{_path(api, identifier)}/ping").object
        if not detach:
            sent = _attempted(api, sent)
    return _print_delivery(app, sent, mode, detach=detach)


@webhooks.command(
    "deliveries",
    examples=(
        "rdev webhooks deliveries whk_0190f3c2 --state dead",
        "rdev webhooks deliveries whk_0190f3c2 dlv_0190f3c2 -o json",
    ),
)
@click.option(
    "--state",
    "states",
    type=click.Choice(["pending", "failed", "delivered", "dead"]),
    multiple=True,
    help="Only in this state; repeat for more.",
)
@click.option("--event", "event_types", type=TEXT, multiple=True, help="Only this type; repeat.")
@click.option("--since", type=TEXT, help="Events from then on: 2026-01-31T00:00Z, or 2h ago.")
@click.option("--until", type=TEXT, help="Events before then.")
@click.option(
    "--limit", type=click.IntRange(1, _MOST), default=50, show_default=True, help="At most."
)
@_modes
@_webhook
@click.argument("delivery", type=TEXT, metavar="[DELIVERY]", required=False)
@click.pass_obj
def deliveries(
    app: App, /, identifier: str, delivery: str | None, limit: int, mode: str, **filters: Any
) -> int:
    """List what was sent and every attempt, newest first, or show one with all that was said."""
    with app.connect() as api:
        path = f"{_path(api, identifier)}/deliveries"
        if delivery is not None:
            found = api.get(f"{path}/{ids.delivery_id(api, path, delivery)}").object
            return _print_delivery(app, found, mode, detach=True)
        items = _listed(api, path, filters, limit)
    now = dt.datetime.now(dt.UTC)
    rows = (webhook_text.delivery_row(item, now) for item in items)
    headers, empty = webhook_text.DELIVERIES, webhook_text.NO_DELIVERY
    print_items(app.console, items, mode, headers, rows, empty=empty)
    return 0


@webhooks.command(
    "redeliver",
    examples=(
        "rdev webhooks redeliver whk_0190f3c2 dlv_0190f3c2",
        "rdev webhooks redeliver whk_0190f3c2 dlv_0190f3c2 -o json",
    ),
)
@click.option("-d", "--detach", is_flag=True, help="Do not wait for the answer.")
@_modes
@_webhook
@_delivery
@click.pass_obj
def redeliver(app: App, /, identifier: str, delivery: str, detach: bool, mode: str) -> int:
    """Send one delivery again and say what was answered; exit with 1 when it did not arrive."""
    with app.connect() as api:
        path = f"{_path(api, identifier)}/deliveries"
        sent = api.post(f"{path}/{ids.delivery_id(api, path, delivery)}/redeliver").object
        if not detach:
            sent = _attempted(api, sent)
    return _print_delivery(app, sent, mode, detach=detach)


@webhooks.command(
    "recover",
    examples=(
        "rdev webhooks recover whk_0190f3c2 --since 2h",
        "rdev webhooks recover whk_0190f3c2 --since 2026-01-31T00:00Z --include-delivered",
    ),
)
@click.option("--since", type=TEXT, required=True, help="From then on: a moment, or 2h ago.")
@click.option("--until", type=TEXT, help="Before then.  [default: now]")
@click.option("--include-delivered", is_flag=True, help="Send what was delivered again, too.")
@_modes
@_webhook
@click.pass_obj
def recover(
    app: App, /, identifier: str, since: str, until: str | None, include_delivered: bool, mode: str
) -> int:
    """Send again what was not delivered in a range of time, also what was missed while disabled."""
    body: dict[str, Any] = {"since": _moment(since), "include_delivered": include_delivered}
    if until is not None:
        body["until"] = _moment(until)
    with app.connect() as api:
        path = _path(api, identifier)
        answer = api.post(f"{path}/recover", body).object
    if mode != "text":
        app.console.json(answer, compact=mode == "jsonl")
        return 0
    count = answer.get("deliveries")
    app.console.line(f"{count} {'delivery' if count == 1 else 'deliveries'} on the way")
    return 0


def _path(api: Api, identifier: str) -> str:
    return f"/v1/webhooks/{ids.webhook_id(api, identifier)}"


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    body = {
        n: list(v) if isinstance(v, tuple) else v for n, v in given.items() if v not in (None, ())
    }
    if "headers" in body:
        body["headers"] = dict(body["headers"])
    return body


def _changes(given: dict[str, Any]) -> dict[str, Any]:
    """The body of an update. Raises WrongUsage for nothing, and for two answers to one question."""
    flags = ("all_events", "all_projects", "no_headers", "enable", "disable")
    said = {flag: given.pop(flag) for flag in flags}
    body = _fields(given)
    wide: tuple[tuple[str, str, Any], ...] = (
        ("all_events", "event_types", None),
        ("all_projects", "projects", None),
        ("no_headers", "headers", {}),
        ("enable", "enabled", True),
        ("disable", "enabled", False),
    )
    for flag, name, value in wide:
        if said[flag] and name in body:
            raise WrongUsage(f"{name.replace('_', ' ')}: say one thing or the other")
        if said[flag]:
            body[name] = value
    if not body:
        raise WrongUsage(
            "nothing to change", hint="`rdev webhooks update --help` lists what can be"
        )
    return body


def _moment(text: str) -> str:
    """A moment as the API takes it; `2h` is two hours ago. Raises WrongUsage."""
    if _AGO.fullmatch(text):
        seconds = DURATION.convert(text, None, None)
        at = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds)
        return at.isoformat(timespec="milliseconds")
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError:
        raise WrongUsage(f"{text!r} is no moment; write 2026-01-31T00:00Z, or 2h for ago") from None
    return (at if at.tzinfo else at.astimezone()).isoformat()


def _listed(api: Api, path: str, filters: dict[str, Any], limit: int) -> list[Any]:
    pairs = [("state", state) for state in filters["states"]]
    pairs += [("event_type", name) for name in filters["event_types"]]
    pairs += [(n, _moment(filters[n])) for n in ("since", "until") if filters[n] is not None]
    found: list[Any] = []
    cursor: list[tuple[str, str]] = []
    while len(found) < limit:
        asked = ("limit", str(min(200, limit - len(found))))
        page = api.get_all(path, [*pairs, asked, *cursor]).object
        found += page.get("items") or []
        if not page.get("next_cursor"):
            break
        cursor = [("cursor", str(page["next_cursor"]))]
    return found


def _attempted(api: Api, sent: dict[str, Any]) -> dict[str, Any]:
    """The delivery once an attempt more was made; as it is when that takes too long."""
    path = f"/v1/webhooks/{sent.get('webhook_id')}/deliveries/{sent.get('id')}"
    before, clock = len(sent.get("attempts") or []), Clock()
    deadline = clock.now() + _PING_S
    while clock.now() < deadline:
        sent = api.get(path).object
        if len(sent.get("attempts") or []) > before:
            break
        clock.pause(_PAUSE_S)
    return sent


def _print_secret(app: App, made: dict[str, Any], mode: str, remedy: str) -> int:
    if not made.get("secret"):
        raise OutcomeUnknown(
            f"{made.get('id')} has a secret, but the answer that held it was lost on the way",
            hint=remedy,
        )
    if mode == "text":
        app.console.line(str(made["secret"]))
        app.console.say(f"this is {made.get('id')}; the secret is not shown again")
    else:
        app.console.json(made, compact=mode == "jsonl")
    return 0


def _print_one(app: App, found: dict[str, Any], mode: str) -> int:
    if mode == "text":
        for line in webhook_text.webhook(found):
            app.console.line(line)
    else:
        app.console.json(found, compact=mode == "jsonl")
    return 0


def _print_delivery(app: App, sent: dict[str, Any], mode: str, *, detach: bool) -> int:
    if mode == "text":
        for line in webhook_text.delivery(sent):
            app.console.line(line)
    else:
        app.console.json(sent, compact=mode == "jsonl")
    arrived = sent.get("state") == "delivered"
    return exit_codes.OK if arrived or detach else exit_codes.FAILED
