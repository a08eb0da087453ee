"""The database that functions use when the user names none: the embedded one, kept alive."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from infra.local.postgres import EmbeddedPostgres, PostgresError

log = logging.getLogger("rdev.postgres")

_RESTART_PAUSE_S = 1.0


class EmbeddedDatabase:
    """Starts the embedded PostgreSQL, and again whenever it dies, until `stop`."""

    def __init__(self, home: Path, on_restart: Callable[[], None]) -> None:
        self._server = EmbeddedPostgres(home)
        self._on_restart = on_restart
        # One thread for the server's whole life: the kernel ends the server with the thread that
        # started it.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="postgres")
        self._keeper: asyncio.Task[None] | None = None
        self._starting: asyncio.Future[None] | None = None

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def pid(self) -> int | None:
        return self._server.pid

    async def start(self) -> None:
        """Return when the server accepts queries; raise PostgresError when it cannot start."""
        await self._start()
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def stop(self) -> None:
        """End the server; a start that is under way is awaited first."""
        if self._keeper is not None:
            self._keeper.cancel()
        if self._starting is not None:
            await asyncio.wait([self._starting])
        await asyncio.to_thread(self._server.stop)
        self._thread.shutdown()

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        self._starting = loop.run_in_executor(self._thread, self._server.start)
        await asyncio.shield(self._starting)

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            status = await loop.run_in_executor(self._thread, self._server.wait)
            log.error("PostgreSQL ended with status %s and is started again", status)
            while True:
                try:
                    await self._start()
                except PostgresError as error:
                    log.error("%s", error)
                    await asyncio.sleep(_RESTART_PAUSE_S)
                else:
                    break
            self._on_restart()
