"""`python -m infra.generate`: writes what follows from the functions' declarations.

`--check` writes nothing and fails, with the files' names, when one is not what it should be.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from infra.generation import (
    capacity,
    command_line,
    declared,
    events,
    manifests,
    openapi,
    settings,
    tables,
)

# Folders where every file is generated, so one without a declaration is left over.
_WHOLE: Final = (
    "infra/base/functions",
    "infra/base/triggers",
    "infra/base/sources",
)


def generated() -> dict[PurePosixPath, str]:
    """Every generated file's text by its path. Raises DeclarationError."""
    functions = declared.functions()
    complaint = capacity.complaint(functions, declared.ROOT)
    if complaint is not None:
        raise declared.DeclarationError(complaint)
    return {
        **manifests.files(functions),
        **openapi.files(functions),
        **settings.files(),
        **tables.files(functions, declared.ROOT),
        **command_line.files(),
        **events.files(),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check; answers the exit code."""
    parser = argparse.ArgumentParser(description="Generate YAML, OpenAPI and docs tables.")
    parser.add_argument("--check", action="store_true", help="fail when a file is out of date")
    check = parser.parse_args(argv).check
    try:
        texts = generated()
    except declared.DeclarationError as error:
        print(f"infra.generate: {error}", file=sys.stderr)
        return 1
    outdated = drift(texts, declared.ROOT)
    if not check:
        write(outdated, texts, declared.ROOT)
    for path in outdated:
        print(f"{'out of date' if check else 'written'}: {path}")
    if check and outdated:
        print("run `make generate` and commit what it writes", file=sys.stderr)
    return 1 if check and outdated else 0


def drift(texts: Mapping[PurePosixPath, str], root: Path) -> list[PurePosixPath]:
    """Files that differ from what the declarations say, are missing, or are left over."""
    changed = [path for path, text in texts.items() if _read(root / path) != text]
    present = (
        PurePosixPath(path.relative_to(root).as_posix())
        for folder in _WHOLE
        for path in sorted((root / folder).glob("*"))
    )
    return sorted(changed) + [path for path in present if path not in texts]


def _read(path: Path) -> str | None:
    return path.read_text("utf-8") if path.is_file() else None


def write(paths: list[PurePosixPath], texts: Mapping[PurePosixPath, str], root: Path) -> None:
    for path in paths:
        if path not in texts:
            (root / path).unlink()
            continue
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(texts[path], "utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
