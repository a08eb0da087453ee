"""What follows from the declarations is committed as it would be generated."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from infra import generate
from infra.generation import declared

TEXTS = generate.generated()


def test_generated_files_are_up_to_date() -> None:
    """No file differs, is missing or is left over (`make generate` writes them)."""
    assert generate.drift(TEXTS, declared.ROOT) == []


@pytest.mark.parametrize("path", sorted(TEXTS), ids=str)
def test_a_generated_file_says_so_in_its_first_line(path: PurePosixPath) -> None:
    """Whoever opens it learns at once where to change it instead."""
    first = TEXTS[path].splitlines()[0]
    assert "enerated" in first
    assert "`python -m infra.generate`" in first


def test_drift_is_found(tmp_path: Path) -> None:
    """A changed file, a missing one and one without a declaration are all named."""
    folder = PurePosixPath("infra/base/functions")
    texts = {folder / "a.yaml": "a", folder / "b.yaml": "b"}
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "a.yaml").write_text("changed")
    (tmp_path / folder / "old.yaml").write_text("left over")
    assert generate.drift(texts, tmp_path) == [
        folder / "a.yaml",
        folder / "b.yaml",
        folder / "old.yaml",
    ]


def test_writing_mends_drift(tmp_path: Path) -> None:
    """After writing nothing differs, and what was left over is gone."""
    folder = PurePosixPath("infra/base/functions")
    texts = {folder / "a.yaml": "a"}
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "old.yaml").write_text("left over")
    generate.write(generate.drift(texts, tmp_path), texts, tmp_path)
    assert generate.drift(texts, tmp_path) == []
    assert not (tmp_path / folder / "old.yaml").exists()


def test_check_fails_and_names_what_drifted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--check` exits with 1, prints the file's name and writes nothing."""
    path = next(iter(TEXTS))
    monkeypatch.setattr(generate, "generated", lambda: {**TEXTS, path: "something else"})
    before = (declared.ROOT / path).read_text()
    assert generate.main(["--check"]) == 1
    assert f"out of date: {path}" in capsys.readouterr().out
    assert (declared.ROOT / path).read_text() == before
