"""What the Credentials port does: a project's own credential, or none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from common.adapters.credentials import FolderCredentials
from common.adapters.memory.credentials import MemoryCredentials
from common.domain.credentials import BadCredential
from common.ports.credentials import Credentials

Make = Callable[[dict[str, str]], Credentials]


@pytest.fixture(params=["memory", "folder"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    def in_folder(texts: dict[str, str]) -> Credentials:
        for project, text in texts.items():
            (tmp_path / project).write_text(text)
        return FolderCredentials(tmp_path)

    return MemoryCredentials if request.param == "memory" else in_folder


def test_a_project_has_its_own_or_none(make: Make) -> None:
    """Others are not asked."""
    credentials = make({"demo": "ANTHROPIC_API_KEY=sk-1\n"})
    assert credentials.of("demo") == {"ANTHROPIC_API_KEY": "sk-1"}
    assert credentials.of("other") is None


def test_one_that_cannot_be_used_is_no_none(make: Make) -> None:
    """Else claude would run with the workspace's."""
    with pytest.raises(BadCredential):
        make({"demo": "API_KEY=sk-1"}).of("demo")


def test_what_is_written_later_counts_for_the_next(tmp_path: Path) -> None:
    """A Secret that is rotated needs no restart."""
    credentials = FolderCredentials(tmp_path / "not" / "there")
    assert credentials.of("demo") is None
    credentials = FolderCredentials(tmp_path)
    (tmp_path / "demo").write_text("ANTHROPIC_API_KEY=a")
    assert credentials.of("demo") == {"ANTHROPIC_API_KEY": "a"}
    (tmp_path / "demo").write_text("ANTHROPIC_API_KEY=b")
    assert credentials.of("demo") == {"ANTHROPIC_API_KEY": "b"}


@pytest.mark.parametrize("content", [b"\xff=1", b"ANTHROPIC_X=" + b"a" * 70_000])
def test_a_file_that_is_no_credential_is_said_without_its_content(
    tmp_path: Path, content: bytes
) -> None:
    """Whatever was put there by mistake."""
    (tmp_path / "demo").write_bytes(content)
    with pytest.raises(BadCredential) as caught:
        FolderCredentials(tmp_path).of("demo")
    assert "aaa" not in str(caught.value)


def test_a_folder_in_its_place_is_said(tmp_path: Path) -> None:
    """It cannot be read, so nothing runs."""
    (tmp_path / "demo").mkdir()
    with pytest.raises(BadCredential, match="cannot be read"):
        FolderCredentials(tmp_path).of("demo")


@pytest.mark.parametrize("project", ["../demo", "/etc/passwd", "", "..", "a/b"])
def test_a_name_leads_nowhere_else(tmp_path: Path, project: str) -> None:
    """It is a file's name and no path."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "demo").write_text("ANTHROPIC_API_KEY=a")
    assert FolderCredentials(tmp_path / "folder").of(project) is None
