"""Puts the parts together: functions, gateway, broker and sources behind two listeners."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Mapping

from infra.local import display
from infra.local.broker import Broker
from infra.local.claude import path_with_claude
from infra.local.faults import Faults
from infra.local.gateway import EventSender, Gateway
from infra.local.home import Home
from infra.local.manifests import FunctionSpec, ManifestError, Manifests, SecretKey
from infra.local.process import Launcher
from infra.local.scaler import Function
from infra.local.settings import Settings
from infra.local.sources import Ticker
from infra.local.status import StatusFile
from infra.local.watch import watch_projects
from infra.local.wire import Handler, HttpError, ServerConnection

log = logging.getLogger("rdev.cluster")

RUNNER = "on-command-queued"  # the function that has commands running, and is told to end them
_IMAGE_ROOT = "/app/"
_BACKLOG = 1024
_FOR_COMMANDS = 0.9  # of the time to stop; the other functions end in the rest
_LAST_GRACE_S = 0.2
# Reach a function only where its manifest names them, or not at all.
_NOT_INHERITED = frozenset(
    {
        "PYTHONDONTWRITEBYTECODE",  # without bytecode every start takes several times as long
        "RDEV_API_KEY",
        "RDEV_DATABASE_LISTEN_URL",
        "RDEV_DATABASE_URL",
        "RDEV_SECRET_KEYS",
    }
)

Secrets = Mapping[tuple[str, str], str]


class Cluster:
    """The laptop's Knative, running."""

    def __init__(self, settings: Settings, home: Home, manifests: Manifests) -> None:
        self._settings = settings
        self._internal_socket = listen(0)
        internal = f"http://127.0.0.1:{self._internal_socket.getsockname()[1]}"
        self._environment = {
            **{k: v for k, v in settings.environment.items() if k not in _NOT_INHERITED},
            "RDEV_BROKER_URL": f"{internal}/broker",
            "RDEV_EDGE_OVERWRITES": "1",
            "RDEV_HOME": str(home.path),
            "RDEV_HOST": "127.0.0.1",
            "RDEV_SERVICE_URL": internal + "/services/{service}",
            "RDEV_TRUSTED_PROXIES": "127.0.0.0/8",
            "RDEV_WORKSPACES": settings.workspaces,
            "PATH": path_with_claude(settings.environment.get("PATH", os.defpath)),
        }
        self._home = home
        self._manifests = manifests
        self._secrets: Secrets = {}
        self.functions: Mapping[str, Function] = {}
        self._servers: list[asyncio.Server] = []
        self._status_file = StatusFile(home.path / "status.json")
        self._ticking: asyncio.Task[None] | None = None

    def provide(self, secrets: Secrets) -> None:
        """Set what manifests find under `secretKeyRef`."""
        self._secrets = secrets

    def migration_environment(self) -> Mapping[str, str]:
        """Return what a migration needs to know, which is where the database is."""
        return {**self._environment, "RDEV_DATABASE_URL": self._secrets["rdev-database", "url"]}

    def tick_now(self) -> None:
        if self._ticking is not None:
            self.ticker.tick_now()

    async def start(self, public: socket.socket, launcher: Launcher) -> None:
        """Begin to serve; returns before anything was started that nobody asked for."""
        self._url = f"http://127.0.0.1:{public.getsockname()[1]}"
        self._environment.setdefault("RDEV_PUBLIC_URL", self._url)
        self.functions = {
            spec.name: Function(
                spec,
                {**self._environment, **self._own_environment(spec)},
                launcher,
                self._home.logs / f"{spec.name}.log",
                idle_s=self._settings.idle_s,
                on_change=self._instances_changed,
                on_death=self._function_died,
            )
            for spec in self._manifests.functions.values()
        }
        triggers, to_functions = self._manifests.triggers, EventSender(self.functions)
        faults = Faults.parse(self._settings.broker_faults)
        self.broker = Broker(triggers, to_functions, on_event=display.show_event, faults=faults)
        sender = EventSender(self.functions, background=True)
        ticks = self._manifests.sources
        self.ticker = Ticker(ticks, sender, self._settings.tick_s, self._is_quiet)
        self.gateway = Gateway(self.functions, self.broker.ingress)
        await self._serve(public, self.gateway.public)
        await self._serve(self._internal_socket, self.gateway.internal)
        for function in self.functions.values():
            function.ensure_min_scale()
        self._ticking = asyncio.get_running_loop().create_task(self.ticker.run())
        self._watch = watch_projects(self._home.path, self.tick_now)

    async def run(self) -> None:
        """Run until cancelled; raise what broke."""
        assert self._ticking is not None
        await self._ticking

    async def stop(self, *, cancel_commands: bool, within_s: float) -> None:
        """End running commands unless told not to, then every function."""
        if self._ticking is None:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        self.gateway.closed = True
        self._ticking.cancel()
        self._watch.close()
        await self.broker.close()  # what it still held, the outbox and the tick see to
        if cancel_commands and RUNNER in self.functions:
            await _end_commands(self.functions[RUNNER], within_s * _FOR_COMMANDS)
        grace_s = max(_LAST_GRACE_S, deadline - loop.time())
        await asyncio.gather(*(one.close(grace_s) for one in self.functions.values()))
        for server in self._servers:
            server.close()
        self._status_file.remove()

    async def _serve(self, listening: socket.socket, handler: Handler) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: ServerConnection(handler), sock=listening, backlog=_BACKLOG
        )
        self._servers.append(server)

    def _own_environment(self, spec: FunctionSpec) -> dict[str, str]:
        """Return the variables of a function's manifest, and those that Knative sets."""
        own = {
            "K_SERVICE": spec.name,
            "K_CONFIGURATION": spec.name,
            "K_REVISION": f"{spec.name}-local",
        }
        for name, value in spec.env.items():
            if not isinstance(value, SecretKey):
                own[name] = self._local_path(value) if name == "FUNCTION_SOURCE" else value
            elif (value.secret, value.key) in self._secrets:
                own[name] = self._secrets[value.secret, value.key]
            elif not value.optional:
                raise ManifestError(f"{spec.name}: no secret {value.secret} with key {value.key}")
        return own

    def _local_path(self, source: str) -> str:
        if not source.startswith(_IMAGE_ROOT):
            return source
        return str(self._settings.root / source.removeprefix(_IMAGE_ROOT))

    def _is_quiet(self) -> bool:
        """Nothing runs but what ticks and min-scale keep, and no event is on its way."""
        ticking = {source.sink.service for source in self._manifests.sources}
        running = [
            one
            for name, one in self.functions.items()
            if name not in ticking and len(one.instances) > one.spec.min_scale
        ]
        return not running and not self.broker.pending

    def _instances_changed(self) -> None:
        self.ticker.activity()
        self._status_file.write(self.functions, self._url)

    def _function_died(self, name: str) -> None:
        """Let the tick repair at once what a dead process left."""
        self.tick_now()


async def _end_commands(runner: Function, within_s: float) -> None:
    """Have every instance of the runner cancel its commands, and wait until they have ended.

    By a signal, not by a request: a request could come from anybody on this machine. All the time
    that is left is the runner's: a command that ignores SIGTERM takes two seconds to end.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    try:
        async with asyncio.timeout(within_s / 2):
            await runner.ensure_one()  # it adopts the commands of a runner that died just now
    except (HttpError, TimeoutError) as error:
        log.error("running commands cannot be cancelled: %s", error)
    await runner.close(deadline - loop.time(), number=signal.SIGUSR1)


def listen(port: int) -> socket.socket:
    """Bind a loopback address; raise OSError when the port is taken."""
    # asyncio sets TCP_NODELAY on what is accepted only when the protocol is named.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening
