"""common/entrypoints/serve.py: one process, one function: guard, probes, start, drain."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from common.domain.errors import Unavailable
from common.entrypoints import serve
from common.entrypoints.serve import MAX_HEADERS, MAX_URI, Guard
from tests.unit.conftest import FUNCTIONS, Api, Client

SOURCE = """
from common.entrypoints.call import Call, Reply
from common.entrypoints.function import Function

function = Function("a_test", "for tests")
seen = []


@function.get("/here", summary="")
def here(call: Call) -> Reply:
    return Reply({"here": True})


@function.on_startup
async def starting(app) -> None:
    seen.append("starting")


@function.on_startup
def starting_too(app) -> None:
    seen.append("starting too")


@function.on_shutdown
def broken(app) -> None:
    raise RuntimeError("a bug")


@function.on_shutdown
async def stopping(app) -> None:
    seen.append("stopping")


handle = function.target()
"""


@pytest.fixture
def served(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ASGIApp:
    """The app of a function of its own, in this process."""
    monkeypatch.setattr(serve, "app", lambda: api.app)
    monkeypatch.setattr(api.app, "telemetry_started", lambda _service: None)
    source = tmp_path / "main.py"
    source.write_text(SOURCE)
    made, function = serve.asgi(str(source))
    assert function.service == "a-test"
    return made


def client(app: ASGIApp) -> Client:
    return Client(app, None, ("127.0.0.1", 1))


def test_a_function_and_its_probes_are_one_app(served: ASGIApp) -> None:
    """Routes of the function, liveness and readiness, and nothing else."""
    assert client(served).get("/here").json() == {"here": True}
    assert client(served).get("/health/liveness").json() == {"status": "alive"}
    assert client(served).get("/health/readiness").json() == {"status": "ready"}
    assert client(served).get("/there").status_code == 404


def test_a_schema_that_does_not_fit_is_not_ready(
    api: Api, served: ASGIApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Knative keeps the old revision then."""

    def wrong() -> None:
        raise Unavailable("run `rdev migrate`")

    monkeypatch.setattr(api.app, "require_compatible_schema", wrong)
    answer = client(served).get("/health/readiness")
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")


def test_a_draining_instance_is_not_ready(api: Api, served: ASGIApp) -> None:
    """But it lives, and answers what it was asked."""
    api.app.draining.set()
    answer = client(served).get("/health/readiness")
    assert (answer.status_code, answer.json()["code"]) == (503, "shutting_down")
    assert client(served).get("/health/liveness").status_code == 200
    assert client(served).get("/here").status_code == 200


def lifespan(served: ASGIApp) -> Any:
    assert isinstance(served, Guard)
    inner: Any = served._inner._inner
    return inner.router.lifespan_context(inner)


def seen() -> list[str]:
    found: list[str] = sys.modules["main"].seen
    return found


def test_hooks_run_at_start_and_as_soon_as_it_drains(api: Api, served: ASGIApp) -> None:
    """Before anything is closed; one that breaks keeps no other from running."""
    closed: list[str] = []

    class Resource:
        def __init__(self, name: str) -> None:
            self.name = name

        def close(self) -> None:
            closed.append(self.name)

    api.app.closing += [Resource("first"), Resource("second")]

    async def scenario() -> None:
        async with lifespan(served):
            assert seen() == ["starting", "starting too"]
            api.app.draining.set()
            for _ in range(2000):
                if "stopping" in seen():
                    break
                await asyncio.sleep(0.005)
            assert seen()[-1] == "stopping"
            assert closed == []

    asyncio.run(scenario())
    assert closed == ["second", "first"]
    assert seen().count("stopping") == 1


def test_the_end_without_a_signal_drains_too(api: Api, served: ASGIApp) -> None:
    """Whatever ends the server."""

    async def scenario() -> None:
        async with lifespan(served):
            pass

    asyncio.run(scenario())
    assert seen()[-1] == "stopping"
    assert api.app.draining.is_set()


# -- what is refused before any routing ----------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code"),
    [
        ("GET", "/here?" + "x" * MAX_URI, {}, 414, "uri_too_long"),
        ("GET", "/" + "x" * (MAX_URI + 1), {}, 414, "uri_too_long"),
        ("GET", "/here", {"x-a": "x" * MAX_HEADERS}, 400, "invalid_request"),
        ("TRACE", "/here", {}, 405, "method_not_allowed"),
        ("BREW", "/here", {}, 405, "method_not_allowed"),
        ("X" * 3000, "/here", {}, 405, "method_not_allowed"),
        ("GET", "/a%00b", {}, 400, "invalid_request"),
    ],
    ids=lambda v: str(v)[:20],
)
def test_absurd_requests_end_at_the_guard(
    served: ASGIApp, method: str, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    """As problems, like everything else."""
    answer = client(served).request(method, path, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert len(answer.content) < 1000


def test_a_path_that_is_no_unicode_is_a_bad_request(served: ASGIApp) -> None:
    """Whatever server put it there."""
    scope: Scope = {
        "type": "http",
        "method": "GET",
        "path": "/\udcff",
        "raw_path": b"/\xff",
        "query_string": b"",
        "headers": [],
    }
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(served(scope, receive, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 400


def test_what_is_no_request_passes_the_guard() -> None:
    """Lifespan, say."""
    passed: list[str] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        passed.append(scope["type"])

    asyncio.run(Guard(inner)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert passed == ["lifespan"]


# -- signals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", ["SIGTERM", "SIGUSR1"])
def test_a_signal_tells_the_function_before_anything_closes(
    api: Api, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    """SIGTERM hands over, SIGUSR1 cancels first; a second signal changes nothing."""
    monkeypatch.setattr(serve, "app", lambda: api.app)
    handlers: dict[int, Callable[..., None]] = {}
    monkeypatch.setattr(serve.signal, "signal", handlers.__setitem__)
    drained: list[bool] = []

    async def fake_serve(self: uvicorn.Server, sockets: Any = None) -> None:
        handler = handlers.get(signal.Signals[stop], self.handle_exit)
        handler(signal.Signals[stop], None)
        handler(signal.Signals[stop], None)
        await asyncio.sleep(0)
        drained.append(api.app.draining.is_set())

    monkeypatch.setattr(uvicorn.Server, "serve", fake_serve)
    server = serve.Server(uvicorn.Config(lambda *_: None))
    asyncio.run(server.serve())
    assert drained == [True]
    assert server.should_exit
    assert not server.force_exit
    assert api.app.cancel_on_exit == (stop == "SIGUSR1")


def test_main_serves_what_the_environment_names(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Function, address and port; no version is told and no proxy believed."""
    monkeypatch.setattr(serve, "app", lambda: api.app)
    monkeypatch.setenv("FUNCTION_SOURCE", str(FUNCTIONS / "health" / "main.py"))
    monkeypatch.setenv("FUNCTION_TARGET", "handle")
    monkeypatch.setenv("RDEV_HOST", "127.0.0.1")
    monkeypatch.setenv("PORT", "9")
    configured: list[uvicorn.Config] = []
    monkeypatch.setattr(serve.Server, "run", lambda self: configured.append(self.config))
    serve.main()
    [config] = configured
    assert (config.host, config.port) == ("127.0.0.1", 9)
    assert not config.server_header
    assert not config.proxy_headers
    assert config.timeout_graceful_shutdown == api.app.settings.drain_s


def test_what_most_functions_need_can_be_loaded_ahead() -> None:
    """For the process they are forked from."""
    serve.preload()
    assert "common.entrypoints.http" in sys.modules
