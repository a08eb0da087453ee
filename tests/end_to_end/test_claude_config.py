"""A configuration is written through the API, and the real claude then says that it has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.local.claude import path_with_claude
from tests.harness.messages_api import MessagesApi, stand_in, text
from tests.harness.running import Rdev, until

pytestmark = pytest.mark.skipif(
    not path_with_claude("").strip(":"), reason="no claude here: uv sync --extra claude"
)
BASE = "/v1/claude-config/demo"


@pytest.fixture(scope="module")
def model() -> Iterator[MessagesApi]:
    with stand_in(text("ok")) as api:
        yield api


@pytest.fixture(scope="module")
def claude(model: MessagesApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rdev]:
    """An rdev whose claude talks to the stand-in."""
    home: Path = tmp_path_factory.mktemp("claude")
    running = Rdev(home / "rdev", **model.environment(str(home / "config"))).start()
    yield running
    running.stop()


def create(client: httpx.Client, kind: str, name: str, content: str, **more: Any) -> dict[str, Any]:
    body = {"name": name, "content": content} | more
    answer = client.post(f"{BASE}/{kind}", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["etag"]
    made: dict[str, Any] = answer.json()
    return made


def init_event(claude: Rdev, prompt: str) -> dict[str, Any]:
    """What claude says of itself when it begins."""
    command = claude.submit(kind="claude", prompt=prompt)
    assert claude.ended(command["id"], patience_s=120)["state"] == "succeeded"
    lines = [e["data"]["raw"] for e in claude.follow(command["id"]) if e["event"] == "agent"]
    found: dict[str, Any] = next(line for line in lines if line.get("subtype") == "init")
    return found


def test_what_was_written_is_what_claude_has(claude: Rdev, model: MessagesApi) -> None:
    """Created, listed by claude itself; changed, and the model gets the new text; removed."""
    with claude.client() as client:
        create(
            client,
            "commands",
            "ops:deploy",
            "---\ndescription: Deploy it\n---\nDeploy $ARGUMENTS now.\n",
        )
        skill = "---\nname: reading\ndescription: Reads with care\n---\nRead.\n"
        made = create(client, "skills", "reading", skill, files={"notes/a.txt": "a"})
        assert made["effective"] == {"loaded": True, "reason": None}
        agent = "---\nname: reviewer\ndescription: Reviews what changed\n---\nReview.\n"
        create(client, "agents", "reviewer", agent)
        init = init_event(claude, "hello")
        assert "ops:deploy" in init["slash_commands"]
        assert "reading" in init["skills"]
        assert "reviewer" in init["agents"]

        path = f"{BASE}/commands/ops:deploy"
        tag = client.get(path).headers["etag"]
        changed = {"content": "---\ndescription: Deploy it\n---\nROLL OUT $ARGUMENTS now.\n"}
        answer = client.put(path, json=changed, headers={"if-match": tag})
        assert answer.status_code == 200, answer.text
        stale = client.delete(path, headers={"if-match": tag})
        assert (stale.status_code, stale.json()["code"]) == (412, "precondition_failed")
        model.requests.clear()
        init_event(claude, "/ops:deploy staging")
        assert "ROLL OUT staging now." in str(model.requests)

        for kind, name in (
            ("commands", "ops:deploy"),
            ("skills", "reading"),
            ("agents", "reviewer"),
        ):
            tag = client.get(f"{BASE}/{kind}/{name}").headers["etag"]
            gone = client.delete(f"{BASE}/{kind}/{name}", headers={"if-match": tag})
            assert gone.status_code == 204
        init = init_event(claude, "hello again")
        assert "ops:deploy" not in init["slash_commands"]
        assert "reading" not in init["skills"]
        assert "reviewer" not in init["agents"]

    def recorded() -> list[str]:
        with claude.client() as client:
            entries = client.get("/v1/audit", params={"project": "demo", "limit": 200}).json()
        return [e["action"] for e in entries["items"] if e["action"].startswith("claude_config.")]

    actions = until("the trail has the last one", recorded)
    assert actions.count("claude_config.begun") == 7
    assert actions.count("claude_config.created") == 3
    assert actions.count("claude_config.updated") == 1
    assert actions.count("claude_config.deleted") == 3
