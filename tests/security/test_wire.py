"""Rows 28, 33 and 74 on real sockets: what is no request of ours, before any function sees it.

The laptop's gateway and a function's own server are two parsers, so each row is tried on both.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import uvicorn

from common.entrypoints import serve
from infra.local import wire
from tests.security.conftest import FUNCTIONS, House

Server = Callable[[], AbstractAsyncContextManager[int]]


@asynccontextmanager
async def gateway() -> AsyncIterator[int]:
    """Answers its port; whatever reaches the handler is 200."""

    async def handler(_request: wire.Request, reply: wire.Reply) -> None:
        reply.send(200, [], b"")

    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: wire.ServerConnection(handler), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def function() -> AsyncIterator[int]:
    """The keys function as it is served, but for what it does at start and end."""
    app, _ = serve.asgi(str(FUNCTIONS / "keys" / "main.py"))
    config = uvicorn.Config(
        app,
        port=0,
        http=serve.Protocol,
        lifespan="off",
        log_config=None,
        server_header=False,
        timeout_keep_alive=serve.KEEP_ALIVE_S,
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.001)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await running


SERVERS = pytest.mark.parametrize("server", [gateway, function])


def talk(server: Server, *sent: bytes) -> bytes:
    """What comes back until the server closes the connection, which it does here every time."""

    async def scenario() -> bytes:
        async with asyncio.timeout(60), server() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for part in sent:
                writer.write(part)
            received = await reader.read()
            writer.close()
            return received

    return asyncio.run(scenario())


def problem_in(received: bytes) -> tuple[int, str]:
    """Status and code of a problem, which names no server."""
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    assert b"\nserver:" not in head.lower()
    found = json.loads(body)
    assert head.startswith(b"HTTP/1.1 %d " % found["status"])
    return found["status"], found["code"]


REQUEST = b"GET /v1/keys HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@SERVERS
@pytest.mark.parametrize("row", ["row-74-trace", "row-74-unknown", "row-74-small"])
def test_a_method_of_nobody(house: House, server: Server, row: str) -> None:
    """405 as a problem, from the parser itself where it knows no such method."""
    method = {"trace": b"TRACE", "unknown": b"BREW", "small": b"get"}[row.rpartition("-")[2]]
    if server is gateway and method == b"TRACE":
        return  # passes on to the function, as through any gateway
    received = talk(server, REQUEST.replace(b"GET", method))
    assert problem_in(received) == (405, "method_not_allowed")


@SERVERS
@pytest.mark.parametrize("size", [9_000, 70_000], ids=["row-28-over-8k", "row-28-over-64k"])
def test_an_address_without_end(house: House, server: Server, size: int) -> None:
    """414 as a problem, however it is cut into packets."""
    received = talk(server, REQUEST.replace(b"keys", b"keys?" + b"x" * size))
    assert problem_in(received) == (414, "uri_too_long")


@SERVERS
def test_what_is_no_http(house: House, server: Server) -> None:
    """400 as a problem."""
    assert problem_in(talk(server, b"\x16\x03\x01\r\n\r\n"))[1] in {
        "invalid_request",
        "method_not_allowed",
    }
    assert problem_in(talk(server, REQUEST.replace(b"1.1", b"9.z"))) == (400, "invalid_request")


@pytest.mark.row(33)
@SERVERS
@pytest.mark.parametrize("sent", [b"", b"G", REQUEST[:-3]], ids=["nothing", "a-byte", "half"])
def test_who_sends_no_head_is_let_go(
    house: House, monkeypatch: pytest.MonkeyPatch, server: Server, sent: bytes
) -> None:
    """Neither silence nor a byte now and then holds a connection: it is closed at its deadline."""
    for module in (wire, serve):
        monkeypatch.setattr(module, "HEAD_DEADLINE_S", 0.05)
    monkeypatch.setattr(wire, "IDLE_S", 0.05)
    monkeypatch.setattr(serve, "KEEP_ALIVE_S", 0.05)
    received = talk(server, sent)
    assert received == b"" or problem_in(received) == (400, "invalid_request")
