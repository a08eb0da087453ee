"""common/entrypoints/migrate.py: the schema, and the laptop's admin key."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from common.domain import keys
from common.domain.errors import Unavailable
from common.entrypoints import migrate
from tests.unit.conftest import Api


class World:
    def __init__(self, api: Api, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.api, self.path, self.migrated = api, path / "admin.key", 0
        self.error: Exception | None = None
        self.arguments = ["migrate", "--admin-key-file", str(self.path)]
        monkeypatch.setattr(migrate, "app", lambda: api.app)
        monkeypatch.setattr(migrate.sys, "argv", self.arguments)
        monkeypatch.setattr(api.app, "migrate", self._migrate)

    def _migrate(self) -> None:
        self.migrated += 1
        if self.error is not None:
            raise self.error


@pytest.fixture
def world(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(api, tmp_path, monkeypatch)


def test_the_admin_key_is_made_once_and_is_the_same_at_every_start(world: World) -> None:
    """Readable by its owner only, valid in the database, nothing else beside it."""
    assert migrate.main() == 0
    text = world.path.read_text().strip()
    assert keys.is_well_formed(text)
    assert stat.S_IMODE(world.path.stat().st_mode) == 0o600
    assert keys.hash_of(text) in world.api.keys.rows
    assert migrate.main() == 0
    assert world.path.read_text().strip() == text
    assert list(world.path.parent.iterdir()) == [world.path]
    assert world.migrated == 2


def test_without_the_option_there_is_no_key(world: World) -> None:
    """A cluster's keys are made by people."""
    del world.arguments[1:]
    assert migrate.main() == 0
    assert world.api.keys.rows == {}


def test_an_empty_file_is_filled(world: World) -> None:
    """Somebody died between making and writing it."""
    world.path.touch()
    assert migrate.main() == 0
    assert keys.is_well_formed(world.path.read_text().strip())


@pytest.mark.parametrize("text", [b"rdev_a1B2c3D4_cut", b"\xff", b"\n"])
def test_a_file_that_holds_no_key_is_told(
    world: World, text: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is not overwritten: it may be somebody's."""
    world.path.write_bytes(text)
    assert migrate.main() == 1
    assert str(world.path) in capsys.readouterr().err
    assert world.path.read_bytes() == text
    assert world.api.keys.rows == {}


def test_a_database_that_is_away_is_one_line_and_an_exit_code(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """For scripts."""
    world.error = Unavailable("the database does not answer")
    assert migrate.main() == 1
    assert capsys.readouterr().err == "rdev: the database does not answer\n"
