"""Definitions on this machine's disk: a file, a skill's folder, or standard input, and back."""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final

from rdev.errors import ServerFault, WrongUsage

MAIN: Final = "SKILL.md"
MOST_BYTES: Final = 512 * 1024
"""What a skill may come to; more would only be refused after it was sent."""
MOST_FILES: Final = 64


def read_source(kind: str, source: str, stdin: BinaryIO) -> dict[str, Any]:
    """The fields `content`, and `files` from a folder, of what is to be written.

    Raises WrongUsage for what cannot be read, or is no definition.
    """
    if source == "-":
        return {"content": _text(stdin.read(MOST_BYTES + 1), "standard input")}
    path = Path(source)
    try:
        if not path.is_dir():
            return {"content": _text(_read(path), source)}
        if kind != "skills":
            raise WrongUsage(f"{source} is a folder; only a skill is one", hint="name the .md file")
        return _folder(path)
    except OSError as error:
        raise WrongUsage(f"cannot read {source}: {error.strerror}") from error


def _folder(folder: Path) -> dict[str, Any]:
    if not (folder / MAIN).is_file():
        raise WrongUsage(f"{folder} has no {MAIN}")
    files: dict[str, Any] = {}
    content, size = "", 0
    for path in _walk(folder):
        name, data = path.relative_to(folder).as_posix(), _read(path)
        size += len(data)
        if size > MOST_BYTES or len(files) >= MOST_FILES:
            raise WrongUsage(
                f"{folder}: a skill has {MOST_FILES} files, {MOST_BYTES} bytes at most"
            )
        if name == MAIN:
            content = _text(data, str(path))
        else:
            files[name] = _file(data, executable=os.access(path, os.X_OK))
    return {"content": content, "files": files}


def _walk(folder: Path) -> Iterator[Path]:
    """Plain files below, by name. Raises WrongUsage for a link: it would lead elsewhere there."""
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            raise WrongUsage(f"{path} is a symbolic link; a skill has plain files")
        if path.is_dir():
            yield from _walk(path)
        elif stat.S_ISREG(path.stat().st_mode):
            yield path


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MOST_BYTES + 1)


def _text(data: bytes, source: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise WrongUsage(f"{source} is not text (UTF-8)") from None


def _file(data: bytes, *, executable: bool) -> str | dict[str, Any]:
    """As the API wants it: a plain text is itself."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return {"b64": base64.b64encode(data).decode(), "executable": executable}
    return {"text": text, "executable": True} if executable else text


def write_folder(folder: Path, definition: dict[str, Any]) -> list[Path]:
    """Write what `get` answered into a folder that is not there or empty; the paths written.

    Raises WrongUsage, and ServerFault for paths that would lead out of the folder.
    """
    given = definition.get("files")
    files = {MAIN: definition.get("content"), **(given if isinstance(given, dict) else {})}
    for name in files:
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\\" in name:
            raise ServerFault(f"the server's answer has a file {name[:80]!r}")
    try:
        if folder.exists() and any(folder.iterdir()):
            raise WrongUsage(f"{folder} is not empty", hint="name a folder that is not there yet")
        return [_write(folder / name, value) for name, value in sorted(files.items())]
    except OSError as error:
        raise WrongUsage(f"cannot write {folder}: {error.strerror}") from error


def _write(path: Path, value: Any) -> Path:
    fields = value if isinstance(value, dict) else {"text": value or ""}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_bytes(fields))
    if fields.get("executable"):
        path.chmod(0o755)
    return path


def _bytes(fields: dict[str, Any]) -> bytes:
    if not fields.get("b64"):
        return str(fields.get("text") or "").encode()
    try:
        return base64.b64decode(fields["b64"], validate=True)
    except (ValueError, TypeError) as error:
        raise ServerFault("the server's answer has a file that is not base64") from error
