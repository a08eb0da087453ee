"""A stand-in for the Messages API on loopback, so that tests run the real claude with no model.

It answers what a script says, turn by turn: a text, a tool call, an error, or nothing at all; the
last answer repeats. Or a function of the request says it, where several ask at once. Each request
body is kept. Streaming events have the shape that the public API documents.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Turn = dict[str, Any]
HOLD_S = 60.0  # a test that forgets to let go fails by its own deadline first


def text(words: str) -> Turn:
    """The model says something and stops."""
    return {"type": "text", "text": words}


def tool(name: str, **arguments: Any) -> Turn:
    """The model calls a tool."""
    return {"type": "tool_use", "id": "toolu_1", "name": name, "input": arguments}


def refusal(status: int, kind: str, words: str) -> Turn:
    """The API answers with an error."""
    return {"type": "error", "status": status, "error": {"type": kind, "message": words}}


HANGS: Turn = {"type": "hangs"}  # the model begins to answer and never goes on


class _Server(ThreadingHTTPServer):
    """A claude that is killed leaves its connections broken; that is no news."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class MessagesApi:
    """The running stand-in. `url` is for ANTHROPIC_BASE_URL."""

    def __init__(self, turns: list[Turn]) -> None:
        self.turns: list[Turn] | Callable[[dict[str, Any]], Turn] = turns
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []  # what each of them was paid with
        self.hold: threading.Event | None = None  # answers wait for it
        self.ending = threading.Event()
        self._lock = threading.Lock()
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                if not self.path.startswith("/v1/messages"):
                    return self._reply(404, "application/json", b"{}")
                if "count_tokens" in self.path:
                    return self._reply(200, "application/json", b'{"input_tokens": 1}')
                request = json.loads(body)
                api.keys.append(self.headers.get("x-api-key", ""))
                turn = api.turn(request)
                if turn["type"] == "error":
                    said = {"type": "error", "error": turn["error"]}
                    return self._reply(
                        turn["status"], "application/json", json.dumps(said).encode()
                    )
                if turn is HANGS:
                    return self._begin(request)
                events = "".join(answer(request, turn))
                return self._reply(200, "text/event-stream", events.encode())

            def do_GET(self) -> None:
                self._reply(404, "application/json", b"{}")

            def _begin(self, request: dict[str, Any]) -> None:
                self.close_connection = True
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.end_headers()
                self.wfile.write(_event("message_start", message=_message(request)).encode())
                api.ending.wait(HOLD_S)

            def _reply(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                """Quiet: pytest shows what matters."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def environment(self, home: str) -> dict[str, str]:
        """What claude needs to talk to this and to nobody else, with a configuration of its own."""
        return {
            "ANTHROPIC_BASE_URL": self.url,
            "ANTHROPIC_API_KEY": "sk-stand-in",
            "CLAUDE_CONFIG_DIR": home,
        }

    def _turn(self, request: dict[str, Any]) -> Turn:
        if callable(self.turns):
            return self.turns(request)
        return self.turns[min(len(self.requests), len(self.turns) - 1)]

    def turn(self, request: dict[str, Any]) -> Turn:
        """What is answered now, when it is time."""
        with self._lock:
            turn = self._turn(request)
            self.requests.append(request)
        if self.hold is not None:
            self.hold.wait(HOLD_S)
        return turn


def answer(request: dict[str, Any], turn: Turn) -> Iterator[str]:
    """The stream of one answer."""
    yield _event("message_start", message=_message(request))
    yield from _block(turn)
    reason = "end_turn" if turn["type"] == "text" else "tool_use"
    delta = {"stop_reason": reason, "stop_sequence": None}
    yield _event("message_delta", delta=delta, usage={"output_tokens": 7})
    yield _event("message_stop")


def by_word(scripts: dict[str, list[Turn]]) -> Callable[[dict[str, Any]], Turn]:
    """For several claudes at once: each conversation has the script whose word is in it."""

    def turn(request: dict[str, Any]) -> Turn:
        said = json.dumps(request["messages"])
        turns: list[Turn] = next(s for word, s in list(scripts.items()) if word in said)
        done: int = sum(message["role"] == "assistant" for message in request["messages"])
        return turns[min(done, len(turns) - 1)]

    return turn


def touches(request: dict[str, Any]) -> Turn:
    """For several claudes at once: each wants to run the `touch NAME` of its prompt, then stops."""
    said = json.dumps(request["messages"])
    found = re.search(r"touch [\w.-]+", said)
    if '"tool_result"' in said or found is None:
        return text("done")
    return tool("Bash", command=found[0], description="x")


def _message(request: dict[str, Any]) -> dict[str, Any]:
    usage = {"input_tokens": 11, "output_tokens": 1}
    empty: dict[str, Any] = {
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": request["model"],
    } | empty


def _block(turn: Turn) -> Iterator[str]:
    if turn["type"] == "text":
        start: dict[str, Any] = {"type": "text", "text": ""}
        delta = {"type": "text_delta", "text": turn["text"]}
    else:
        start = turn | {"input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(turn["input"])}
    yield _event("content_block_start", index=0, content_block=start)
    yield _event("content_block_delta", index=0, delta=delta)
    yield _event("content_block_stop", index=0)


def _event(kind: str, **fields: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | fields)}\n\n"


@contextmanager
def stand_in(*turns: Turn) -> Iterator[MessagesApi]:
    """A stand-in that gives these turns."""
    with MessagesApi(list(turns)) as api:
        yield api
