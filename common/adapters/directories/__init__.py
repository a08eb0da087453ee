"""ProjectSource on a laptop: `$RDEV_HOME/workspaces/<name>/`, settings in `projects.yaml`.

The file has the keys of the ConfigMap that a cluster uses, one entry per project name. A bad entry
is reported on its project and the others live on; a file that is no YAML at all is reported on
every project, and directories go on being projects.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from common.domain.discovery import Entry, settings_of
from common.domain.project import DEFAULT_MAX_CONCURRENT, NAME, FoundProject, Phase


class DirectorySource:
    """Projects of one home directory."""

    name = "directories"

    def __init__(self, home: Path) -> None:
        self._home = home

    def find(self) -> list[FoundProject]:
        entries, broken = self._read()
        directories = self._directories()
        found = [
            _project(name, entries.get(name, {}), directories.get(name), broken)
            for name in sorted(directories.keys() | entries.keys())
            if NAME.fullmatch(name)
        ]
        return [project for project in found if project is not None]

    def _directories(self) -> dict[str, Path]:
        root = self._home / "workspaces"
        if not root.is_dir():
            return {}
        return {p.name: p for p in root.iterdir() if p.is_dir() and not p.is_symlink()}

    def _read(self) -> tuple[dict[str, Any], list[str]]:
        """The entries of projects.yaml by name, and what is wrong with the file as a whole."""
        path = self._home / "projects.yaml"
        try:
            document = yaml.safe_load(path.read_text("utf-8")) if path.exists() else None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            where = getattr(error, "problem_mark", None)
            line = f" at line {where.line + 1}" if where else ""
            return {}, [f"projects.yaml cannot be read{line}: {_short(error)}"]
        if document is None:
            return {}, []
        if not isinstance(document, dict):
            return {}, ["projects.yaml must map project names to settings"]
        return {str(name): entry for name, entry in document.items()}, []


def _short(error: Exception) -> str:
    return str(getattr(error, "problem", None) or error)[:200]


def _project(
    name: str, entry: Any, directory: Path | None, broken: list[str]
) -> FoundProject | None:
    settings, issues = settings_of(Entry(entry))
    if settings.get("name") not in (None, name):
        issues.append(f"name: {settings['name']!r} differs from its key {name!r}")
    path = Path(settings["workspace"]).expanduser() if "workspace" in settings else directory
    if path is None:
        return (
            None
            if not issues
            else FoundProject(
                name, workspace="", phase=Phase.UNREACHABLE, issues=(*broken, *issues)
            )
        )
    there = path.is_dir()
    if not there:
        issues.append(f"workspace: {path} is no directory")
    allowed = settings.get("allowed_commands")
    return FoundProject(
        name=name,
        workspace=str(path.absolute()),
        phase=Phase.READY if there else Phase.UNREACHABLE,
        description=settings.get("description", ""),
        allowed_commands=tuple(allowed) if allowed is not None else None,
        max_concurrent_commands=settings.get("max_concurrent_commands", DEFAULT_MAX_CONCURRENT),
        issues=(*broken, *issues),
    )
