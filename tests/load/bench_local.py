"""The laptop's Knative: gateway overhead, cold starts with and without the zygote, start-up, idle.

    make bench BENCH=local

Printed as ratios of one run with the absolute beside them; nothing is asserted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from infra.local import instance
from infra.local.forking import ZygoteLauncher
from infra.local.manifests import FunctionSpec
from infra.local.process import Launcher, SpawnLauncher

ROOT: Final = Path(__file__).resolve().parents[2]
COLD: Final = ("/openapi.json", "reference")  # a real function that asks nobody else
STARTS: Final = 20
REQUESTS: Final = 2000
IDLE_FOR_S: Final = 75.0  # longer than the pause between two ticks when nothing runs
PATIENCE_S: Final = 60.0

HELLO: Final = """
import os, uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
{imports}

async def hello(request):
    return PlainTextResponse("hello")

app = Starlette(routes=[Route("/{{path:path}}", hello)])

def main():
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="error")

if __name__ == "__main__":
    main()
"""
# What the real function imports, without its code.
SAME_IMPORTS: Final = (
    "import functions_framework.aio, pydantic, structlog, pg8000, opentelemetry.trace"
)


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        (root / "bare_hello.py").write_text(HELLO.format(imports=""))
        (root / "same_hello.py").write_text(HELLO.format(imports=SAME_IMPORTS))
        hello = asyncio.run(hellos(root))
        start_up(root)
        with rdev(root / "warm", RDEV_IDLE_S="1") as url:
            gateway_overhead(root / "warm", url)
            cold = cold_starts(root / "warm", url)
        report("cold function / fork + answer of a bare hello", cold, hello["forked"], "2")
        with rdev(root / "spawned", RDEV_IDLE_S="1", RDEV_ZYGOTE="0") as url:
            spawned = cold_starts(root / "spawned", url)
        report("cold, no zygote / bare starlette + uvicorn", spawned, hello["bare_hello"], "3")
        report("cold, no zygote / hello, same imports", spawned, hello["same_hello"], "1.1")
        with rdev(root / "idle", RDEV_IDLE_S="2") as _:
            idle(root / "idle")


def report(what: str, seconds: list[float], base: list[float], goal: str) -> None:
    ratio = statistics.median(seconds) / statistics.median(base)
    absolute = f"{ms(seconds)}, worst {max(seconds) * 1000:.0f} ms; base {ms(base)}"
    print(f"{what}: {ratio:.2f}x (goal {goal}x; {absolute})", flush=True)


def ms(seconds: list[float]) -> str:
    return f"p50 {statistics.median(seconds) * 1000:.1f} ms"


async def hellos(root: Path) -> dict[str, list[float]]:
    """Time from launch to the first 200 of hellos: forked, spawned bare, spawned with imports."""
    warm = ZygoteLauncher("bare_hello", root, root / "zygote.log")
    spawn = SpawnLauncher(root)
    await first_answer("bare_hello", warm, root)  # the zygote's own imports
    times = {"forked": [await first_answer("bare_hello", warm, root) for _ in range(STARTS)]}
    for module in ("bare_hello", "same_hello"):
        await first_answer(module, spawn, root)  # bytecode
        times[module] = [await first_answer(module, spawn, root) for _ in range(STARTS // 2)]
    await warm.close()
    return times


async def first_answer(module: str, launcher: Launcher, root: Path) -> float:
    spec = FunctionSpec(module, ("python", "-m", module), readiness_path="/")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    started = await instance.start(spec, environment, launcher, root / f"{module}.log")
    taken = time.perf_counter() - began
    await started.stop(5.0)
    return taken


@contextlib.contextmanager
def rdev(home: Path, **settings: str) -> Iterator[str]:
    """A whole rdev until the block ends; yields its address."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RDEV_")}
    environment |= {"RDEV_HOME": str(home), "RDEV_PORT": "0", **settings}
    process = subprocess.Popen(
        [sys.executable, "-m", "infra.local"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert "ready" in line, line
        yield line.split()[4]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE_S)
        process.stdout.close()


def start_up(root: Path) -> None:
    for what, goal in (("first", 5), ("next", 3)):
        began = time.perf_counter()
        with rdev(root / "start"):
            taken = time.perf_counter() - began
        print(f"`rdev up` ready, {what} time: {taken:.2f} s (goal {goal} s)", flush=True)


def functions(home: Path) -> dict[str, Any]:
    status = json.loads((home / "status.json").read_text())
    return {one["name"]: one for one in status["functions"]}


def gateway_overhead(home: Path, url: str) -> None:
    """The same warm request through the gateway and at the function's own port."""
    path = "/health"
    httpx.get(url + path, trust_env=False)
    own = functions(home)["health"]["instances"][0]["port"]
    port = int(url.rpartition(":")[2])
    direct, through = [], []
    for _ in range(4):  # in turns, so that what else the machine does hits both
        direct += requests(own, path)
        through += requests(port, path)
    added = (statistics.median(through) - statistics.median(direct)) * 1000
    print(
        f"gateway, warm: {added:+.2f} ms p50 over the function's own port "
        f"(goal 1 ms; {ms(through)} against {ms(direct)})",
        flush=True,
    )


def requests(port: int, path: str, count: int = REQUESTS // 4) -> list[float]:
    times = []
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            began = time.perf_counter()
            connection.sendall(request)
            read_answer(connection)
            times.append(time.perf_counter() - began)
    return times


def read_answer(connection: socket.socket) -> None:
    received = b""
    while b"\r\n\r\n" not in received:
        received += some(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += some(connection)


def some(connection: socket.socket) -> bytes:
    part = connection.recv(65536)
    if not part:
        raise ConnectionError("closed within an answer")
    return part


def cold_starts(home: Path, url: str) -> list[float]:
    """First answers of a real function, each from zero."""
    path, name = COLD
    times = []
    for number in range(STARTS // 2 + 1):
        deadline = time.monotonic() + PATIENCE_S
        while functions(home)[name]["instances"] and time.monotonic() < deadline:
            time.sleep(0.05)  # the file is another process's: it can only be polled
        time.sleep(0.3)  # its end may still be under way
        taken = requests(int(url.rpartition(":")[2]), path, 1)
        if number:  # the first compiles
            times += taken
    return times


def idle(home: Path) -> None:
    """What is left when nobody asks, and what it costs."""
    parent = psutil.Process(json.loads((home / "status.json").read_text())["pid"])
    deadline = time.monotonic() + PATIENCE_S
    while any(one["instances"] for one in functions(home).values() if one["name"] != "on-tick"):
        assert time.monotonic() < deadline, functions(home)
        time.sleep(0.2)
    before = cpu_of(parent)
    time.sleep(IDLE_FOR_S)  # the measure is taken over this time
    share = (cpu_of(parent) - before) / IDLE_FOR_S
    family = [parent, *parent.children(recursive=True)]
    pss = sum(one.memory_full_info().pss for one in family if one.is_running()) / (1 << 20)
    print(f"idle: {pss:.0f} MiB PSS in {len(family)} processes (goal 200), ", end="")
    print(f"{share * 100:.2f} % of a core, ticks included (goal 1 %)", flush=True)


def cpu_of(parent: psutil.Process) -> float:
    """CPU seconds of a process, its live descendants and those they have reaped."""
    total = 0.0
    for one in (parent, *parent.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


if __name__ == "__main__":
    main()
