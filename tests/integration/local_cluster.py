"""A small cluster for tests of infra.local: real processes of a tiny function, no rdev in it.

The function answers on a few paths that show what a gateway does to requests; what it noticed it
writes to its log, one JSON object a line.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml

from infra.local import manifests
from infra.local.cluster import Cluster, listen
from infra.local.forking import ZygoteLauncher
from infra.local.home import Home
from infra.local.process import Launcher, SpawnLauncher
from infra.local.settings import Settings

MODULE = "local_function"
PATIENCE_S = 30.0

FUNCTION = '''
"""A function that shows what reached it."""
import asyncio, json, os, signal
import uvicorn

preloaded = []


def preload():
    preloaded.append(os.getpid())


def note(what, **more):
    print(json.dumps({"what": what, "pid": os.getpid(), **more}), flush=True)


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    path, query = scope["path"], scope["query_string"].decode()

    async def start(status=200, *headers):
        await send({"type": "http.response.start", "status": status, "headers": headers})

    async def part(data, more=True):
        await send({"type": "http.response.body", "body": data, "more_body": more})

    if path == "/health/readiness" and os.environ.get("HUNG"):
        await asyncio.sleep(3600)
    elif path == "/health/readiness" and os.environ.get("UNREADY"):
        await start(503, (b"content-length", b"10"))
        await part(b"no schema!", False)
    elif path == "/health/readiness":
        await start(200, (b"content-length", b"0"))
        await part(b"", False)
    elif path == "/echo":  # each part of the body comes back before the next is read
        await start()
        while True:
            message = await receive()
            await part(message.get("body", b""), message.get("more_body", False))
            if not message.get("more_body"):
                return
    elif path == "/hold":  # a stream without end; notes when its client goes
        await start(200, (b"content-type", b"text/event-stream"))
        await part(b"data: open\\n\\n")
        note("held")
        while (await receive())["type"] != "http.disconnect":
            pass
        note("disconnected")
    elif path == "/silent":
        note("silent")
        await asyncio.sleep(3600)
    elif path == "/half":  # promises more than it sends
        await start(200, (b"content-length", b"10"))
        await part(b"half")
        os._exit(9)
    elif path == "/die":
        os._exit(3)
    elif path == "/big":
        await start(200, (b"content-length", str(int(query)).encode()))
        for _ in range(int(query) // 65536):
            await part(b"x" * 65536)
        await part(b"x" * (int(query) % 65536), False)
    elif scope["method"] == "POST" and path == "/events":
        headers = {k.decode(): v.decode() for k, v in scope["headers"]}
        note("event", headers=headers, body=(await receive())["body"].decode())
        await start(202, (b"content-length", b"0"))
        await part(b"", False)
    else:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        said = json.dumps({
            "service": os.environ["K_SERVICE"], "pid": os.getpid(), "method": scope["method"],
            "path": scope["raw_path"].decode(), "query": query, "body": body.decode(),
            "headers": [[k.decode(), v.decode()] for k, v in scope["headers"]],
            "environment": dict(os.environ), "preloaded": preloaded,
            "parent": os.getppid(), "session": os.getsid(0),
        }).encode()
        await start(200, (b"content-length", str(len(said)).encode()), (b"x-own", b"yes"))
        await part(said if scope["method"] != "HEAD" else b"", False)


def main():
    if os.environ.get("BROKEN"):
        raise SystemExit("broken on purpose")
    note("started")
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning",
                timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
'''

_Result = TypeVar("_Result")


def service(name: str, *, env: dict[str, str] | None = None, **options: Any) -> dict[str, Any]:
    """A Knative Service as infra/base has them; options are spec fields or scale annotations."""
    scale = {
        key: options.pop(key) for key in ("min_scale", "max_scale", "target") if key in options
    }
    prefixes = options.pop("prefixes", f"/{name}")
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name, "annotations": {"rdev.orchard9.ai/path-prefixes": prefixes}},
        "spec": {
            "template": {
                "metadata": {
                    "annotations": {
                        f"autoscaling.knative.dev/{key.replace('_', '-')}": str(value)
                        for key, value in scale.items()
                    }
                },
                "spec": {
                    **options,
                    "containers": [
                        {
                            "command": ["python", "-m", MODULE],
                            "env": [{"name": k, "value": v} for k, v in (env or {}).items()],
                            "readinessProbe": {"httpGet": {"path": "/health/readiness"}},
                        }
                    ],
                },
            }
        },
    }


def lay_out(root: Path, *documents: dict[str, Any]) -> Settings:
    """Write the function and the manifests below `root`; return settings that run them."""
    (root / f"{MODULE}.py").write_text(FUNCTION)
    folders = {"Service": "functions", "Trigger": "triggers", "PingSource": "sources"}
    for document in documents:
        folder = root / "base" / folders[document["kind"]]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{document['metadata']['name']}.yaml").write_text(yaml.safe_dump(document))
    return Settings(
        home=root / "home",
        port=0,
        tick_s=3600,
        root=root,
        base=root / "base",
        migrate=(),
        zygote=MODULE,
        environment={k: v for k, v in os.environ.items() if not k.startswith("RDEV_")},
    )


class Local:
    """A cluster that runs in a thread of the test's process."""

    def __init__(self, cluster: Cluster, home: Home, port: int) -> None:
        self.cluster = cluster
        self.home = home
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.internal = cluster._environment["RDEV_BROKER_URL"].removesuffix("/broker")
        self.loop = asyncio.get_running_loop()

    def do(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Run something on the cluster's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE_S)

    def notes(self, name: str, what: str) -> list[dict[str, Any]]:
        """What a function wrote so far."""
        log = self.home.logs / f"{name}.log"
        lines = log.read_text().splitlines() if log.exists() else []
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [one for one in found if one["what"] == what]

    def pids(self, name: str) -> list[int]:
        return [one.process.pid for one in self.cluster.functions[name].instances]


@contextmanager
def running(settings: Settings, *, zygote: bool = False) -> Iterator[Local]:
    """Run a cluster of `settings` until the block ends."""
    started: list[Local] = []
    failed: list[BaseException] = []
    up, stop = threading.Event(), threading.Event()

    async def main() -> None:
        home = Home(settings.home)
        home.lock()
        home.logs.mkdir(exist_ok=True)
        home.workspaces.mkdir(exist_ok=True)
        launcher: Launcher = SpawnLauncher(settings.root)
        if zygote:
            launcher = ZygoteLauncher(MODULE, settings.root, home.logs / "zygote.log")
        cluster = Cluster(settings, home, manifests.load(settings.base))
        public = listen(0)
        await cluster.start(public, launcher)
        started.append(Local(cluster, home, public.getsockname()[1]))
        up.set()
        await asyncio.to_thread(stop.wait)
        await cluster.stop(cancel_commands=False, within_s=3.0)
        await launcher.close()

    def work() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            failed.append(error)
        finally:
            up.set()

    thread = threading.Thread(target=work)
    thread.start()
    up.wait(PATIENCE_S)
    try:
        if failed:
            raise failed[0]
        yield started[0]
    finally:
        stop.set()
        thread.join(PATIENCE_S)
    if failed:
        raise failed[0]


def until_noted(local: Local, name: str, what: str, count: int = 1) -> list[dict[str, Any]]:
    """Wait until a function wrote something; the log is another process's, so it is polled."""
    for _ in range(int(PATIENCE_S / 0.02)):
        if len(found := local.notes(name, what)) >= count:
            return found
        threading.Event().wait(0.02)
    raise AssertionError(f"{name} never noted {what}")
