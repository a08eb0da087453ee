"""An HTTP proxy on loopback that knows CONNECT and remembers what it was asked."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class ConnectProxy:
    """Use it as a context manager. `authorization`: the header it wants, else it answers 407."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.authorization: str | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler_of(proxy: ConnectProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:  # the name that http.server looks for
            proxy.asked.append(self.path)
            if self.headers.get("proxy-authorization") != proxy.authorization:
                self.send_error(407)
                return
            host, _, port = self.path.rpartition(":")
            with socket.create_connection((host, int(port))) as far:
                self.send_response(200)
                self.end_headers()
                back = threading.Thread(target=_copy, args=(far, self.connection), daemon=True)
                back.start()
                _copy(self.connection, far)
                back.join()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # http.server's name
            """Nobody reads it."""

    return Handler


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):  # either side may cut
        while data := source.recv(1 << 16):
            target.sendall(data)
    for end, how in ((target, socket.SHUT_WR), (source, socket.SHUT_RD)):
        with suppress(OSError):
            end.shutdown(how)
