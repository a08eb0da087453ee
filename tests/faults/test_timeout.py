"""The platform cuts a request at timeoutSeconds, a stream too: its reader resumes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import yaml

from rdev.sse import Event, Parser
from tests.harness.running import ROOT, Rdev, text_of

TIMEOUT_S = 2
LINES = 50
SCRIPT = f"i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo $i; sleep 0.1; done"  # more than 5 s
CUT = b"request timeout"  # what queue-proxy writes into a stream that it ends


def base_with_a_short_stream(directory: Path) -> Path:
    """A copy of infra/base whose stream function has a small timeoutSeconds."""
    base = directory / "base"
    shutil.copytree(ROOT / "infra" / "base", base)
    manifest = base / "functions" / "stream.yaml"
    document = yaml.safe_load(manifest.read_text())
    document["spec"]["template"]["spec"]["timeoutSeconds"] = TIMEOUT_S
    manifest.write_text(yaml.safe_dump(document))
    return base


def test_a_stream_cut_at_its_timeout_loses_nothing(tmp_path: Path) -> None:
    """A reader that resumes after each cut gets every event once, in order, to the end."""
    rdev = Rdev(tmp_path / "home")
    base = base_with_a_short_stream(tmp_path)
    rdev.program = ("-m", "tests.faults.short_timeouts", str(base))
    rdev.start()
    try:
        command = rdev.submit(script=SCRIPT)
        path = f"/v1/streams/commands/{command['id']}"
        events: list[Event] = []
        cuts = 0
        while not events or events[-1].type != "end":
            last = {"last-event-id": str(events[-1].id)} if events else {}
            parser, received = Parser(), b""
            with rdev.client() as client, client.stream("GET", path, headers=last) as answer:
                assert answer.status_code == 200
                for chunk in answer.iter_raw():
                    received += chunk
                    events += [item for item in parser.feed(chunk) if isinstance(item, Event)]
            cuts += received.endswith(CUT)
        assert cuts >= 2
        assert [int(e.id or 0) for e in events] == list(range(1, len(events) + 1))
        shown = [{"event": e.type, "data": json.loads(e.data)} for e in events]
        assert text_of(shown) == "".join(f"{n}\n" for n in range(1, LINES + 1))
        assert rdev.ended(command["id"])["state"] == "succeeded"
    finally:
        rdev.stop()
