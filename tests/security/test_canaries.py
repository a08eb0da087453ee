"""Rows 7 and 69 on a whole rdev: what was secret is nowhere it could be read again."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.adapters.postgres.connection import Connection
from common.adapters.postgres.target import Target
from infra.local.postgres import EmbeddedPostgres
from tests.harness.running import Rdev, until
from tests.security.scan import found_in

# The last two have the shapes that scanners know, put together only here.
ENV, MESSAGE = "c4n4ry-env-71d2", "c4n4ry-refused-5e5e"
PROMPT, TOKEN = "gh" + "p_" + "c4n4ry" * 6, "sk-ant-" + "api03-" + "c4n4ry" * 16


@pytest.fixture
def rdev(tmp_path: Path) -> Iterator[Rdev]:
    running = Rdev(tmp_path / "home").start()
    yield running
    running.stop()


def dump(rdev: Rdev, *tables: str) -> str:
    """The rows of these tables, of all when none is named, as PostgreSQL writes them."""
    database = Connection(Target.parse(EmbeddedPostgres(rdev.home).url), application_name="test")
    try:
        names = tables or [
            row[0]
            for row in database.script(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
            )
        ]
        return "\n".join(repr(database.script(f"SELECT t::text FROM {name} t")) for name in names)
    finally:
        database.close()


def logs(rdev: Rdev) -> str:
    """Everything that `rdev up` printed, and every log file below its home."""
    files = [p for p in rdev.home.rglob("*") if p.is_file() and p.suffix in (".log", ".jsonl")]
    return "".join(rdev.output) + "".join(p.read_text(errors="replace") for p in files)


def command_lines() -> str:
    """What `ps` would show anybody on this machine."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(entry.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(found)


@pytest.mark.row(7, 69, 71)
def test_no_secret_is_where_it_could_be_read_again(rdev: Rdev) -> None:
    """Not in logs, the audit trail, events, error bodies, a dump of the database, or argv."""
    with rdev.client() as client:
        made = client.post("/v1/keys", json={"name": "ci", "scopes": ["commands:read"]}).json()
        rotated = client.post(f"/v1/keys/{made['id']}/rotate").json()
        wrong = {"project": "demo", "kind": "shell", "script": "true", "env": {"PATH": MESSAGE}}
        refused = client.post("/v1/commands", json=wrong)
        assert refused.status_code == 422
        assert MESSAGE not in refused.text
        claude = {"project": "demo", "kind": "claude", "prompt": PROMPT}
        paused = client.post("/v1/queue/demo/pause")
        assert paused.status_code == 200
        waiting = client.post("/v1/commands", json=claude).json()
        client.post(f"/v1/commands/{waiting['id']}/cancel")
        client.post("/v1/queue/demo/resume")
    with rdev.client(made["key"]) as client:
        assert client.post("/v1/commands", json=wrong).status_code == 403
    running = rdev.submit(script='test -n "$TOKEN" && sleep 600', env={"TOKEN": ENV, "API": TOKEN})
    until("it runs", lambda: rdev.get(running["id"])["state"] == "running")
    assert ENV not in command_lines()
    assert rdev.get(running["id"])["spec"]["env"] == {"TOKEN": None, "API": None}
    everything = dump(rdev)
    assert ENV not in everything
    with rdev.client() as client:
        client.post(running["links"]["cancel"], json={"mode": "force"})
    rdev.ended(running["id"])
    until("the refusal is on record", lambda: "request.refused" in dump(rdev, "audit_log"))
    until("the trail is sealed", lambda: dump(rdev, "audit_chain") != "[]")
    secrets = (rdev.key, made["key"], rotated["key"])
    trail = dump(rdev, "audit_log", "audit_chain", "outbox", "command_events")
    printed, everything = logs(rdev), dump(rdev)
    for secret in secrets:
        assert secret not in everything
        assert secret[14:] not in everything + printed
    for canary in (ENV, TOKEN, PROMPT, MESSAGE):
        assert canary not in trail
        assert canary not in printed
    assert found_in(printed.encode()) == []
    assert {*found_in(PROMPT.encode()), *found_in(TOKEN.encode())}  # they would have been seen
    with rdev.client() as client:
        assert client.get("/v1/audit/verify").json()["ok"] is True
        assert client.get("/v1/usage?by=project").json()["items"][0]["project"] == "demo"


def test_a_process_that_is_told_to_stop_writes_its_refusals_first(rdev: Rdev) -> None:
    """They wait up to a second to be written; SIGTERM comes sooner here."""
    with rdev.client() as client:
        weak = client.post("/v1/keys", json={"name": "ci", "scopes": ["commands:read"]}).json()
    with rdev.client(weak["key"]) as client:
        assert client.get("/v1/keys").status_code == 403
    rdev.kill_function("keys", signal.SIGTERM)
    until("it is on record", lambda: "request.refused" in dump(rdev, "audit_log"))
