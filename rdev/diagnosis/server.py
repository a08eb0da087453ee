"""Checks of the server: is it there, is it ready, does it know our key."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import urlsplit

from rdev.diagnosis.finding import Check, Finding, bad, ok, warn
from rdev.errors import CliError, NotAllowed, Unreachable
from rdev.settings import Server, Settings
from rdev.text import printable

_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


def reachable(settings: Settings) -> Finding:
    """Whether something answers `/ready` at the URL, and what it says."""
    # httpx costs a tenth of a second to import: only where a server is asked.
    from rdev.http import probe

    try:
        server = settings.server()
    except Unreachable as error:
        return warn("server", str(error), error.hint or "start one with `rdev up`")
    except CliError as error:
        return bad("server", str(error), error.hint or "correct it")
    try:
        answer = probe(server, "/ready")
    except Unreachable as error:
        advice = "start it with `rdev up`, or correct the URL"
        return bad("server", str(error), advice)
    if answer.status == 200:
        return ok("server", f"{server.url} is ready (from {server.source})")
    return bad("server", f"{server.url} answers {answer.status}", _unready(answer.body))


def _unready(body: bytes) -> str:
    text = printable(body.decode(errors="replace"))[:300]
    return f"look into its log; it says: {text}" if text else "look into its log"


def key(settings: Settings) -> Finding:
    """Whether the server takes the key."""
    from rdev.http import Api

    try:
        server = settings.server()
        # Nothing is tried twice: doctor reports how things are now.
        with Api(server, bound_s=0) as api:
            api.get("/v1/projects")
    except NotAllowed as error:
        return _refused(error)
    except Unreachable:
        return warn("key", "not checked, because no server answers", "start one with `rdev up`")
    except CliError as error:
        return bad("key", str(error), error.hint or "look into the server's log")
    return ok("key", f"accepted (from {server.key_source})")


def _refused(error: NotAllowed) -> Finding:
    problem: dict[str, Any] = error.problem or {}
    if problem.get("code") == "forbidden":
        return ok("key", "accepted, though it may not read projects")
    return bad("key", str(error), error.hint or "set RDEV_API_KEY, or run `rdev login`")


def encrypted(settings: Settings) -> Finding:
    """Whether the key travels in the clear."""
    try:
        server: Server = settings.server()
    except CliError as error:
        return warn("encryption", f"not checked: {error}", error.hint or "correct it")
    parts = urlsplit(server.url)
    if parts.scheme == "https" or parts.hostname in _LOOPBACK:
        return ok("encryption", "the key is sent over https or stays on this machine")
    return warn("encryption", f"{server.url} sends the key in the clear", "use an https URL")


def projects(settings: Settings) -> Finding:
    """What is wrong with projects: a bad entry of their settings, a pod that cannot be used."""
    from rdev.http import Api

    try:
        server = settings.server()
        with Api(server, bound_s=0) as api:
            found = api.get("/v1/projects").json["items"]
    except CliError as error:
        return warn("projects", f"not checked: {error}", error.hint or "see the lines above")
    troubles = [f"{p['name']}: {issue}" for p in found for issue in p.get("issues") or ()]
    troubles += _notes(server)
    if not troubles:
        return ok("projects", f"{len(found)} without issues")
    said = "; ".join(printable(trouble) for trouble in troubles)
    return warn("projects", said, "correct projects.yaml, ConfigMap rdev-projects or the pods")


def _notes(server: Server) -> list[str]:
    """Troubles that belong to no project, as `/ready` has them."""
    from rdev.http import probe

    try:
        checks = json.loads(probe(server, "/ready").body).get("checks", {})
    except (Unreachable, ValueError):  # another check says so
        return []
    return [
        str(check["detail"])
        for name, check in checks.items()
        if name.startswith("discovery/") and check.get("detail")
    ]


CHECKS: Final[tuple[Check, ...]] = (reachable, key, projects, encrypted)
