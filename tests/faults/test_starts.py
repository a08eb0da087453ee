"""Between claim and start anything may happen: a command still runs at most once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from cryptography.fernet import Fernet

from common.bootstrap import App
from common.domain import keys
from common.domain.command import Command, Kind, NewCommand, State
from common.domain.identifiers import new_id
from common.domain.keys import Caller
from common.domain.workspace import Job, Place, TransportLost
from common.ports.commands import Origin
from common.ports.workspace import Start
from common.settings import read
from tests.harness.running import ROOT, until

ORIGIN = Origin("req_test")


class House:
    """One database and home, a caller who may do everything, and as many Apps as wanted."""

    def __init__(self, database_url: str, home: Path) -> None:
        self.home = home
        self.environment = {
            "RDEV_DATABASE_URL": database_url,
            "RDEV_HOME": str(home),
            "RDEV_SECRET_KEYS": Fernet.generate_key().decode(),
        }
        (home / "workspaces" / "demo").mkdir(parents=True)
        self.app = self.another()
        self.app.discover()
        token = keys.new_key()
        self.app.manage_keys.ensure_admin(token)
        caller = self.app.authorise(token, [], ORIGIN).caller
        assert caller is not None
        self.caller: Caller = caller

    def another(self) -> App:
        """A second App, as a second process would have it."""
        return App(read(self.environment))

    def submit(self, script: str) -> UUID:
        new = NewCommand(new_id(), "demo", Kind.SHELL, {"script": script})
        return self.app.submit(new, self.caller, ORIGIN).command.id

    def get(self, command_id: UUID) -> Command:
        command = self.app.commands.get(command_id)
        assert command is not None
        return command

    def ended(self, command_id: UUID) -> Command:
        until("the command ends", lambda: self.get(command_id).ended)
        return self.get(command_id)

    def let_leases_run_out(self) -> None:
        """What 15 s without a heartbeat come to."""
        with self.app.database.session() as connection:
            connection.script("UPDATE command_runs SET lease_until = clock_timestamp()")


@pytest.fixture
def house(database_url: str, tmp_path: Path) -> Iterator[House]:
    """A house whose runner is stopped at the end."""
    house = House(database_url, tmp_path / "home")
    yield house
    house.app.runner.stop()
    house.app.close()


@pytest.fixture
def stopped_runner(house: House) -> Iterator[tuple[UUID, Path, subprocess.Popen[bytes]]]:
    """A command, its canary file, and a runner that claimed it and was stopped before the start."""
    canary = house.home / "canary"
    command_id = house.submit(f"echo ran >> {canary}")
    arguments = [sys.executable, "-m", "tests.faults.stopping_runner"]
    process = subprocess.Popen(arguments, cwd=ROOT, env=os.environ | house.environment)
    until("it stops", lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
    assert house.get(command_id).state is State.CLAIMED
    yield command_id, canary, process
    if process.poll() is None:
        os.kill(process.pid, signal.SIGCONT)
        process.wait(30)


def test_cancelled_between_claim_and_start_never_runs(
    house: House, stopped_runner: tuple[UUID, Path, subprocess.Popen[bytes]]
) -> None:
    """Cancelled while its runner is stopped: another takes the tombstone, and the start loses."""
    command_id, canary, process = stopped_runner
    shown = f"cmd_{command_id.hex}"
    house.app.cancel(shown, "graceful", house.caller, ORIGIN)
    assert house.get(command_id).state is State.CANCELLING
    house.let_leases_run_out()
    house.app.runner.start()
    house.app.runner.ring("demo")
    end = house.ended(command_id)
    assert (end.state, end.outcome and end.outcome["reason"]) == (State.CANCELLED, "user")
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(30) == 0
    assert not canary.exists()
    assert house.get(command_id) == end


def test_adopted_between_claim_and_start_runs_once(
    house: House, stopped_runner: tuple[UUID, Path, subprocess.Popen[bytes]]
) -> None:
    """Adopted while its runner is stopped: the adopter starts it, and the first is fenced."""
    command_id, canary, process = stopped_runner
    house.let_leases_run_out()
    house.app.runner.start()
    house.app.runner.ring("demo")
    end = house.ended(command_id)
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(30) == 0
    assert end.state is State.SUCCEEDED
    assert canary.read_text() == "ran\n"
    assert house.get(command_id) == end


class LosesTheAnswer:
    """A workspace whose first starts happen, but whose answers are lost."""

    def __init__(self, inner: Any, losses: int) -> None:
        self._inner = inner
        self._losses = losses

    def start(self, place: Place, job: Job) -> Start:
        started: Start = self._inner.start(place, job)
        if self._losses:
            self._losses -= 1
            if started.output is not None:
                started.output.close()
            raise TransportLost("the answer to start was lost")
        return started

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_an_ambiguous_start_is_attached_to(house: House) -> None:
    """When nobody knows whether it started, asking again attaches: it ran once."""
    canary = house.home / "canary"
    house.app.__dict__["workspace"] = LosesTheAnswer(house.app.workspace, losses=2)
    command_id = house.submit(f"echo ran >> {canary}; echo one; sleep 0.5; echo two")
    house.app.runner.start()
    house.app.runner.ring("demo")
    end = house.ended(command_id)
    assert end.state is State.SUCCEEDED
    assert canary.read_text() == "ran\n"
    stored = house.app.commands.output(command_id, "merged", 0, 100)
    assert b"".join(segment.data for segment in stored) == b"one\ntwo\n"
