"""Bad input gets a clear 4xx in problem+json and leaves nothing behind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from common.adapters.postgres.connection import Connection
from common.adapters.postgres.target import Target
from infra.local.postgres import EmbeddedPostgres
from tests.harness.running import Rdev

GOOD = {"project": "demo", "kind": "shell", "script": "true"}
NOW = datetime.now(UTC)


def count(rdev: Rdev) -> int:
    """How many commands there are."""
    with rdev.client() as client:
        total = 0
        for line in client.get("/metrics").text.splitlines():
            if line.startswith("rdev_commands{"):
                total += int(line.rsplit(" ", 1)[1])
        return total


def check(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The answer is that problem."""
    assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(answer.json()) >= {"type", "title", "status", "code", "detail", "request_id"}
    problem: dict[str, Any] = answer.json()
    return problem


RAW = {
    "no JSON": (b"{", 400, "invalid_request"),
    "not UTF-8": (b'{"project": "\xff"}', 400, "invalid_request"),
    "a lone surrogate": (
        b'{"project":"demo","kind":"shell","script":"\\ud800"}',
        400,
        "invalid_request",
    ),
    "NUL": (b'{"project":"demo","kind":"shell","script":"\\u0000"}', 400, "invalid_request"),
    "NaN": (b'{"project":"demo","kind":"shell","timeouts":{"run_s":NaN}}', 400, "invalid_request"),
    "a key twice": (b'{"project":"demo","project":"demo"}', 400, "invalid_request"),
    "100,000 levels": (b"[" * 100_000, 400, "invalid_request"),
    "a 5,000-digit integer": (b'{"priority":' + b"9" * 5000 + b"}", 400, "invalid_request"),
    "a list": (b"[]", 400, "invalid_request"),
    "2 MiB": (b'{"script":"' + b"x" * (2 << 20) + b'"}', 413, "payload_too_large"),
}


@pytest.mark.parametrize("name", RAW)
def test_a_body_that_cannot_be_read(rdev: Rdev, name: str) -> None:
    """The request is refused before anything is looked at."""
    body, status, code = RAW[name]
    before = count(rdev)
    with rdev.client() as client:
        answer = client.post(
            "/v1/commands", content=body, headers={"content-type": "application/json"}
        )
        check(answer, status, code)
        assert client.get("/v1/projects/demo").json()["name"] == "demo"
    assert count(rdev) == before


FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown field": ({"lease_token": 1}, "lease_token"),
    "a priority that is a number": ({"priority": 999}, "priority"),
    "run_at in the past": ({"run_at": (NOW - timedelta(hours=1)).isoformat()}, "run_at"),
    "run_at without zone": ({"run_at": "2030-01-01T00:00:00"}, "run_at"),
    "run_at too far ahead": ({"run_at": (NOW + timedelta(days=8)).isoformat()}, "run_at"),
    "33 labels": ({"labels": {f"l{n}": "x" for n in range(33)}}, "labels"),
    "script over 128 KiB": ({"script": "x" * (128 * 1024)}, "script"),
    "an environment name that runs code": ({"env": {"LD_PRELOAD": "x"}}, "env"),
    "a timeout of 0": ({"timeouts": {"run_s": 0}}, "timeouts.run_s"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_is_wrong(rdev: Rdev, name: str) -> None:
    """422 names the field, and nothing was created."""
    change, field = FIELDS[name]
    before = count(rdev)
    with rdev.client() as client:
        problem = check(client.post("/v1/commands", json=GOOD | change), 422, "invalid_field")
    assert problem["errors"][0]["field"] == field
    assert count(rdev) == before


def test_what_is_not_there_or_not_possible(rdev: Rdev) -> None:
    """Unknown projects, ids, methods, media types and addresses each have their own answer."""
    with rdev.client() as client:
        check(client.post("/v1/commands", json=GOOD | {"project": "none"}), 404, "not_found")
        check(client.get("/v1/commands/cmd_nothing"), 404, "not_found")
        check(client.get(f"/v1/commands/cmd_{'0' * 32}"), 404, "not_found")
        check(client.put("/v1/commands", json=GOOD), 405, "method_not_allowed")
        check(client.get("/v1/nothing"), 404, "not_found")
        text = client.post("/v1/commands", content=b"x=1", headers={"content-type": "text/plain"})
        check(text, 415, "unsupported_media_type")
        check(client.get("/v1/commands", params={"state": "unheard"}), 422, "invalid_field")
        check(client.get("/v1/commands/" + "x" * 9000), 414, "uri_too_long")


def test_what_the_state_does_not_allow(rdev: Rdev) -> None:
    """Output beyond its end is 416; a priority changes only while the command waits."""
    done = rdev.submit(script="echo hi")
    rdev.ended(done["id"])
    with rdev.client() as client:
        path = f"/v1/commands/{done['id']}"
        check(client.get(f"{path}/output", params={"offset": 4}), 416, "range_not_satisfiable")
        assert client.get(f"{path}/output", params={"offset": 3}).content == b""
        check(client.patch(path, json={"priority": "high"}), 409, "conflict")
        running = rdev.submit(script="sleep 600")
        check(client.post(f"/v1/commands/{running['id']}/retry"), 409, "conflict")
        client.post(running["links"]["cancel"], json={"mode": "force"})
    rdev.ended(running["id"])


@pytest.mark.parametrize("cwd", ["missing", "out", "../..", "/"])
def test_a_cwd_that_is_no_directory_of_the_workspace(rdev: Rdev, cwd: str) -> None:
    """A missing cwd, a symlink out and a path out fail to start, say why, and run nothing."""
    workspace = rdev.home / "workspaces" / "demo"
    canary = Path(rdev.home / "cwd-canary")
    link = workspace / "out"
    if not link.is_symlink():
        link.symlink_to("/tmp")
    with rdev.client() as client:
        answer = client.post("/v1/commands", json=GOOD | {"cwd": cwd, "script": f"touch {canary}"})
    if answer.status_code != 422:
        end = rdev.ended(answer.json()["id"])
        assert (end["state"], end["outcome"]["reason"]) == ("failed", "start_failed")
        assert end["outcome"]["detail"]
    assert not canary.exists()


def test_a_key_in_the_address_or_twice_is_no_key(rdev: Rdev) -> None:
    """A key in the query is refused even beside a good header; so are two headers."""
    with rdev.client() as client:
        check(client.get(f"/v1/commands?api_key={rdev.key}"), 401, "unauthorized")
    twice = [("authorization", f"Bearer {rdev.key}"), ("authorization", f"Bearer {rdev.key}")]
    check(httpx.get(f"{rdev.url}/v1/commands", headers=twice, trust_env=False), 401, "unauthorized")
    check(httpx.get(f"{rdev.url}/v1/commands", trust_env=False), 401, "unauthorized")


def test_a_full_disk_of_the_database_is_503_and_passes(rdev: Rdev) -> None:
    """Submitting says 503 with Retry-After while PostgreSQL has no space, reading goes on."""
    database = Connection(Target.parse(EmbeddedPostgres(rdev.home).url), application_name="test")
    database.script(
        "CREATE FUNCTION no_space() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$;"
        "CREATE TRIGGER no_space BEFORE INSERT ON commands EXECUTE FUNCTION no_space()"
    )
    try:
        with rdev.client() as client:
            refused = client.post("/v1/commands", json=GOOD)
            check(refused, 503, "not_ready")
            assert int(refused.headers["retry-after"]) > 0
            assert client.get("/v1/commands").status_code == 200
    finally:
        database.script("DROP TRIGGER no_space ON commands; DROP FUNCTION no_space()")
        database.close()
    assert rdev.ended(rdev.submit(script="true")["id"])["state"] == "succeeded"
