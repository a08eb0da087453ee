"""A webhook receiver on loopback that keeps what came and answers as a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.harness.running import until


@dataclass(frozen=True)
class Came:
    """One request; header names are lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Answerer = Callable[[Came], tuple[int, dict[str, str], bytes]]


def fine(_came: Came) -> tuple[int, dict[str, str], bytes]:
    return 200, {}, b"ok"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_args: object) -> None:
        """A sender that was killed in the middle is no news."""


class Receiver:
    """Listens until its block ends."""

    def __init__(self, answer: Answerer = fine) -> None:
        self.came: list[Came] = []
        self.answer = answer
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:  # http.server's name
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                came = Came(self.path, headers, body)
                receiver.came.append(came)
                status, extra, content = receiver.answer(came)
                self.send_response(status)
                for name, value in extra.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_args: object) -> None: ...

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    def wait(self, check: Callable[[list[Came]], Any], what: str = "a webhook arrives") -> Any:
        """What `check` says of all that came, once it is true."""
        return until(what, lambda: check(list(self.came)))

    def serve(self) -> None:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def receiver(answer: Answerer = fine) -> Iterator[Receiver]:
    made = Receiver(answer)
    made.serve()
    try:
        yield made
    finally:
        made.close()
