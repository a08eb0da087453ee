"""Rows 41 and 42 for the names of definitions, and what else a body can try.

Rows 43 and 44, links and races, are tried on real files: tests/integration/test_claude_files.py.
"""

from __future__ import annotations

import itertools
import json
from typing import Any
from urllib.parse import quote

import pytest

from common.domain.audit import AuditFilter
from common.domain.claude_config import Found, Kind
from common.domain.workspace import Place
from tests.security.conftest import House
from tests.unit.conftest import Client

BASE = "/v1/claude-config/demo"
DEMO = Place("demo", "/w/demo")
CANARY = "c4n4ry-c0nf1g"
SKILL = "---\nname: x\ndescription: Reads with care\n---\nRead.\n"


def put(client: Client, kind: str, **body: Any) -> Any:
    return client.post(f"{BASE}/{kind}", content=json.dumps(body).encode())


def refused(answer: Any, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


@pytest.fixture
def client(house: House) -> Client:
    return house.client("claude_config", house.key())


# -- row 41 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "there", "name"),
    [
        pytest.param("commands", Found("Deploy.md", "file"), "deploy", id="row-41-case"),
        pytest.param("commands", Found("ｄeploy.md", "file"), "deploy", id="row-41-wide"),
        pytest.param("commands", Found("Ops", "folder"), "ops:deploy", id="row-41-folder"),
        pytest.param("commands", Found("ops/DEPLOY.md", "file"), "ops:deploy", id="row-41-deep"),
        pytest.param("skills", Found("READING", "folder"), "reading", id="row-41-skill"),
        pytest.param("agents", Found("ﬁxer.md", "file"), "fixer", id="row-41-ligature"),
    ],
)
def test_names_that_a_file_system_may_take_for_one(
    house: House, client: Client, kind: str, there: Found, name: str
) -> None:
    """409 naming the other, and nothing is written."""
    house.files.plant(DEMO, Kind(kind), there)
    content = f"---\nname: {name}\ndescription: Reads with care\n---\nRead.\n"
    answer = put(client, kind, name=name, content=content)
    refused(answer, 409, "conflict")
    assert [f.path for f in house.files.read(DEMO).tree.found[Kind(kind)]] == [there.path]
    house.app.refusals.flush()
    assert house.app.audit.list(AuditFilter(action="claude_config.begun")) == []


@pytest.mark.row(41)
def test_files_of_one_skill_that_differ_by_case(client: Client) -> None:
    """409 for the set; normal forms cannot differ, since a path is ASCII."""
    for pair in ({"a.txt": "1", "A.txt": "2"}, {"a/b": "1", "A/c": "2"}):
        refused(put(client, "skills", name="x", content=SKILL, files=pair), 409, "conflict")
    for name in ("e\u0301", "\u00e9"):
        answer = put(client, "skills", name="x", content=SKILL, files={name: "1"})
        refused(answer, 422, "invalid_field")


# -- row 42 ----------------------------------------------------------------------------------------

NAMES = {
    "row-42-parent": "..",
    "row-42-below": "../x",
    "row-42-backslash": "..\\x",
    "row-42-absolute": "/etc/passwd",
    "row-42-home": "~",
    "row-42-encoded": "%2e%2e%2f",
    "row-42-encoded-nul": "%00",
    "row-42-long": "a" * 65,
    "row-42-device": "CON",
    "row-42-hyphen": "-x",
    "row-42-dot": ".x",
    "row-42-double-hyphen": "a--b",
    "row-42-space": "a b",
    "row-42-newline": "a\n",
    "row-42-empty": "",
    "row-42-composed": "\u00e9",
    "row-42-other-digits": "\u0663",
    "row-42-colon-alone": ":",
    "row-42-colon-parent": "..:x",
    "row-42-colon-deep": "a:b:c:d:e",
}


@pytest.mark.parametrize("row", NAMES)
@pytest.mark.parametrize("kind", list(Kind))
def test_a_name_is_a_slug(house: House, client: Client, kind: str, row: str) -> None:
    """422 for writing, checking, reading, changing and removing; nobody asks the workspace."""
    house.files.fail("read", AssertionError("the workspace was asked"))
    name = NAMES[row]
    refused(put(client, kind, name=name, content=SKILL), 422, "invalid_field")
    checked = put(client, f"{kind}:validate", name=name, content=SKILL).json()
    assert "invalid_name" in [issue["code"] for issue in checked["issues"]]
    if name in ("", "..") or "/" in name or "\n" in name:
        return  # as an address it is another one, or none
    path, match = f"{BASE}/{kind}/{quote(name, safe='')}", {"if-match": "*"}
    refused(client.get(path), 422, "invalid_field")
    body = json.dumps({"content": SKILL}).encode()
    refused(client.request("PUT", path, content=body, headers=match), 422, "invalid_field")
    refused(client.request("DELETE", path, headers=match), 422, "invalid_field")


@pytest.mark.parametrize(
    "name", ["ab", "a" * 51], ids=["row-42-agent-short", "row-42-agent-long"]
)  # fmt: skip
def test_an_agents_name_has_3_to_50(client: Client, name: str) -> None:
    """As claude's own generator has it."""
    refused(put(client, "agents", name=name, content=SKILL), 422, "invalid_field")


PATHS = {
    "row-42-file-parent": "../x",
    "row-42-file-inner-parent": "a/../../x",
    "row-42-file-absolute": "/etc/passwd",
    "row-42-file-hidden": ".git/config",
    "row-42-file-hyphen": "-rf",
    "row-42-file-device": "nul.txt",
    "row-42-file-empty-part": "a//b",
    "row-42-file-trailing": "a/",
    "row-42-file-nul": "a%00",
    "row-42-file-newline": "a\nb",
    "row-42-file-backslash": "a\\b",
    "row-42-file-long": "a" * 201,
    "row-42-file-deep": "a/b/c/d/e/f",
    "row-42-file-main": "skill.md",
}


@pytest.mark.parametrize("row", PATHS)
def test_a_file_of_a_skill_stays_in_it(client: Client, row: str) -> None:
    """422 for whatever could be another place, or is nobody's idea of a file."""
    answer = put(client, "skills", name="x", content=SKILL, files={PATHS[row]: "x"})
    refused(answer, 422, "invalid_field")


# -- bodies ----------------------------------------------------------------------------------------

DOUBLING = "".join(f"{c}: &{c} [*{b},*{b}]\n" for b, c in itertools.pairwise("abcdefghijklmnop"))
BOMBS = {
    "aliases": "a: &a [x,x]\n" + DOUBLING,
    "nesting": "a: " + "[" * 5000,
    "values": "a: [" + "1," * 4000 + "]",
    "length": "a: " + "x" * 20_000,
    "tag": "a: !!python/object/apply:os.system [id]",
    "twice": "description: a\ndescription: b",
    "integer": "a: " + "9" * 5000,
    "documents": "a: 1\n--- \nb: 2",
    "list": "- a\n- b",
    "control": "a: \x07",
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("how", ["", "?validate=lenient"])
def test_frontmatter_is_bounded(client: Client, bomb: str, how: str) -> None:
    """422 with a line, or written as text and never acted on; no bomb goes off either way."""
    content = f"---\n{BOMBS[bomb]}\n---\nbody"
    answer = client.post(
        f"{BASE}/skills{how}", content=json.dumps({"name": "x", "content": content}).encode()
    )
    if how:
        assert answer.status_code == 201, answer.text
        assert [i for i in answer.json()["issues"] if i["level"] == "error"]
        assert client.get(f"{BASE}/skills").status_code == 200
    else:
        refused(answer, 422, "invalid_field")
        assert any("line" in error for error in answer.json()["errors"])


def test_row_69_content_is_nowhere_else(house: House, client: Client) -> None:
    """Neither what was written nor what was refused is in the audit trail or an error."""
    content = f"---\nname: x\ndescription: {CANARY} with care\nsecret-{CANARY}: 1\n---\n{CANARY}"
    made = put(client, "skills", name="x", content=content, files={"a": CANARY})
    assert made.status_code == 201
    other = put(client, "skills", name="x", content=content + "x")
    assert other.status_code == 409
    broken = put(client, "skills", name="y", content=f"---\ndescription: [{CANARY}\n---\n")
    assert broken.status_code == 422
    house.app.refusals.flush()
    for text in (other.text, broken.text, repr(house.state.audit)):
        assert CANARY not in text
