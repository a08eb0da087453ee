"""Links in our Markdown: each relative one must lead to a file, and its fragment to a heading.

`python -m tests.architecture.links` lists the broken ones; `make check` runs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

ROOT: Final = Path(__file__).resolve().parents[2]
_NOT_OURS: Final = frozenset({".venv", ".uv", ".git", ".rdev", "node_modules", "fixtures"})
_CODE: Final = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
_LINK: Final = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
_HEADING: Final = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


def pages(root: Path = ROOT) -> list[Path]:
    """Every Markdown file of ours."""
    found = sorted(root.rglob("*.md"))
    return [path for path in found if not _NOT_OURS & set(path.relative_to(root).parts)]


def broken(page: Path, root: Path = ROOT) -> Iterator[str]:
    """What is wrong with a page's links, one line each."""
    text = _CODE.sub("", page.read_text("utf-8"))
    for match in _LINK.finditer(text):
        link = match[1] or match[2]
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        if not target.exists():
            yield f"{page.relative_to(root)}: {link} leads nowhere"
        elif parts.fragment and target.suffix == ".md" and parts.fragment not in _anchors(target):
            yield f"{page.relative_to(root)}: {link} has no such heading"


def _anchors(page: Path) -> set[str]:
    """Anchors as GitHub makes them from headings."""
    text = _CODE.sub("", page.read_text("utf-8"))
    plain = (re.sub(r"[`*_]|\[|\]\([^)]*\)", "", h).lower() for h in _HEADING.findall(text))
    return {re.sub(r"[^\w\- ]", "", h).replace(" ", "-") for h in plain}


def main() -> int:
    """Print what is broken; answers 1 when something is."""
    wrong = [line for page in pages() for line in broken(page)]
    print("\n".join(wrong) or f"links of {len(pages())} pages lead somewhere")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
