"""The four journeys over HTTP: lifecycle, reconnection, concurrency, cancel."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.harness.running import Rdev, marked, text_of, until

# Each journey is gone twice: in a directory of this machine, and in a pod of the fake Kubernetes.
pytestmark = pytest.mark.parametrize(
    "rdev", ["directories", "pods"], indirect=True, scope="session"
)

GATE = "while [ ! -e {} ]; do sleep 0.02; done"


def make_key(rdev: Rdev, **body: object) -> str:
    """A key made over the API; answers its text."""
    wanted = {"name": "journey", "scopes": ["commands:write", "commands:read"]} | body
    with rdev.client() as client:
        answer = client.post("/v1/keys", json=wanted)
    assert answer.status_code == 201, answer.text
    text: str = answer.json()["key"]
    return text


def test_full_lifecycle(rdev: Rdev) -> None:
    """A key made for one project runs a command, streams it, and the metrics count it."""
    key = make_key(rdev, projects=["demo"])
    with rdev.client(key) as client:
        created = client.post("/v1/projects/demo/shell", json={"script": "echo out; echo err >&2"})
        assert created.status_code == 202
        command = created.json()
        assert created.headers["location"] == command["links"]["self"]
        assert command["state"] == "queued"
    events = rdev.follow(command["id"])
    assert [int(e["id"]) for e in events] == list(range(1, len(events) + 1))
    assert [e["data"]["state"] for e in events if e["event"] == "state"] == ["queued", "running"]
    assert text_of(events) == "out\nerr\n"
    end = events[-1]["data"]
    assert (end["state"], end["outcome"]["reason"]) == ("succeeded", "exit_zero")
    assert end["outcome"]["output"]["sha256"] == hashlib.sha256(b"out\nerr\n").hexdigest()
    assert end == rdev.get(command["id"])
    with rdev.client() as client:
        metrics = client.get("/metrics").text
    assert 'rdev_commands{kind="shell",state="succeeded"}' in metrics


def test_terminal_event_is_published(rdev: Rdev) -> None:
    """Nothing stays in the outbox once the broker has taken the terminal event."""
    command = rdev.submit(script="true")
    rdev.ended(command["id"])

    def pending() -> bool:
        with rdev.client() as client:
            return "rdev_outbox_pending 0\n" in client.get("/metrics").text

    until("the outbox is empty", pending)


def test_separate_streams_keep_their_bytes_apart(rdev: Rdev) -> None:
    """With `separate`, each stream has its own bytes, offsets and digest."""
    command = rdev.submit(script="printf out; printf problem >&2; exit 3", streams="separate")
    end = rdev.ended(command["id"])
    assert (end["state"], end["outcome"]["reason"], end["outcome"]["exit_code"]) == (
        "failed",
        "exit_nonzero",
        3,
    )
    assert rdev.output_of(command["id"], "stdout") == b"out"
    assert rdev.output_of(command["id"], "stderr") == b"problem"
    assert end["outcome"]["output"]["stderr"]["bytes"] == 7


def test_binary_output_is_byte_exact(rdev: Rdev) -> None:
    """Bytes that are no text arrive as they were written, in the stream and in the output."""
    command = rdev.submit(argv=["sh", "-c", r"printf '\000\377\303(\033[31m\r\n\342\200\250'"])
    end = rdev.ended(command["id"])
    raw = b"\x00\xff\xc3(\x1b[31m\r\n\xe2\x80\xa8"
    assert rdev.output_of(command["id"]) == raw
    assert end["outcome"]["output"]["sha256"] == hashlib.sha256(raw).hexdigest()


def test_reconnection_at_every_event_border(rdev: Rdev) -> None:
    """From every id on, a stream gives exactly the rest; after the last id it gives 204."""
    command = rdev.submit(script="for i in 1 2 3 4 5; do echo $i; sleep 0.08; done")
    whole = rdev.follow(command["id"])
    path = f"/v1/streams/commands/{command['id']}"
    for position, event in enumerate(whole[:-1]):
        with rdev.opened(path, event["id"]) as events:
            assert list(events) == whole[position + 1 :]
        with rdev.client() as client, client.stream("GET", f"{path}?after={event['id']}") as answer:
            assert answer.status_code == 200
    with rdev.opened(path, whole[-1]["id"]) as events:
        assert events.status == 204
    for wrong in ("seven", "-1", str(len(whole) + 1)):
        with rdev.opened(path, wrong) as events:
            assert events.status == 400


def test_the_sixth_command_waits_until_one_of_five_ends(rdev: Rdev, tmp_path: Path) -> None:
    """Five run at once; the sixth waits or is refused, and starts when one ends."""
    gates = [tmp_path / f"gate{n}" for n in range(5)]
    five = [rdev.submit(script=GATE.format(gate)) for gate in gates]
    until("five run", lambda: all(rdev.get(c["id"])["state"] == "running" for c in five))
    sixth = rdev.submit(script="echo sixth")
    with rdev.client() as client:
        refused = client.post(
            "/v1/commands",
            json={"project": "demo", "kind": "shell", "script": "true", "if_busy": "reject"},
        )
        assert (refused.status_code, refused.json()["code"]) == (429, "concurrency_limited")
        project = client.get("/v1/projects/demo").json()
        assert (project["running"], project["queued"]) == (5, 1)
    waiting = rdev.get(sixth["id"])
    assert (waiting["state"], waiting["queue_position"]) == ("queued", 1)
    gates[0].touch()
    assert rdev.ended(sixth["id"])["state"] == "succeeded"
    for gate in gates:
        gate.touch()
    assert all(rdev.ended(c["id"])["state"] == "succeeded" for c in five)


def test_cancel_ends_everything_a_command_started(rdev: Rdev) -> None:
    """Cancel is 202, again 202, then 200 with the command; no process of it lives on."""
    command = rdev.submit(script="setsid sleep 600 & sleep 600 & echo up; wait")
    with rdev.opened(command["links"]["stream"]) as events:
        next(e for e in events if e["event"] == "output")
    with rdev.client() as client:
        path = command["links"]["cancel"]
        assert client.post(path, json={"mode": "graceful"}).status_code == 202
        assert client.post(path).status_code in (200, 202)
        end = rdev.ended(command["id"])
        after = client.post(path, json={})
    assert (end["state"], end["outcome"]["reason"]) == ("cancelled", "user")
    assert (after.status_code, after.json()) == (200, end)
    until("nothing is left", lambda: not marked(command["id"]))


def test_cancel_of_a_waiting_command_never_runs_it(rdev: Rdev, tmp_path: Path) -> None:
    """A scheduled command that is cancelled ends at once and its script never ran."""
    canary = tmp_path / "canary"
    at = datetime.now(UTC) + timedelta(hours=1)
    command = rdev.submit(script=f"touch {canary}", run_at=at.isoformat())
    assert command["state"] == "scheduled"
    with rdev.client() as client:
        ended = client.post(command["links"]["cancel"])
    assert ended.status_code == 202
    assert (ended.json()["state"], ended.json()["outcome"]["reason"]) == ("cancelled", "user")
    assert not canary.exists()


def test_prefer_wait_answers_with_the_end(rdev: Rdev) -> None:
    """`Prefer: wait` gives 200 with the outcome when it comes in time, else 202."""
    with rdev.client() as client:
        body = {"project": "demo", "kind": "shell", "script": "echo quick"}
        quick = client.post("/v1/commands", json=body, headers={"prefer": "wait=30"})
        slow = client.post(
            "/v1/commands", json=body | {"script": "sleep 600"}, headers={"prefer": "wait=1"}
        )
        assert (quick.status_code, quick.json()["state"]) == (200, "succeeded")
        assert slow.status_code == 202
        client.post(slow.json()["links"]["cancel"], json={"mode": "force"})
    assert rdev.ended(slow.json()["id"])["state"] == "cancelled"


def test_an_idempotency_key_makes_one_command(rdev: Rdev) -> None:
    """The same key and body answer the same command; another body is 422."""
    with rdev.client() as client:
        body = {"project": "demo", "kind": "shell", "script": "echo once"}
        headers = {"idempotency-key": "journey-1"}
        first = client.post("/v1/commands", json=body, headers=headers)
        again = client.post("/v1/commands", json=body, headers=headers)
        other = client.post("/v1/commands", json=body | {"script": "echo two"}, headers=headers)
    assert first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


def test_run_at_starts_when_it_is_due(rdev: Rdev) -> None:
    """A scheduled command is `scheduled` until its time, then runs."""
    at = datetime.now(UTC) + timedelta(seconds=1.5)
    command = rdev.submit(script="date +%s.%N", run_at=at.isoformat())
    assert command["state"] == "scheduled"
    assert rdev.ended(command["id"])["state"] == "succeeded"
    assert float(rdev.output_of(command["id"])) >= at.timestamp()


@pytest.mark.parametrize(("timeouts", "reason"), [({"run_s": 1}, "run"), ({"idle_s": 1}, "idle")])
def test_timeouts_say_which(rdev: Rdev, timeouts: dict[str, int], reason: str) -> None:
    """A command that runs or is silent too long is `timed_out` and says which."""
    command = rdev.submit(script="echo started; sleep 600", timeouts=timeouts)
    end = rdev.ended(command["id"])
    assert (end["state"], end["outcome"]["reason"]) == ("timed_out", reason)
    assert rdev.output_of(command["id"]) == b"started\n"


def test_retry_is_a_new_command(rdev: Rdev) -> None:
    """A retry runs the same again and says what it repeats; secret values must be sent again."""
    command = rdev.submit(script='echo "$WORD"', env={"WORD": "secret-canary"})
    end = rdev.ended(command["id"])
    assert end["spec"]["env"] == {"WORD": None}
    with rdev.client() as client:
        missing = client.post(f"/v1/commands/{command['id']}/retry")
        assert (missing.status_code, missing.json()["errors"][0]["field"]) == (422, "env")
        again = client.post(f"/v1/commands/{command['id']}/retry", json={"env": {"WORD": "other"}})
    assert again.json()["retry_of"] == command["id"]
    rdev.ended(again.json()["id"])
    assert rdev.output_of(again.json()["id"]) == b"other\n"


def test_git_runs_in_the_demo_repository(rdev: Rdev) -> None:
    """The demo project is a git repository and git commands run in it."""
    with rdev.client() as client:
        created = client.post("/v1/projects/demo/git", json={"args": ["log", "--oneline"]}).json()
    assert rdev.ended(created["id"])["state"] == "succeeded"
    assert rdev.output_of(created["id"]).count(b"\n") >= 1


def test_a_project_stream_shows_every_command_and_resumes(rdev: Rdev) -> None:
    """A project's stream gives each command's states in order, and its cursor resumes exactly."""
    seen: list[dict[str, Any]] = []
    with rdev.opened("/v1/streams/projects/demo") as events:
        command = rdev.submit(script="echo hi")
        for event in events:
            if event["data"].get("command_id", event["data"].get("id")) == command["id"]:
                seen.append(event)
            if event["event"] == "end" and event["data"]["id"] == command["id"]:
                break
    assert [e["event"] for e in seen] == ["state", "state", "end"]
    with rdev.opened("/v1/streams/projects/demo", seen[0]["id"]) as events:
        rest = []
        for event in events:
            if event["data"].get("command_id", event["data"].get("id")) == command["id"]:
                rest.append(event)
            if event["event"] == "end" and event["data"]["id"] == command["id"]:
                break
    assert [e["data"] for e in rest] == [e["data"] for e in seen[1:]]


def test_a_configuration_is_the_workspaces_own(rdev: Rdev) -> None:
    """What is written there a command finds as a file; what a command changes is seen, by ETag."""
    base, content = "/v1/claude-config/demo", "---\ndescription: Greets\n---\nSay hello.\n"
    skill = "---\nname: reading\ndescription: Reads with care\n---\nRead.\n"
    with rdev.client() as client:
        made = client.post(f"{base}/commands", json={"name": "ops:hello", "content": content})
        assert made.status_code == 201, made.text
        body = {"name": "reading", "content": skill, "files": {"a/b": {"b64": "AP8="}}}
        assert client.post(f"{base}/skills", json=body).status_code == 201
        script = "cat commands/ops/hello.md; wc -c <skills/reading/a/b"
        script += "; echo more >>commands/ops/hello.md"
        changing = rdev.submit(script=f"cd .claude && {script}")
        assert rdev.ended(changing["id"])["state"] == "succeeded"
        assert rdev.output_of(changing["id"]).decode().split() == [*content.split(), "2"]
        path = f"{base}/commands/ops:hello"
        stale = {"if-match": made.headers["etag"]}
        assert client.put(path, json={"content": content}, headers=stale).status_code == 412
        shown = client.get(path)
        assert shown.json()["content"] == content + "more\n"
        effective = client.get(f"{base}/effective").json()["items"]
        assert [item["effective"]["loaded"] for item in effective] == [True, True]
        for one in (path, f"{base}/skills/reading"):
            fresh = {"if-match": client.get(one).headers["etag"]}
            assert client.delete(one, headers=fresh).status_code == 204


def test_a_revoked_key_is_refused_from_the_next_request_on(rdev: Rdev) -> None:
    """After DELETE the key's requests are 401, with the same body as an unknown key's."""
    text = make_key(rdev, name="short-lived")
    with rdev.client() as client:
        listed = client.get("/v1/keys").json()["items"]
        key_id = next(k["id"] for k in listed if k["prefix"] == text[:13])
        assert client.delete(f"/v1/keys/{key_id}").status_code == 204
    with rdev.client(text) as client:
        refused = client.get("/v1/commands")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Bearer")


def test_the_documents_need_no_network_and_no_key(rdev: Rdev) -> None:
    """/openapi.json and /docs answer everybody."""
    assert (
        httpx.get(f"{rdev.url}/openapi.json", trust_env=False).json()["openapi"].startswith("3.1")
    )
    assert httpx.get(f"{rdev.url}/docs", trust_env=False).status_code == 200
