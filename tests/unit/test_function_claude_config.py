"""functions/claude_config: what callers send and see."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from common.domain.claude_config import Definition, Found, Kind
from common.domain.workspace import Place, WorkspaceUnreachable
from common.entrypoints.models import resources
from tests.unit.conftest import Api, Client

BASE = "/v1/claude-config/demo"
SKILL = "---\nname: reading\ndescription: Reads with care\n---\nRead.\n"
FILES = {
    "notes/a.txt": "a",
    "run.sh": {"text": "#!/bin/sh\n", "executable": True},
    "all.bin": {"b64": base64.b64encode(bytes(range(256))).decode(), "executable": False},
}


@pytest.fixture
def client(api: Api) -> Client:
    return api.client("claude_config", api.keys.make("claude-config:read", "claude-config:write"))


def send(client: Client, method: str, path: str, body: dict[str, Any], **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.request(method, BASE + path, content=json.dumps(body).encode(), headers=named)


def create(client: Client, **fields: Any) -> Any:
    return send(client, "POST", "/skills", {"name": "reading", "content": SKILL} | fields)


def test_a_skill_round_trip(client: Client) -> None:
    """Created, shown, listed, changed, removed; every answer is what openapi.json promises."""
    made = create(client, files=FILES)
    assert made.status_code == 201
    assert made.headers["location"] == f"{BASE}/skills/reading"
    shown = client.get(f"{BASE}/skills/reading")
    assert shown.json() == made.json()
    assert shown.headers["etag"] == made.headers["etag"]
    assert shown.headers["etag"].startswith('"')
    body = resources.ConfigDefinition.model_validate(shown.json())
    assert (body.content, body.files["notes/a.txt"]) == (SKILL, "a")
    assert shown.json()["files"] == FILES
    listed = client.get(f"{BASE}/skills").json()
    [line] = resources.ConfigPage.model_validate(listed).items
    assert (line.name, line.description) == ("reading", "Reads with care")
    effective = client.get(f"{BASE}/effective").json()
    [item] = resources.EffectiveConfig.model_validate(effective).items
    assert (item.shown, item.effective.loaded) == ("reading", True)
    tag = shown.headers["etag"]
    changed = send(client, "PUT", "/skills/reading", {"content": SKILL + "More.\n"}, if_match=tag)
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag
    assert changed.json()["files"] == FILES
    gone = client.request("DELETE", f"{BASE}/skills/reading", headers={"if-match": tag})
    assert (gone.status_code, gone.json()["code"]) == (412, "precondition_failed")
    tag = changed.headers["etag"]
    gone = client.request("DELETE", f"{BASE}/skills/reading", headers={"if-match": tag})
    assert (gone.status_code, gone.content) == (204, b"")
    assert client.get(f"{BASE}/skills/reading").status_code == 404


def test_a_creation_is_repeated_by_its_content(client: Client) -> None:
    """201 again for the same, whatever the Idempotency-Key; 409 for another content."""
    first, again = create(client), create(client)
    assert (again.status_code, again.json()) == (201, first.json())
    other = create(client, content=SKILL + "x")
    assert (other.status_code, other.json()["code"]) == (409, "conflict")


def test_a_change_without_if_match(client: Client) -> None:
    """428, also where nothing is to be changed."""
    create(client)
    answer = send(client, "PUT", "/skills/reading", {"content": SKILL})
    assert (answer.status_code, answer.json()["code"]) == (428, "precondition_required")
    assert client.request("DELETE", f"{BASE}/skills/reading").status_code == 428
    answer = send(client, "PUT", "/skills/reading", {"content": SKILL}, if_match="abc")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


def test_errors_have_field_and_line(client: Client) -> None:
    """422 by default; `?validate=lenient` writes and says the same as issues."""
    wrong = "---\nname: reading\nmodel: 3\ncolour: red\n---\nRead.\n"
    answer = create(client, content=wrong)
    assert answer.status_code == 422
    assert [(e["field"], e["code"], e["line"]) for e in answer.json()["errors"]] == [
        ("description", "missing", 1), ("model", "invalid_value", 3),
    ]  # fmt: skip
    resources.Problem.model_validate(answer.json())
    body = {"name": "reading", "content": wrong}
    lenient = send(client, "POST", "/skills?validate=lenient", body)
    assert lenient.status_code == 201
    levels = [(i["field"], i["level"]) for i in lenient.json()["issues"]]
    assert levels == [("description", "error"), ("model", "error"), ("colour", "warning")]
    assert lenient.json()["effective"]["loaded"] is False
    assert send(client, "POST", "/skills?validate=never", body).status_code == 422


def test_a_check_writes_nothing(client: Client) -> None:
    """It says whether strict would let it pass, and everything else there is to say."""
    body = {"name": "reading", "content": SKILL}
    assert send(client, "POST", "/skills:validate", body).json() == {"valid": True, "issues": []}
    wrong = send(client, "POST", "/agents:validate", {"name": "A", "content": "x"}).json()
    resources.ConfigVerdict.model_validate(wrong)
    assert wrong["valid"] is False
    assert {issue["field"] for issue in wrong["issues"]} == {"name", "description"}
    assert client.get(f"{BASE}/skills").json()["items"] == []


@pytest.mark.parametrize(
    "files",
    [
        {"a": {}}, {"a": {"text": "x", "b64": "eA=="}}, {"a": {"b64": "!"}}, {"a": {"b64": "eA"}},
        {"a": {"text": "x", "mode": 1}}, {"a": 1}, ["a"], {"a": None},
    ],
)  # fmt: skip
def test_a_file_is_text_or_base64(client: Client, files: Any) -> None:
    """422 for anything else, and for both."""
    assert create(client, files=files).status_code == 422


def test_an_unknown_kind_is_not_there(client: Client) -> None:
    """404 for every verb."""
    body = {"name": "x", "content": "x"}
    calls = [("GET", "/hooks"), ("POST", "/hooks"), ("POST", "/hooks:validate")]
    calls += [(method, "/hooks/x") for method in ("GET", "PUT", "DELETE")]
    for method, path in calls:
        sent = {"content": "x"} if method == "PUT" else body
        answer = send(client, method, path, sent, if_match="*")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), (method, path)


def test_a_workspace_that_is_away(api: Api, client: Client) -> None:
    """503 with when to come back."""
    api.files.fail("read", WorkspaceUnreachable("no pod"))
    answer = client.get(f"{BASE}/agents")
    assert (answer.status_code, answer.json()["code"]) == (503, "workspace_unreachable")
    assert answer.headers["retry-after"] == "2"


def test_what_is_no_text_is_shown_as_it_can_be(api: Api, client: Client) -> None:
    """A command in some other encoding has no content in JSON, and an issue that says why."""
    project = api.projects.get("demo")
    assert project is not None
    place = Place("demo", project.workspace)
    api.files.put(place, Definition(Kind.COMMANDS, "old", b"\xff"), "absent")
    shown = client.get(f"{BASE}/commands/old").json()
    assert shown["content"] is None
    assert [issue["code"] for issue in shown["issues"]] == ["encoding"]
    api.files.plant(place, Kind.AGENTS, Found("l.md", "link"))
    [line] = client.get(f"{BASE}/agents").json()["items"]
    assert line["effective"]["loaded"] is None
    assert client.get(f"{BASE}/commands/none").status_code == 404
