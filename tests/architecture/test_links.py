"""The documentation's links lead somewhere."""

from __future__ import annotations

from pathlib import Path

from tests.architecture import links


def test_every_link_in_our_pages_leads_somewhere() -> None:
    """A relative link names a file that is there, and a heading that is in it."""
    assert [line for page in links.pages() for line in links.broken(page)] == []


def test_a_link_to_nothing_is_found(tmp_path: Path) -> None:
    """A missing file and a missing heading are reported; code blocks and the web are not."""
    (tmp_path / "other.md").write_text("# A `b` c\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](gone.md) [b](other.md#a-b-c) [c](other.md#no) [d](https://x.example/y)\n"
        "```\n[e](also-gone.md)\n```\n"
    )
    assert list(links.broken(page, tmp_path)) == [
        "page.md: gone.md leads nowhere",
        "page.md: other.md#no has no such heading",
    ]
