"""What `rdev up` shows, on a terminal, through a pipe and as JSON."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
from typing import Any

import pytest

from infra.local import display
from infra.local.display import JsonFormatter, PlainFormatter, TerminalHandler, table
from infra.local.events import Event
from infra.local.faults import Faults, FaultsError


def row(name: str, *in_flight: int, **more: Any) -> dict[str, Any]:
    instances = [{"pid": 1, "port": 2, "in_flight": busy} for busy in in_flight]
    return {"name": name, "instances": instances, "waiting": 0, "cold_starts": 3} | {
        "trouble": "",
        **more,
    }


def record(level: int, text: str, **extra: Any) -> logging.LogRecord:
    made = logging.makeLogRecord({"levelno": level, "levelname": logging.getLevelName(level)})
    made.msg = text
    vars(made).update(extra)
    return made


def test_the_table_shows_what_runs_waits_or_is_in_trouble() -> None:
    """Functions at zero take no line."""
    lines = table([row("one", 2, 1), row("zero"), row("bad", trouble="exited with status 1")])
    assert [line.split()[0] for line in lines if line] == ["FUNCTION", "one", "bad"]
    assert lines[2].split() == ["one", "2", "3", "3"]
    assert lines[3].endswith("exited with status 1")
    assert table([row("zero")]) == []


def test_json_lines_carry_the_fields_of_a_record() -> None:
    """What is extra in a record is a field of the object."""
    said = json.loads(JsonFormatter().format(record(logging.INFO, "hi", event="e", pid=7)))
    assert (said["message"], said["event"], said["pid"], said["level"]) == ("hi", "e", 7, "info")


def test_plain_lines_name_only_what_is_wrong() -> None:
    """A normal line is a time and a sentence; a warning says that it is one."""
    formatter = PlainFormatter()
    assert formatter.format(record(logging.INFO, "started")).endswith(" started")
    assert "warning: it died" in formatter.format(record(logging.WARNING, "it died"))


def test_the_terminal_keeps_the_table_below_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line erases the table, is written, and the table is drawn again under it."""

    class Terminal(io.StringIO):
        def fileno(self) -> int:
            return 1

    monkeypatch.setattr(
        "infra.local.display.os.get_terminal_size", lambda _: os.terminal_size((40, 20))
    )
    stream = Terminal()

    async def main() -> None:
        handler = TerminalHandler(stream, lambda: [row("one", 1, trouble="x" * 100)])
        handler.start()
        drawn = stream.getvalue()
        handler.emit(record(logging.INFO, "a line"))
        written = stream.getvalue()[len(drawn) :]
        assert written.startswith("\x1b[3F\x1b[Ja line\n") and written.endswith(drawn)
        assert max(len(line) for line in drawn.splitlines()) < 40
        handler.stop()
        assert stream.getvalue().endswith("\x1b[J")

    asyncio.run(main())


def test_commands_are_shown_as_they_start_and_end(caplog: pytest.LogCaptureFixture) -> None:
    """Events about commands become lines, others do not."""
    caplog.set_level(logging.INFO)
    for kind in ("command.timed_out.v1", "project.removed.v1"):
        attributes = {"type": f"ai.orchard9.rdev.{kind}", "subject": "projects/p/commands/c"}
        display.show_event(Event(attributes))
    assert [one.getMessage() for one in caplog.records] == ["projects/p/commands/c timed out"]


@pytest.mark.parametrize("text", ["lose=0.1", "drop=much", "drop"])
def test_wrong_faults_are_refused(text: str) -> None:
    """A fault mode that would not do what was meant does not start."""
    with pytest.raises(FaultsError, match="RDEV_BROKER_FAULTS"):
        Faults.parse(text)
