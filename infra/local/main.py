"""`rdev up`: the whole of rdev on one machine, from its first second to its last.

Start: lock the home, take the port, start PostgreSQL, migrate, serve, tick once, say `ready`.
Stop (Ctrl-C, SIGTERM): end commands, functions, PostgreSQL, in this order, within five seconds.
SIGKILL: the kernel ends functions and PostgreSQL with us; commands run on and are adopted by the
next start.
"""

import asyncio
import json
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress

from infra.local import display, manifests, status
from infra.local.cluster import Cluster, Secrets, listen
from infra.local.database import EmbeddedDatabase
from infra.local.faults import FaultsError
from infra.local.forking import ZygoteLauncher
from infra.local.home import Home, HomeError
from infra.local.manifests import ManifestError, Manifests
from infra.local.postgres import PostgresError
from infra.local.process import Launcher, SpawnLauncher, last_line
from infra.local.settings import Settings
from infra.local.wire import ClientPool, Headers, PeerGoneError, complete_body

log = logging.getLogger("rdev.up")

_STOP_WITHIN_S = 4.6  # of the five seconds promised; the rest is PostgreSQL's
_READY_POLL_S = 0.05
_COMPLAIN_FIRST_S, _COMPLAIN_EVERY_S = 3.0, 10.0
_OPEN_FILES = 65_536
_PROBE: Headers = [(b"host", b"127.0.0.1"), (b"accept", b"application/json")]


class UpError(Exception):
    """rdev cannot run here; the message is one line for the person who started it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run rdev until it is told to stop and return the exit status.

    `argv` are the options after `rdev up`; None means those of this process. What is wrong is said
    in one line on stderr, with exit status 1.
    """
    settings = Settings.read(argv, os.environ)
    try:
        asyncio.run(up(settings))
    except (FaultsError, HomeError, ManifestError, PostgresError, UpError) as error:
        print(f"rdev up: {error}", file=sys.stderr)
        return 1
    return 0


async def up(settings: Settings) -> None:
    """Run rdev until SIGINT or SIGTERM; raise an error that says why when it cannot start."""
    stop = _stop_on_signals()
    found = manifests.load(settings.base, settings.workspaces)
    home = Home(settings.home)
    home.lock()
    public = _take_port(settings.port)
    home.prepare()
    _raise_file_limit()
    run = asyncio.get_running_loop().create_task(_run(settings, home, found, public))
    stopped = asyncio.get_running_loop().create_task(stop.wait())
    await asyncio.wait([run, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    run.cancel()
    with suppress(asyncio.CancelledError):
        await run


async def _run(settings: Settings, home: Home, found: Manifests, public: socket.socket) -> None:
    """Hold everything up until cancelled, and take it down in the reverse order."""
    cluster = Cluster(settings, home, found)
    terminal = display.install(lambda: status.rows(cluster.functions), as_json=settings.json)
    if terminal is not None:
        terminal.start()
    launcher = _launcher(settings, home)
    database = None
    if settings.database_url is None:
        database = EmbeddedDatabase(home.path, on_restart=cluster.tick_now)
    try:
        if database is not None:
            await database.start()
        database_url = settings.database_url or (database.url if database else "")
        cluster.provide(_secrets(settings, home, database_url))
        await _migrate(settings, home, cluster)
        try:
            await cluster.start(public, launcher)
            await _until_ready(public.getsockname()[1], cluster)
            url = f"http://127.0.0.1:{public.getsockname()[1]}"
            home.announce(url)
            display.announce(url, str(home.path), as_json=settings.json)
            await cluster.run()
        finally:
            home.retract()
            await cluster.stop(cancel_commands=not settings.keep_running, within_s=_STOP_WITHIN_S)
    finally:
        await launcher.close()
        if database is not None:
            await database.stop()
        if terminal is not None:
            terminal.stop()


def _launcher(settings: Settings, home: Home) -> Launcher:
    """Start the zygote early: it imports while PostgreSQL starts."""
    if settings.zygote is None:
        return SpawnLauncher(settings.root)
    launcher = ZygoteLauncher(settings.zygote, settings.root, home.logs / "zygote.log")
    launcher.warm_up()
    return launcher


def _secrets(settings: Settings, home: Home, url: str) -> Secrets:
    """Return what the cluster keeps in its Secrets, by name and key."""
    return {
        ("rdev-database", "url"): url,
        ("rdev-database", "listen-url"): settings.listen_url or url,
        ("rdev-secret-keys", "keys"): settings.secret_keys or home.secret_keys(),
    }


async def _migrate(settings: Settings, home: Home, cluster: Cluster) -> None:
    if not settings.migrate:
        return
    log_file = home.logs / "migrate.log"
    command = [*settings.migrate, str(home.admin_key)]
    spawn = SpawnLauncher(settings.root)
    process = await spawn.launch(command, cluster.migration_environment(), log_file)
    try:
        outcome = await asyncio.shield(process.exited)
    except asyncio.CancelledError:
        process.signal(signal.SIGTERM)  # a migration is one transaction
        raise
    if outcome != 0:
        raise UpError(f"the database cannot be migrated ({log_file}): {last_line(log_file)}")


async def _until_ready(port: int, cluster: Cluster) -> None:
    """Return when /ready answers 200 through the gateway, after a first tick found the projects."""
    await asyncio.shield(cluster.ticker.first)
    pool = ClientPool("127.0.0.1", port)
    loop = asyncio.get_running_loop()
    complain_at = loop.time() + _COMPLAIN_FIRST_S
    while (answer := await _ready(pool)) is not None:
        if loop.time() > complain_at:
            log.warning("not ready yet: %s", answer)
            complain_at = loop.time() + _COMPLAIN_EVERY_S
        await asyncio.sleep(_READY_POLL_S)
    pool.close()


async def _ready(pool: ClientPool) -> str | None:
    """Return None when rdev is ready, else what stands in the way."""
    connection = await pool.get()
    try:
        answer = await connection.request("GET", b"/ready", _PROBE, complete_body(b""))
        said = await answer.body.read_all()
    except PeerGoneError as gone:
        return str(gone)
    finally:
        pool.put(connection)
    return None if answer.status == 200 else _detail(said)


def _detail(body: bytes) -> str:
    """What a problem document says, or the body as it is."""
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")


def _take_port(port: int) -> socket.socket:
    try:
        return listen(port)
    except OSError as error:
        raise UpError(f"port {port} cannot be used ({error.strerror}): set RDEV_PORT") from error


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


def _raise_file_limit() -> None:
    """Every stream is two descriptors here and one in its function, which inherits the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
