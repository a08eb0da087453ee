"""What `rdev up` shows: lines when piped, JSON on request, and on a terminal a table below them.

Everything is a log record; only its rendering differs. The table is redrawn in place, never on an
alternate screen, so that what scrolled by stays readable.
"""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from infra.local.events import Event

_REDRAW_S = 1.0
_BELOW = "\x1b[J"  # erase from the cursor to the end of the screen
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_COMMAND_TYPE = "ai.orchard9.rdev.command."

log = logging.getLogger("rdev.commands")

Rows = Callable[[], list[dict[str, Any]]]


class JsonFormatter(logging.Formatter):
    """One object a line: what was said, and the record's extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in _STANDARD},
        }
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said)


class PlainFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(mark)s%(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        record.mark = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        return super().format(record)


class TerminalHandler(logging.StreamHandler[TextIO]):
    """Writes lines above a table of what runs."""

    def __init__(self, stream: TextIO, rows: Rows) -> None:
        super().__init__(stream)
        self._rows = rows
        self._shown: list[str] = []
        self._timer: asyncio.TimerHandle | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self._erase()
        super().emit(record)
        self._draw(self._table())

    def start(self) -> None:
        """Redraw from now on whenever the table has changed."""
        table = self._table()
        if table != self._shown:
            self._erase()
            self._draw(table)
        self._timer = asyncio.get_running_loop().call_later(_REDRAW_S, self.start)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._erase()
        self._rows = list

    def _table(self) -> list[str]:
        width = os.get_terminal_size(self.stream.fileno()).columns
        return [line[: width - 1] for line in table(self._rows())]

    def _draw(self, lines: list[str]) -> None:
        self._shown = lines
        self.stream.write("".join(f"{line}\n" for line in lines))
        self.stream.flush()

    def _erase(self) -> None:
        if self._shown:
            self.stream.write(f"\x1b[{len(self._shown)}F{_BELOW}")
        self._shown = []


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Lay out the functions that run, wait or are in trouble."""
    shown = [row for row in rows if row["instances"] or row["waiting"] or row["trouble"]]
    if not shown:
        return []
    lines = ["", f"{'FUNCTION':<24}{'INSTANCES':>10}{'IN FLIGHT':>10}{'COLD STARTS':>12}"]
    for row in shown:
        busy = sum(one["in_flight"] for one in row["instances"]) + row["waiting"]
        counts = f"{len(row['instances']):>10}{busy:>10}{row['cold_starts']:>12}"
        lines.append(f"{row['name']:<24}{counts}  {row['trouble']}".rstrip())
    return lines


def install(rows: Rows, *, as_json: bool) -> TerminalHandler | None:
    """Choose how to show records; return the handler that needs a running loop, if any."""
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    terminal = None
    handler: logging.Handler
    if as_json:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(JsonFormatter())
    elif sys.stdout.isatty():
        handler = terminal = TerminalHandler(sys.stdout, rows)
        handler.setFormatter(PlainFormatter())
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(PlainFormatter())
    root.handlers = [handler]
    return terminal


def announce(url: str, home: str, *, as_json: bool) -> None:
    """Say that rdev is ready: the one line that scripts wait for, on stdout."""
    if as_json or sys.stdout.isatty():
        message = "rdev is ready at %s (state in %s)"
        log.info(message, url, home, extra={"event": "ready", "url": url})
    else:
        print(f"rdev is ready at {url} (state in {home})", flush=True)


def show_event(event: Event) -> None:
    """Say what the broker heard about commands."""
    kind = event.attributes["type"]
    if kind.startswith(_COMMAND_TYPE):
        what = kind.removeprefix(_COMMAND_TYPE).partition(".")[0].replace("_", " ")
        subject = event.attributes.get("subject", "")
        fields: Mapping[str, object] = {"event": f"command_{what}", "subject": subject}
        log.info("%s %s", subject, what, extra=fields)
