"""`rdev config`: the commands, skills and agents in a workspace's `.claude`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import click

from rdev import exit_codes
from rdev.app import App
from rdev.definitions import read_source, write_folder
from rdev.errors import CliError, ServerFault, WrongUsage
from rdev.listing import print_items
from rdev.options import TEXT, output_option, project_option
from rdev.text import printable
from rdev.verb import Verbs

if TYPE_CHECKING:
    from rdev.http import Api
    from rdev.output import Console

KINDS: Final = ("commands", "skills", "agents")
_EMPTY: Final = "nothing there; `rdev config put` writes something"
_LOADED: Final[Mapping[Any, str]] = {True: "yes", False: "no"}


def _kind(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("kind", type=click.Choice(KINDS), metavar="KIND")(function)


def _name(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("name", type=TEXT, metavar="NAME")(function)


def _source(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("source", type=click.Path(path_type=str), metavar="FILE|DIR|-")(function)


def _if_match(function: Callable[..., Any]) -> Callable[..., Any]:
    words = "Only if it is still this version (the ETag that `get -o json` shows)."
    return click.option("--if-match", type=TEXT, metavar="ETAG", help=words)(function)


@click.group(cls=Verbs)
def config() -> None:
    """List, read, write and check what claude loads from a workspace's .claude."""


@config.command("ls", examples=("rdev config ls -p demo", "rdev config ls skills -o json"))
@project_option
@output_option()
@click.argument("kind", type=click.Choice(KINDS), metavar="[KIND]", required=False)
@click.pass_obj
def ls(app: App, /, project: str | None, kind: str | None, mode: str) -> int:
    """List commands, skills and agents, broken ones too, and whether claude loads them."""
    with app.connect() as api:
        base = _base(app, api, project)
        items = [
            item for of in ([kind] if kind else KINDS) for item in _items(app, api, f"{base}/{of}")
        ]
    headers = ("KIND", "NAME", "LOADED", "ERRORS", "DESCRIPTION")
    rows = ((*_what(i), str(_errors(i) or "-"), _text(i, "description")) for i in items)
    print_items(app.console, items, mode, headers, rows, empty=_EMPTY)
    return 0


@config.command(
    "get",
    examples=(
        "rdev config get commands deploy > deploy.md",
        "rdev config get skills reading --to reading/",
    ),
)
@project_option
@click.option("--to", type=click.Path(path_type=Path), help="Write a skill's files here.")
@output_option()
@_kind
@_name
@click.pass_obj
def get(app: App, /, project: str | None, to: Path | None, mode: str, kind: str, name: str) -> int:
    """Print one as it is in the workspace; of a skill its SKILL.md, or with --to everything."""
    with app.connect() as api:
        answer = api.get(_path(app, api, project, kind, name))
    found = answer.object
    if to is not None:
        for path in write_folder(to, found):
            app.console.line(str(path))
    elif mode != "text":
        app.console.json(found | {"etag": answer.headers.get("etag")}, compact=mode == "jsonl")
    elif found.get("content") is None:
        raise ServerFault(f"{kind}/{name} is not text (UTF-8); read it in the workspace")
    else:
        app.console.remote("stdout", str(found["content"]).encode())
    return 0


@config.command(
    "put",
    examples=(
        "rdev config put commands ops:deploy deploy.md",
        "rdev config put skills reading ./reading",
    ),
)
@project_option
@click.option("--lenient", is_flag=True, help="Write it in spite of what is wrong with its head.")
@click.option("--create", is_flag=True, help="Only if there is none of this name.")
@_if_match
@output_option()
@_kind
@_name
@_source
@click.pass_obj
def put(
    app: App,
    /,
    project: str | None,
    lenient: bool,
    create: bool,
    if_match: str | None,
    mode: str,
    kind: str,
    name: str,
    source: str,
) -> int:
    """Write one from a file, a skill's folder, or standard input; a skill's file keeps the rest."""
    if create and if_match is not None:
        raise WrongUsage("what is to be created has no version yet: leave out one of the two")
    body = read_source(kind, source, sys.stdin.buffer)
    query = "?validate=lenient" if lenient else ""
    with app.connect() as api:
        base = _base(app, api, project)
        path = f"{base}/{kind}/{quote(name, safe=':')}"
        tag = if_match or (None if create else _tag(api, path))
        if tag is None:
            done = "created"
            made = {"name": name, **body}
            answer = api.create(f"{base}/{kind}{query}", made, starting=False)
        else:
            done = "written"
            answer = api.put(path + query, body, if_match=tag)
    written = answer.object
    if mode != "text":
        tagged = written | {"etag": answer.headers.get("etag")}
        app.console.json(tagged, compact=mode == "jsonl")
        return 0
    app.console.line(f"{kind}/{name} {done}")
    _tell(app.console, written)
    return 0


@config.command(
    "rm", examples=("rdev config rm commands ops:deploy", "rdev config rm skills reading -p demo")
)
@project_option
@_if_match
@_kind
@_name
@click.pass_obj
def rm(app: App, /, project: str | None, if_match: str | None, kind: str, name: str) -> int:
    """Remove one; of a skill the whole folder."""
    with app.connect() as api:
        path = _path(app, api, project, kind, name)
        tag = if_match or str(api.get(path).headers.get("etag") or "*")
        api.delete(path, if_match=tag)
    app.console.line(f"{kind}/{name} removed")
    return 0


@config.command(
    "validate",
    examples=(
        "rdev config validate agents reviewer reviewer.md",
        "rdev config validate skills reading ./reading -o json",
    ),
)
@project_option
@output_option()
@_kind
@_name
@_source
@click.pass_obj
def validate(app: App, /, project: str | None, mode: str, kind: str, name: str, source: str) -> int:
    """Check one and write nothing; exits 1 when it would be refused."""
    body = {"name": name, **read_source(kind, source, sys.stdin.buffer)}
    with app.connect() as api:
        verdict = api.post(f"{_base(app, api, project)}/{kind}:validate", body).object
    valid = verdict.get("valid") is True
    if mode != "text":
        app.console.json(verdict, compact=mode == "jsonl")
    else:
        for issue in _list(verdict.get("issues")):
            app.console.line(_issue(issue))
        app.console.line("valid" if valid else "not valid")
    return 0 if valid else exit_codes.FAILED


@config.command(
    "effective", examples=("rdev config effective -p demo", "rdev config effective -o jsonl")
)
@project_option
@output_option()
@click.pass_obj
def effective(app: App, /, project: str | None, mode: str) -> int:
    """Show what claude will load of all that is there, and why not of the rest."""
    with app.connect() as api:
        items = _items(app, api, f"{_base(app, api, project)}/effective")
    headers = ("KIND", "NAME", "LOADED", "REASON")
    rows = ((*_what(item), _reason(item)) for item in items)
    print_items(app.console, items, mode, headers, rows, empty=_EMPTY)
    return 0


# -- the server ------------------------------------------------------------------------------------


def _base(app: App, api: Api, project: str | None) -> str:
    return f"/v1/claude-config/{quote(app.project(api, project), safe='')}"


def _path(app: App, api: Api, project: str | None, kind: str, name: str) -> str:
    return f"{_base(app, api, project)}/{kind}/{quote(name, safe=':')}"


def _tag(api: Api, path: str) -> str | None:
    """The ETag of what is there; None when nothing is.

    What is there and has none, rdev will not change: `*` lets the server say why.
    """
    try:
        return str(api.get(path).headers.get("etag") or "*")
    except CliError as error:
        if (error.problem or {}).get("code") != "not_found":
            raise
        return None


def _items(app: App, api: Api, path: str) -> list[dict[str, Any]]:
    page = api.get(path).object
    if page.get("truncated"):
        app.console.warn("there is more than rdev looks at; not all of it is listed")
    items = page.get("items")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ServerFault(f"{path} did not answer with a list")
    return items


# -- printing --------------------------------------------------------------------------------------


def _what(item: dict[str, Any]) -> tuple[str, str, str]:
    loaded = _mapping(item.get("effective")).get("loaded")
    return (_text(item, "kind"), _text(item, "name"), _LOADED.get(loaded, "?"))


def _errors(item: dict[str, Any]) -> int:
    return sum(issue.get("level") == "error" for issue in _list(item.get("issues")))


def _reason(item: dict[str, Any]) -> str:
    return printable(str(_mapping(item.get("effective")).get("reason") or ""))


def _text(item: dict[str, Any], key: str) -> str:
    return printable(str(item.get(key) or "-"))


def _tell(console: Console, written: dict[str, Any]) -> None:
    """What to know about something just written."""
    for issue in _list(written.get("issues")):
        console.warn(_issue(issue))
    loaded, reason = _mapping(written.get("effective")).get("loaded"), _reason(written)
    if loaded is not True:
        console.warn(f"claude will not load it: {reason}")
    elif reason:
        console.warn(reason)


def _issue(issue: dict[str, Any]) -> str:
    where = f"line {issue['line']}: " if issue.get("line") else ""
    level = "" if issue.get("level") == "error" else " (warning)"
    return printable(f"{where}{issue.get('message')}{level}")


def _list(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
