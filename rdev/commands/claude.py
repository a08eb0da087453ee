"""`rdev claude`: a prompt for claude in a project, in a new session or an old one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from rdev import ids
from rdev.app import App
from rdev.errors import WrongUsage
from rdev.options import TEXT, Decorator, F, submit_options
from rdev.submission import Showing, Wishes, see_through, start
from rdev.text import require_utf8
from rdev.verb import Verb

if TYPE_CHECKING:
    from rdev.http import Api

_MODES = ("acceptEdits", "auto", "bypassPermissions", "default", "dontAsk", "plan")


def _claude_options(function: F) -> F:
    options: list[Decorator[Any]] = [
        click.option("--session", type=TEXT, metavar="ID", help="Go on with this session."),
        click.option("--continue", "resume", is_flag=True, help="Go on with the latest session."),
        click.option("--fork", is_flag=True, help="Leave that session as it is; go on in a copy."),
        click.option(
            "--if-session-busy",
            type=click.Choice(["queue", "reject", "fork"]),
            help="When the session is in use: wait, be refused, or fork.  [default: queue]",
        ),
        click.option("--model", type=TEXT, help="Model."),
        click.option("--fallback-model", type=TEXT, help="Model for when the first is overloaded."),
        click.option("--effort", type=TEXT, help="How hard to think, such as low or high."),
        click.option(
            "--permission-mode", type=click.Choice(_MODES), help="What claude may do unasked."
        ),
        click.option(
            "--allowed-tool", "allowed_tools", type=TEXT, multiple=True, help="Tool to allow."
        ),
        click.option(
            "--disallowed-tool", "disallowed_tools", type=TEXT, multiple=True, help="Tool to deny."
        ),
        click.option("--append-system-prompt", type=TEXT, help="Text behind the system prompt."),
        click.option("--max-turns", type=click.IntRange(min=1), help="Most turns."),
        click.option(
            "--max-budget-usd", type=click.FloatRange(min=0, min_open=True), help="Most cost."
        ),
        click.option("--json-schema", type=TEXT, help="Schema of the answer: JSON, or @FILE."),
        click.option("--mcp-servers", type=TEXT, help="MCP servers by name: JSON, or @FILE."),
        click.option("--require-mcp", is_flag=True, help="Fail when an MCP server does not start."),
        click.option(
            "--approvals",
            is_flag=True,
            help="Ask before each use of a tool that is not allowed; here, on a terminal.",
        ),
        click.option("--partial-messages", is_flag=True, help="Stream messages as they grow."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@click.command(
    cls=Verb,
    examples=(
        "rdev claude -p demo 'Say what this repository is for'",
        "rdev claude -p demo --continue --max-turns 5 'Now write it into the README'",
    ),
)
@submit_options
@_claude_options
@click.argument("prompt", required=False, metavar="[PROMPT]")
@click.pass_obj
def claude(app: App, /, prompt: str | None, **values: Any) -> int:
    """Give claude a prompt in a project and print its answer."""
    common = {name: values.pop(name) for name in Wishes.__dataclass_fields__}
    session = {name: values.pop(name) for name in ("session", "resume", "fork", "if_session_busy")}
    wishes = Wishes(**common)
    text = _prompt(prompt)
    options = _options(values)
    with app.connect() as api:
        project = app.project(api, wishes.project)
        specific: dict[str, Any] = {"kind": "claude", "prompt": text}
        if chosen := _session(api, project, **session):
            specific["session"] = chosen
        if options:
            specific["options"] = options
        command = start(api, "/v1/commands", wishes.body(project, specific))
        showing = Showing(wishes.detach, wishes.on_interrupt, wishes.mode)
        return see_through(app, api, command, showing)


def _prompt(given: str | None) -> str:
    """The argument, or standard input for `-` and in a pipe."""
    if given is None and sys.stdin.isatty():
        raise WrongUsage("say what claude is to do: PROMPT, or text on standard input")
    text = sys.stdin.read() if given in (None, "-") else given
    if not text or not text.strip():
        raise WrongUsage("the prompt is empty")
    try:
        return require_utf8(text)
    except ValueError as error:
        raise WrongUsage(f"the prompt: {error}") from error


def _options(values: dict[str, Any]) -> dict[str, Any]:
    """claude's own options; those that nobody set are left to the server."""
    for name in ("json_schema", "mcp_servers"):
        if values[name] is not None:
            values[name] = _json(name, values[name])
    for name in ("allowed_tools", "disallowed_tools"):
        values[name] = list(values[name])
    return {name: value for name, value in values.items() if value not in (None, [], False)}


def _json(name: str, text: str) -> dict[str, Any]:
    option = f"--{name.replace('_', '-')}"
    try:
        content = Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text
        value = json.loads(content)
    except (OSError, ValueError) as error:
        raise WrongUsage(f"{option}: {error}") from error
    if not isinstance(value, dict):
        raise WrongUsage(f"{option} must be a JSON object")
    return value


def _session(
    api: Api,
    project: str,
    *,
    session: str | None,
    resume: bool,
    fork: bool,
    if_session_busy: str | None,
) -> dict[str, Any] | None:
    if session is not None and resume:
        raise WrongUsage("use either --session or --continue")
    if session is None and not resume:
        if fork or if_session_busy:
            raise WrongUsage("--fork and --if-session-busy need --session or --continue")
        return None
    chosen = ids.session_id(api, project, session) if session else _latest_session(api, project)
    busy = {"if_busy": if_session_busy} if if_session_busy else {}
    return {"mode": "fork" if fork else "resume", "id": chosen, **busy}


def _latest_session(api: Api, project: str) -> str:
    """The session that was used last."""
    path = f"/v1/projects/{quote(project, safe='')}/sessions"
    for item in api.pages(path, {}, limit=1):
        if isinstance(item, dict) and isinstance(item.get("id"), str):
            return str(item["id"])
    raise WrongUsage(f"there is no session in {project} to continue")
