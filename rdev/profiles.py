"""The servers a person has logged in to, in one file that only they may read.

`~/.config/rdev/profiles.json`, mode 0600, replaced as a whole so that a crash leaves either the
old or the new one. JSON, because the standard library can write it.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdev.errors import NotAllowed, WrongUsage

PRIVATE_FOLDER = 0o700


@dataclass(frozen=True, slots=True)
class Profile:
    """One server and the key for it."""

    name: str
    url: str
    api_key: str
    project: str | None = None

    def __repr__(self) -> str:
        return f"Profile(name={self.name!r}, url={self.url!r})"


@dataclass(frozen=True, slots=True)
class ProfileStore:
    """The file; it is read at every question, since another `rdev` may write it meanwhile."""

    path: Path

    def get(self, name: str | None) -> Profile | None:
        """The named profile, or the current one; None when nobody has logged in.

        Raises WrongUsage for a name that is not there or a file that is not ours, NotAllowed when
        others may read the file.
        """
        content = self._read()
        wanted = name or content.get("current")
        if wanted is None:
            return None
        found = content.get("profiles", {}).get(wanted)
        if found is None:
            raise WrongUsage(
                f"there is no profile {wanted!r} in {self.path}",
                hint="`rdev login --profile NAME --url URL` makes one",
            )
        return Profile(wanted, found["url"], found["api_key"], found.get("project"))

    def put(self, profile: Profile) -> None:
        """Add or replace `profile` and make it the current one."""
        content = self._read()
        entry = {"url": profile.url, "api_key": profile.api_key, "project": profile.project}
        profiles = {**content.get("profiles", {}), profile.name: entry}
        self._write({"current": profile.name, "profiles": profiles})

    def _read(self) -> dict[str, Any]:
        try:
            with self.path.open(encoding="utf-8") as file:
                _require_private(self.path, os.fstat(file.fileno()).st_mode)
                content = json.load(file)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except PermissionError as error:
            raise NotAllowed(f"{self.path} may not be read by this user") from error
        except ValueError as error:
            raise WrongUsage(f"{self.path} is not valid JSON: {error}") from error
        if not _is_well_formed(content):
            raise WrongUsage(f"{self.path} is not a file of `rdev login`")
        return dict(content)

    def _write(self, content: dict[str, Any]) -> None:
        self.path.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        # mkstemp creates it 0600, so the key is never readable by others, not even for a moment.
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=".profiles-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=2)
                file.write("\n")
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink()
            raise


def _require_private(path: Path, mode: int) -> None:
    if stat.S_IMODE(mode) & 0o077:
        raise NotAllowed(
            f"{path} holds keys but others may read it", hint=f"run `chmod 600 {path}`"
        )


def _is_well_formed(content: Any) -> bool:
    if not isinstance(content, dict) or not isinstance(content.get("profiles"), dict):
        return False
    return all(
        isinstance(entry, dict)
        and isinstance(entry.get("url"), str)
        and isinstance(entry.get("api_key"), str)
        for entry in content["profiles"].values()
    )
