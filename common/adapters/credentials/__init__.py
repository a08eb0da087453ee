"""Credentials in a folder, one file per project: a mounted Secret, or a folder of the laptop's.

Read when a command starts, so a rotated Secret counts for the next command.
"""

from __future__ import annotations

from pathlib import Path

from common.domain.credentials import MAX_TEXT, BadCredential, Credential, parse
from common.domain.project import NAME


class FolderCredentials:
    """`folder` need not be there: then no project has a credential of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, project: str) -> Credential | None:
        """See `Credentials.of`."""
        if not NAME.fullmatch(project):  # it becomes a file's name
            return None
        try:
            with (self._folder / project).open("rb") as file:
                data = file.read(MAX_TEXT + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BadCredential(f"cannot be read: {error.strerror}") from None
        if len(data) > MAX_TEXT:
            raise BadCredential(f"has more than {MAX_TEXT} bytes")
        try:
            return parse(data.decode())
        except UnicodeDecodeError:
            raise BadCredential("is no UTF-8") from None
