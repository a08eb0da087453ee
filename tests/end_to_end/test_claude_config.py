"""A configuration is written through the API, and the real claude then says that it has it."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.local.claude import path_with_claude
from rdev.main import main
from tests.harness.messages_api import MessagesApi, stand_in, text
from tests.harness.running import Rdev

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


FRONT = "---\ndescription: Does it well\n---\nDo it.\n"
AGENT = "---\nname: {}\ndescription: Does it well\n---\nDo it.\n"
# What people have in their `.claude`, and what they meant to have.
THERE = {
    "commands/plain.md": "no frontmatter",
    "commands/sub/nested.md": FRONT,
    "commands/a/b/c.md": FRONT,
    "commands/Bad Name.md": "x",
    "commands/broken.md": "---\nx: [1\n---\nx",
    "commands/open.md": "---\ndescription: x\n",
    "commands/empty.md": "",
    "commands/upper.MD": "x",
    "commands/text.txt": "x",
    "commands/shadow.md": FRONT,
    "commands/dull.md": FRONT,
    "commands/folder/SKILL.md": FRONT,
    "commands/folder/other.md": FRONT,
    "skills/good/SKILL.md": FRONT,
    "skills/shadow/SKILL.md": FRONT,
    "skills/dull/SKILL.md": "no frontmatter",
    "skills/numbered/SKILL.md": "---\ndescription: 12\n---\nx",
    "skills/listed/SKILL.md": "---\ndescription: [a]\n---\nx",
    "skills/blank/SKILL.md": '---\ndescription: ""\n---\nx',
    "skills/often/SKILL.md": "---\nwhen_to_use: Often\n---\nx",
    "skills/guessed/SKILL.md": "---\ndescription: [1\n---\nx",
    "skills/coloned/SKILL.md": "---\ndescription: Use this: when\n---\nx",
    "skills/only-typed/SKILL.md": FRONT.replace(
        "---\nDo", "disable-model-invocation: true\n---\nDo"
    ),
    "skills/out/in/SKILL.md": FRONT,
    "skills/lower/skill.md": FRONT,
    "skills/flat.md": FRONT,
    "agents/file.md": AGENT.format("shown"),
    "agents/spaced.md": AGENT.format('"two words"'),
    "agents/sub/deep.md": AGENT.format("deep"),
    "agents/first.md": AGENT.format("double"),
    "agents/second.md": AGENT.format("double"),
    "agents/number.md": AGENT.format("12"),
    "agents/yes.md": AGENT.format("yes"),
    "agents/truth.md": AGENT.format("true"),
    "agents/nameless.md": FRONT,
    "agents/bare.md": "---\nname: bare\n---\nx",
    "agents/blank.md": '---\nname: blank\ndescription: ""\n---\nx',
    "agents/numbered.md": "---\nname: numbered\ndescription: 5\n---\nx",
    "agents/listed.md": "---\nname: listed\ndescription: [a]\n---\nx",
    "agents/guessed.md": "---\nname: guessed\ndescription: Use this: when\n---\nx",
    "agents/tabbed.md": "---\n\tname: tabbed\n\tdescription: abc\n---\nx",
    "agents/quoted.md": '---\nname: quoted\ndescription: "abc\n---\nx',
    "agents/late.md": "\n" + AGENT.format("late"),
    "agents/open.md": "---\nname: open\ndescription: abc\n",
    "agents/windows.md": AGENT.format("windows").replace("\n", "\r\n"),
    "agents/upper.MD": AGENT.format("upper"),
    "agents/readme.md": "# Agents",
}


def test_effective_is_what_claude_does(claude: Rdev) -> None:
    """Whatever is there, rdev says of each what the real claude then makes of it."""
    folder = claude.home / "workspaces" / "demo" / ".claude"
    for path, content in THERE.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content, newline="")
    with claude.client() as client:
        items = client.get(f"{BASE}/effective").json()["items"]
    init = init_event(claude, "hello")
    shutil.rmtree(folder)
    kinds = {"commands": "slash_commands", "skills": "skills", "agents": "agents"}
    said = {kind: {i["shown"] for i in items if i["kind"] == kind} for kind in kinds}
    wrong = [
        (item["path"], item["effective"])
        for item in items
        for has in [set(init[kinds[item["kind"]]])]
        for name in [item["shown"] or Path(item["path"]).stem]
        # A name that another definition has loaded says nothing about this one.
        if item["effective"]["loaded"] or name not in said[item["kind"]] | said["skills"]
        if item["effective"]["loaded"] is not (name in has)
    ]
    assert wrong == []
    assert {f"{i['kind']}/{i['name']}" for i in items if i["effective"]["loaded"]} >= {
        "commands/sub:nested", "skills/guessed", "agents/second", "agents/tabbed",
    }  # fmt: skip
    assert len(items) == len(THERE)


def remove(client: httpx.Client, kind: str, name: str) -> None:
    tag = client.get(f"{BASE}/{kind}/{name}").headers["etag"]
    gone = client.delete(f"{BASE}/{kind}/{name}", headers={"if-match": tag})
    assert gone.status_code == 204


def test_what_was_written_is_what_claude_has(claude: Rdev, model: MessagesApi) -> None:
    """Created, and claude lists it; changed, and the model gets the new text; removed, and gone."""
    deploy = "---\ndescription: Deploy it\n---\nDEPLOY $ARGUMENTS now.\n"
    skill = "---\nname: reading\ndescription: Reads with care\n---\nRead.\n"
    agent = "---\nname: reviewer\ndescription: Reviews what changed\n---\nReview.\n"
    with claude.client() as client:
        create(client, "commands", "ops:deploy", deploy)
        made = create(client, "skills", "reading", skill, files={"notes/a.txt": "a"})
        assert made["effective"] == {"loaded": True, "reason": None}
        create(client, "agents", "reviewer", agent)
        init = init_event(claude, "/ops:deploy staging")
        assert "DEPLOY staging now." in str(model.requests)
        assert "ops:deploy" in init["slash_commands"]
        assert ("reading" in init["skills"], "reviewer" in init["agents"]) == (True, True)

        path = f"{BASE}/commands/ops:deploy"
        tag = client.get(path).headers["etag"]
        changed = {"content": deploy.replace("DEPLOY", "ROLL OUT")}
        answer = client.put(path, json=changed, headers={"if-match": tag})
        assert answer.status_code == 200, answer.text
        stale = client.delete(path, headers={"if-match": tag})
        assert (stale.status_code, stale.json()["code"]) == (412, "precondition_failed")
        for kind, name in (("skills", "reading"), ("agents", "reviewer")):
            remove(client, kind, name)
        init = init_event(claude, "/ops:deploy staging")
        assert "ROLL OUT staging now." in str(model.requests)
        assert ("reading" in init["skills"], "reviewer" in init["agents"]) == (False, False)
        remove(client, "commands", "ops:deploy")
        entries = client.get("/v1/audit", params={"project": "demo", "limit": 200}).json()["items"]
    actions = Counter(e["action"].removeprefix("claude_config.") for e in entries)
    expected = {"begun": 7, "created": 3, "updated": 1, "deleted": 3}
    assert {name: actions[name] for name in expected} == expected


def test_the_command_line_does_the_same(
    claude: Rdev,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A skill's folder goes there, comes back the same, and is removed."""
    skill, back = tmp_path / "skill", tmp_path / "back"
    (skill / "bin").mkdir(parents=True)
    (skill / "SKILL.md").write_text("---\nname: cli\ndescription: Reads with care\n---\nRead.\n")
    (skill / "bin" / "run").write_bytes(b"#!/bin/sh\n\xff\0")
    (skill / "bin" / "run").chmod(0o755)
    for name, value in (("URL", claude.url), ("API_KEY", claude.key), ("PROJECT", "demo")):
        monkeypatch.setenv(f"RDEV_{name}", value)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def rdev(*arguments: str) -> str:
        assert main(["config", *arguments]) == 0
        return capfd.readouterr().out

    assert rdev("put", "skills", "cli", str(skill)) == "skills/cli created\n"
    assert "cli" in rdev("ls", "skills")
    rdev("get", "skills", "cli", "--to", str(back))
    for path in ("SKILL.md", "bin/run"):
        assert (back / path).read_bytes() == (skill / path).read_bytes()
        assert (back / path).stat().st_mode == (skill / path).stat().st_mode
    assert rdev("rm", "skills", "cli") == "skills/cli removed\n"
    assert rdev("effective", "-o", "json") == '{\n  "items": []\n}\n'
