"""rdev/diagnosis/claude_login.py: where claude's credentials come from, without a request."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rdev.diagnosis import claude_login

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OVER, LATER = (NOW.timestamp() - 60) * 1000, (NOW.timestamp() + 60) * 1000


def found(folder: Path, files: dict[str, Any], **environ: str) -> list[str]:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    there, looked = claude_login.sources({"HOME": str(folder), **environ}, NOW)
    assert bool(there) or len(looked) == 4
    assert "c4n4ry" not in str((there, looked))
    return [text.replace(f"{folder}/", "") for text in there]


@pytest.mark.parametrize(
    "name", ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"]
)
def test_a_variable_is_named_and_not_shown(tmp_path: Path, name: str) -> None:
    """An empty one is none."""
    assert found(tmp_path, {}, **{name: "c4n4ry"}) == [name]
    assert found(tmp_path, {}, **{name: ""}) == []


def login(expires: float, refresh: str = "") -> dict[str, Any]:
    tokens = {"accessToken": "c4n4ry", "refreshToken": refresh, "expiresAt": expires}
    return {".claude/.credentials.json": {"claudeAiOauth": tokens}}


def test_a_login_counts_while_it_can_be_used(tmp_path: Path) -> None:
    """Over and renewable is a login; over and not renewable is none."""
    place = ".claude/.credentials.json (a login of claude.ai"
    assert found(tmp_path, login(LATER)) == [f"{place})"]
    assert found(tmp_path, login(OVER, "c4n4ry")) == [f"{place}, renewed at its next use)"]
    assert found(tmp_path, login(OVER)) == []


def test_what_the_configuration_holds(tmp_path: Path) -> None:
    """A program that gives a key, and a key that was stored at a login."""
    assert found(tmp_path, {".claude/settings.json": {"apiKeyHelper": "./c4n4ry"}}) == [
        ".claude/settings.json (apiKeyHelper)"
    ]
    (tmp_path / ".claude/settings.json").unlink()
    assert found(tmp_path, {".claude.json": {"primaryApiKey": "c4n4ry"}}) == [
        ".claude.json (an API key)"
    ]


def test_another_configuration_folder(tmp_path: Path) -> None:
    """CLAUDE_CONFIG_DIR moves all of it."""
    tokens = {"claudeAiOauth": {"accessToken": "c4n4ry"}}
    there = found(
        tmp_path,
        {"x/.credentials.json": tokens, "x/.claude.json": {"primaryApiKey": "c4n4ry"}},
        CLAUDE_CONFIG_DIR=str(tmp_path / "x"),
    )
    assert [text.split(" ")[0] for text in there] == ["x/.credentials.json", "x/.claude.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", '"x"', '{"claudeAiOauth":5}'])
def test_files_that_say_nothing_are_no_login(tmp_path: Path, content: str) -> None:
    """Whatever is in them."""
    files = {".claude/.credentials.json": content, ".claude/settings.json": content}
    assert found(tmp_path, files) == []
