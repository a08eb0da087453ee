"""Tables for people: columns as wide as they must be, the last one cut at the terminal's edge."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rdev.text import clipped

_GAP = "  "
_LEAST_LAST = 20
"""On a narrow terminal the last column wraps rather than vanishing."""


def render(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    width: int | None,
    style: Callable[[int, str], str] = lambda _column, text: text,
) -> list[str]:
    """The table as lines; ids are never cut, since they are there to be copied.

    `width` is the terminal's, None for a file, where nothing is cut. `style` colours one cell
    after it has been padded, so that colours do not disturb the columns.
    """
    widths = [max(len(row[i]) for row in (headers, *rows)) for i in range(len(headers))]
    if width is not None:
        before = sum(widths[:-1]) + len(_GAP) * (len(widths) - 1)
        widths[-1] = min(widths[-1], max(width - before, _LEAST_LAST))
    fitting = [[*row[:-1], clipped(row[-1], widths[-1])] for row in rows]
    return [_line(headers, widths), *(_line(row, widths, style) for row in fitting)]


def _line(
    cells: Sequence[str],
    widths: Sequence[int],
    style: Callable[[int, str], str] = lambda _column, text: text,
) -> str:
    padded = [cell.ljust(widths[i]) for i, cell in enumerate(cells[:-1])]
    return _GAP.join(style(i, cell) for i, cell in enumerate([*padded, cells[-1]])).rstrip()
