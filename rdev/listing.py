"""Lists on standard output: columns for people, JSON for programs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rdev.table import render

if TYPE_CHECKING:
    from rdev.output import Console


def print_items(
    console: Console,
    items: Sequence[Any],
    mode: str,
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    empty: str,
    style: Callable[[int, str], str] = lambda _column, text: text,
) -> None:
    """One document, one line an item, or a table of `rows`, as `mode` says.

    A table is as wide as the terminal, in a file as wide as it is. Where it would have no rows a
    person is told `empty`.
    """
    if mode == "json":
        console.json({"items": items})
    elif mode == "jsonl":
        for item in items:
            console.json(item, compact=True)
    elif not items:
        console.say(empty)
    else:
        width = shutil.get_terminal_size().columns if console.out_is_terminal else None
        for line in render(headers, list(rows), width=width, style=style):
            console.line(line)
