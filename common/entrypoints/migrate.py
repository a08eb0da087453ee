"""`python -m common.entrypoints.migrate`: bring the database up to date, safe to run twice at once.

`--admin-key-file PATH` also makes sure that the key in that file is valid, with every scope and no
limits; the file is made, readable by its owner only, when it is not there.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from pathlib import Path

from common.bootstrap import app
from common.domain import keys
from common.domain.errors import RdevError, Unavailable


def main() -> int:
    """Migrate; answers the exit code."""
    parser = argparse.ArgumentParser(description="Bring the database up to date.")
    parser.add_argument("--admin-key-file", type=Path, help="make the key in this file valid")
    arguments = parser.parse_args()
    context = app()
    try:
        context.migrate()
        if arguments.admin_key_file is not None:
            context.manage_keys.ensure_admin(_admin_key(arguments.admin_key_file))
    except RdevError as error:
        print(f"rdev: {error.detail}", file=sys.stderr)
        return 1
    finally:
        context.close()
    return 0


def _admin_key(path: Path) -> str:
    """The key text in `path`, made when it is not there; the same at every start.

    It gets its name only when it is whole: a text cut short would be stored as a key that no
    request can ever present.
    """
    if path.exists() and not path.read_bytes():  # somebody died before there was a key
        path.unlink()
    if not path.exists():
        half = path.with_name(f".{path.name}.{os.getpid()}")
        with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(keys.new_key() + "\n")
        with suppress(FileExistsError):  # another start was first, and its key counts
            os.link(half, path)
        half.unlink()
    text = path.read_text("utf-8", "replace").strip()
    if not keys.is_well_formed(text):
        raise Unavailable(f"{path} holds no key; remove it and a new one is made")
    return text


if __name__ == "__main__":
    raise SystemExit(main())
