"""Every process of ours is killed in the middle of a command that prints numbered lines.

The promise: the command runs once, every line arrives once and in order, and nothing is left.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.harness.running import Rdev, marked, text_of, until

LINES = 40
# The last line waits to be asked for, so that a slow machine finds the command still running.
SCRIPT = (
    "echo run >> {runs}; i=0; while [ $i -lt {n} ]; do i=$((i+1)); "
    "while [ $i = {n} ] && [ ! -e {runs}.last ]; do sleep 0.1; done; echo $i; sleep 0.1; done"
)
NUMBERED = "".join(f"{i}\n" for i in range(1, LINES + 1))


class Watched:
    """A command that prints numbered lines, and a reader that follows it over every break."""

    def __init__(self, rdev: Rdev, runs: Path) -> None:
        self.rdev = rdev
        self.runs = runs
        self.command = rdev.submit(script=SCRIPT.format(runs=runs, n=LINES))
        self.events: list[dict[str, Any]] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        self.events = self.rdev.follow(self.command["id"], patience_s=90)

    def printed(self, line: int) -> None:
        """Wait until the command itself has printed a line; the database may be away."""
        stored = self.rdev.home / "runs" / "demo"
        until(
            f"line {line} is printed",
            lambda: any(
                f"\n{line}\n" in path.read_text(errors="replace")
                for path in stored.rglob("*")
                if path.is_file() and path.suffix != ".sh"
            ),
        )

    def finish(self) -> None:
        """Let the command print its last line and end."""
        self.runs.with_suffix(".last").touch()

    def check(self) -> None:
        """The reader saw every line once and in order; the command ran once; nothing is left."""
        self.finish()
        self.reader.join(90)
        assert self.events, "the stream never ended"
        assert [int(e["id"]) for e in self.events] == list(range(1, len(self.events) + 1))
        assert text_of(self.events) == NUMBERED
        end = self.rdev.ended(self.command["id"])
        assert (end["state"], end["outcome"]["reason"]) == ("succeeded", "exit_zero")
        assert self.rdev.output_of(self.command["id"]) == NUMBERED.encode()
        assert self.runs.read_text() == "run\n"
        until("nothing is left", lambda: not marked(self.command["id"]))


@pytest.fixture
def watched(rdev: Rdev, tmp_path: Path) -> Watched:
    """A watched command that has printed its fifth line."""
    watched = Watched(rdev, tmp_path / "runs")
    watched.printed(5)
    return watched


@pytest.mark.parametrize("function", ["on-command-queued", "stream", "commands"])
def test_a_killed_function_costs_no_line(rdev: Rdev, watched: Watched, function: str) -> None:
    """SIGKILL of every instance of a function: the command and its stream go on."""
    if function == "commands":
        rdev.get(watched.command["id"])
    rdev.kill_function(function)
    watched.check()


def test_a_killed_database_costs_no_line(rdev: Rdev, watched: Watched) -> None:
    """SIGKILL of PostgreSQL: it comes back, and everything resumes from what was stored."""
    postgres = [p for p in rdev.descendants() if p.name() == "postgres"]
    assert postgres
    for process in postgres:
        process.kill()
    watched.check()


def test_a_killed_rdev_up_leaves_commands_alone(rdev: Rdev, watched: Watched) -> None:
    """SIGKILL of `rdev up` with its gateway: no orphan of ours; the next one adopts the command."""
    rdev.kill()
    assert marked(watched.command["id"])
    rdev.start()
    watched.check()


def test_a_stopped_runner_is_fenced_when_it_wakes(rdev: Rdev, watched: Watched) -> None:
    """SIGSTOP beyond the lease: another runner follows; the first writes nothing when it wakes."""
    stopped = rdev.kill_function("on-command-queued", signal.SIGSTOP)
    watched.finish()
    try:
        end = rdev.ended(watched.command["id"], patience_s=60)
        assert end["state"] == "succeeded"
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    watched.check()


def test_ctrl_c_cancels_what_runs(rdev: Rdev, watched: Watched) -> None:
    """Ctrl-C ends running commands as `shutdown`; everything is gone; the next start knows it."""
    assert rdev.stop() == 0
    assert not marked(watched.command["id"])
    rdev.start()
    end = rdev.ended(watched.command["id"])
    assert (end["state"], end["outcome"]["reason"]) == ("cancelled", "shutdown")


def test_keep_running_leaves_commands_alive(tmp_path: Path) -> None:
    """With --keep-running, Ctrl-C leaves the command alive and the next start adopts it."""
    rdev = Rdev(tmp_path / "home").start("--keep-running")
    watched = Watched(rdev, tmp_path / "runs")
    watched.printed(5)
    rdev.stop()
    assert marked(watched.command["id"])
    rdev.start()
    watched.check()
    rdev.stop()
