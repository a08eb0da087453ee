"""The named queries of `sql/*.sql`, read once per process.

A query begins with `-- name: claim` and a line that says what it does; the next begins after it.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Final

_NAME: Final = re.compile(r"^-- name: (\w+)\n-- (.+)$", re.MULTILINE)


@cache
def statements() -> dict[str, str]:
    """Every query by name. Raises ValueError when a name is used twice."""
    found: dict[str, str] = {}
    for file in sorted(
        resources.files(__package__).joinpath("sql").iterdir(), key=lambda f: f.name
    ):
        for name, text in parse(file.read_text(encoding="utf-8")):
            if name in found:
                raise ValueError(f"{file.name}: the query {name} exists twice")
            found[name] = text
    return found


def parse(text: str) -> list[tuple[str, str]]:
    """The (name, SQL) pairs in one file."""
    heads = list(_NAME.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    return [
        (head.group(1), text[head.end() : end].strip().removesuffix(";"))
        for head, end in zip(heads, ends, strict=True)
    ]
