"""The yardstick: a POST that inserts one row, through bare starlette, in its own process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from infra.local.postgres import EmbeddedPostgres
from tests.harness.running import ROOT, until


def serve() -> None:
    """The server process: PORT and RDEV_DATABASE_URL come from the environment."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from common.adapters.postgres.connection import Connection
    from common.adapters.postgres.target import Target

    connection = Connection(Target.parse(os.environ["RDEV_DATABASE_URL"]), application_name="bare")
    connection.script("CREATE TABLE IF NOT EXISTS bare (id bigserial PRIMARY KEY, body jsonb)")
    statement = connection.session.prepare("INSERT INTO bare (body) VALUES (:body)")

    async def insert(request: Request) -> JSONResponse:
        body = await request.json()
        await run_in_threadpool(statement.run, body=json.dumps(body))
        return JSONResponse({"status": "ok"}, 202)

    async def alive(_request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    app = Starlette(routes=[Route("/", insert, methods=["POST"]), Route("/", alive)])
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def insert_server() -> Iterator[str]:
    """Its URL, with a PostgreSQL of its own behind it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedPostgres(Path(folder)) as postgres,
    ):
        port = free_port()
        environment = os.environ | {"PORT": str(port), "RDEV_DATABASE_URL": postgres.url}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.load.bare"], cwd=ROOT, env=environment
        )
        try:
            url = f"http://127.0.0.1:{port}"
            until("the bare server answers", lambda: _answers(url))
            yield url
        finally:
            process.terminate()
            process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.HTTPError:
        return False


if __name__ == "__main__":
    serve()
