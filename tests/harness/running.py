"""A whole rdev for tests: `rdev up` as a process of its own, talked to as its users talk to it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from rdev.sse import Event, Parser

ROOT = Path(__file__).resolve().parents[2]
READY = re.compile(r"ready.*?(http://\S+)")
SERVE = "common.entrypoints.serve"
MARK = re.compile(rb"RDEV_COMMAND_ID=([0-9a-f]{32});")
PATIENCE_S = 60.0  # a bound for things that end much sooner; reaching it is a failure


def until(what: str, check: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """The first true answer of `check`; it polls, as it looks at other processes."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if answer := check():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"never happened: {what}")


class Rdev:
    """One `rdev up` with its own home; `start` again after `stop` or `kill` continues it."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        self.environment = {"RDEV_TICK_S": "1", **environment}
        self.program: tuple[str, ...] = ("-m", "rdev", "up")
        self.process: subprocess.Popen[str] | None = None
        self.url = ""
        self.output: list[str] = []
        self._reader = threading.Thread()

    # -- life ----------------------------------------------------------------------------------

    def start(self, *arguments: str) -> Rdev:
        """Start and wait for the line that says `ready`."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RDEV_")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment |= {"RDEV_HOME": str(self.home), "RDEV_PORT": "0", **self.environment}
        self.output = []
        process = self.process = subprocess.Popen(
            [sys.executable, *self.program, *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        ready = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(process, ready), daemon=True)
        self._reader.start()
        try:
            until("rdev up is ready", lambda: ready.is_set() or process.poll() is not None)
            assert ready.is_set(), "it ended"
        except AssertionError as error:
            self.kill()
            raise AssertionError(f"{error}: {''.join(self.output)}") from None
        return self

    def _read(self, process: subprocess.Popen[str], ready: threading.Event) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self.output.append(line)
                if match := READY.search(line):
                    self.url = match[1].rstrip("/")
                    ready.set()

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Ctrl-C; answers the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code

    def kill(self) -> None:
        """SIGKILL of `rdev up` itself."""
        assert self.process is not None
        children = self.descendants()
        self.process.kill()
        self.process.wait(PATIENCE_S)
        psutil.wait_procs(children, timeout=PATIENCE_S)
        self._reader.join(PATIENCE_S)

    def descendants(self) -> list[psutil.Process]:
        """Every process below `rdev up`."""
        assert self.process is not None
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def status(self) -> list[dict[str, Any]]:
        """Every function as `rdev up` says in its status file; none when it does not run."""
        try:
            listed = json.loads((self.home / "status.json").read_text())
        except FileNotFoundError:
            return []
        functions: list[dict[str, Any]] = listed["functions"]
        return functions

    def instances(self) -> list[tuple[str, int]]:
        """Function and pid of every instance."""
        return [(f["name"], i["pid"]) for f in self.status() for i in f["instances"]]

    def cold_starts(self) -> dict[str, int]:
        """How often each function was started so far."""
        return {f["name"]: f["cold_starts"] for f in self.status()}

    def processes_of(self, function: str) -> list[int]:
        """Pids of a function's instances."""
        return [pid for name, pid in self.instances() if name == function]

    def kill_function(self, function: str, number: signal.Signals = signal.SIGKILL) -> list[int]:
        """Signal every instance of a function; answers their pids."""
        pids: list[int] = until(f"{function} has a process", lambda: self.processes_of(function))
        for pid in pids:
            os.kill(pid, number)
        return pids

    @property
    def internal_url(self) -> str:
        """The other port on which `rdev up` listens: cluster-local addresses and the broker."""
        assert self.process is not None
        ports = {
            one.laddr.port
            for one in psutil.Process(self.process.pid).net_connections("tcp4")
            if one.status == psutil.CONN_LISTEN
        } - {httpx.URL(self.url).port}
        return f"http://127.0.0.1:{ports.pop()}"

    # -- talking -------------------------------------------------------------------------------

    @property
    def key(self) -> str:
        return (self.home / "admin.key").read_text().strip()

    def client(self, key: str | None = None, **more: Any) -> httpx.Client:
        """An HTTP client that sends the admin key, or another."""
        headers = {"authorization": f"Bearer {key or self.key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False, **more)

    def submit(self, **body: Any) -> dict[str, Any]:
        """Create a command in `demo` (shell unless told otherwise); answers the resource."""
        with self.client() as client:
            answer = client.post("/v1/commands", json={"project": "demo", "kind": "shell"} | body)
        assert answer.status_code == 202, answer.text
        resource: dict[str, Any] = answer.json()
        return resource

    def get(self, command_id: str) -> dict[str, Any]:
        with self.client() as client:
            answer = client.get(f"/v1/commands/{command_id}")
        assert answer.status_code == 200, answer.text
        resource: dict[str, Any] = answer.json()
        return resource

    def ended(self, command_id: str, patience_s: float = PATIENCE_S) -> dict[str, Any]:
        """The command once it has ended; patient with restarts in between."""

        def check() -> dict[str, Any] | None:
            try:
                command = self.get(command_id)
            except (httpx.HTTPError, AssertionError):
                return None
            return command if command["outcome"] is not None else None

        result: dict[str, Any] = until(f"{command_id} ends", check, patience_s)
        return result

    def output_of(self, command_id: str, stream: str | None = None) -> bytes:
        with self.client() as client:
            answer = client.get(
                f"/v1/commands/{command_id}/output", params={"stream": stream} if stream else {}
            )
        assert answer.status_code == 200, answer.text
        return answer.content

    @contextmanager
    def opened(self, path: str, last_id: str | None = None) -> Iterator[Events]:
        """An open stream."""
        headers = {"accept": "text/event-stream"} | ({"last-event-id": last_id} if last_id else {})
        with self.client() as client, client.stream("GET", path, headers=headers) as answer:
            yield Events(answer)

    def follow(self, command_id: str, patience_s: float = PATIENCE_S) -> list[dict[str, Any]]:
        """All events to the end, resuming over whatever breaks in between."""
        return list(self.following(command_id, patience_s))

    def following(
        self, command_id: str, patience_s: float = PATIENCE_S
    ) -> Iterator[dict[str, Any]]:
        """Events as they come, to the end, resuming over whatever breaks in between."""
        last: str | None = None
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            try:
                with self.opened(f"/v1/streams/commands/{command_id}", last) as events:
                    if events.status == 204:
                        return
                    for event in events:
                        last = event["id"]
                        yield event
                        if event["event"] == "end":
                            return
            except httpx.HTTPError:
                time.sleep(0.05)
        raise AssertionError(f"{command_id} did not end within {patience_s:g} s, last id {last}")


class Events:
    """The events of an open stream, as dicts with `event`, `id` and `data`."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.status = answer.status_code

    def __iter__(self) -> Iterator[dict[str, Any]]:
        parser = Parser()
        for chunk in self.answer.iter_raw():
            for item in parser.feed(chunk):
                if isinstance(item, Event):
                    yield {"event": item.type, "id": item.id, "data": json.loads(item.data)}


def text_of(events: list[dict[str, Any]]) -> str:
    """The output text in a list of events."""
    return "".join(e["data"]["text"] for e in events if e["event"] == "output")


def marked(*command_ids: str) -> list[int]:
    """Pids of processes that carry the mark of one of these commands."""
    wanted = {command_id.removeprefix("cmd_").encode() for command_id in command_ids}
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environ = (entry / "environ").read_bytes()
            except OSError:
                continue
            if not wanted.isdisjoint(MARK.findall(environ)):
                found.append(int(entry.name))
    return found
