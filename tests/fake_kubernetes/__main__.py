"""`python -m tests.fake_kubernetes [--tls FOLDER]`: serve until stdin ends; line one is the URL."""

from __future__ import annotations

import argparse
import asyncio
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from tests.fake_kubernetes.api import Api, application


class Http(HttpToolsProtocol):
    """Gives the app its transport, so that a test can have a connection cut."""

    def on_message_begin(self) -> None:
        super().on_message_begin()  # type: ignore[no-untyped-call]
        extensions: Any = {"transport": self.transport}
        self.scope["extensions"] = extensions


class Sockets(WebSocketsSansIOProtocol):
    """Likewise for WebSockets."""

    async def run_asgi(self) -> None:
        extensions: Any = self.scope["extensions"]
        extensions["transport"] = self.transport
        await super().run_asgi()


async def serve(tls: Path | None) -> None:
    api = Api()
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    config = uvicorn.Config(
        application(api),
        http=Http,
        ws=Sockets,
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        log_level="error",
        lifespan="off",
        timeout_graceful_shutdown=1,
        timeout_keep_alive=300,
        **_tls(tls),
    )
    server = uvicorn.Server(config)
    scheme = "https" if tls else "http"
    print(f"{scheme}://127.0.0.1:{listening.getsockname()[1]}", flush=True)

    def over() -> None:
        if not sys.stdin.buffer.raw.read(4096):  # type: ignore[attr-defined]
            server.should_exit = True
            asyncio.get_running_loop().remove_reader(0)

    asyncio.get_running_loop().add_reader(0, over)
    await server.serve(sockets=[listening])
    await api.close()


def _tls(folder: Path | None) -> dict[str, Any]:
    """A client certificate may be shown, and must be of the same authority then."""
    if folder is None:
        return {}
    return {
        "ssl_certfile": str(folder / "server.crt"),
        "ssl_keyfile": str(folder / "server.key"),
        "ssl_ca_certs": str(folder / "ca.crt"),
        "ssl_cert_reqs": ssl.CERT_OPTIONAL,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--tls", type=Path)
    asyncio.run(serve(parser.parse_args().tls))
