"""A runner process that stops itself (SIGSTOP) between its claim and its start.

Run by test_starts.py with the environment of its house.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from common.bootstrap import App
from common.domain.workspace import Job, Place
from common.ports.workspace import Start
from common.settings import settings


class StopsBeforeStart:
    """A workspace whose start first stops the process, as a scheduler or debugger might."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def start(self, place: Place, job: Job) -> Start:
        os.kill(os.getpid(), signal.SIGSTOP)
        started: Start = self._inner.start(place, job)
        return started

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def main() -> None:
    """Claim what there is in `demo`, stop, and go on when woken."""
    app = App(settings())
    app.__dict__["workspace"] = StopsBeforeStart(app.workspace)
    idle = threading.Event()
    app.runner.on_change = lambda: idle.set() if not app.runner.following else None
    app.runner.start()
    app.runner.ring("demo")
    idle.wait()
    app.runner.stop()
    app.close()


if __name__ == "__main__":
    main()
