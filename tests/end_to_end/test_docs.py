"""What the documentation shows is run as it stands, against a running rdev."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from tests.harness.running import ROOT, Rdev

PAGES = (
    "README.md",
    "docs/quickstart.md",
    "docs/concepts/streams.md",
    "docs/guides/claude-config.md",
    "docs/guides/keys.md",
    "docs/guides/audit.md",
    "docs/guides/triggers.md",
    "docs/guides/events.md",
)
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[str]:
    """The shell blocks of a page; `make …` is what the test itself is part of."""
    found = BLOCK.findall((ROOT / page).read_text("utf-8"))
    return [block for block in found if not block.startswith("make ")]


def run(rdev: Rdev, script: str, more: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a block in the checkout, with this rdev's home and address where the page has its own."""
    script = script.replace(".rdev/", f"{rdev.home}/").replace("http://127.0.0.1:8080", rdev.url)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RDEV_")}
    environment |= {"RDEV_HOME": str(rdev.home), **more}
    return subprocess.run(
        ["sh", "-euc", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("page", "number"), [(page, n) for page in PAGES for n in range(len(blocks(page)))]
)
def test_a_shown_command_works_as_pasted(rdev: Rdev, page: str, number: int) -> None:
    """Each shell block of the first pages succeeds when it is pasted."""
    ended = rdev.submit(script="for i in 1 2 3 4 5 6 7 8 9; do echo $i; sleep 0.06; done")
    rdev.ended(ended["id"])
    more = {"API": rdev.url, "KEY": rdev.key, "ID": ended["id"]}
    result = run(rdev, blocks(page)[number], more)
    assert result.returncode == 0, result.stderr + result.stdout


def test_the_first_screen_shows_each_line(rdev: Rdev) -> None:
    """The first command of the README prints 1, 2, 3 and nothing else on stdout."""
    first = next(b for b in blocks("README.md") if "rdev run" in b)
    result = run(rdev, first, {})
    assert (result.returncode, result.stdout) == (0, "1\n2\n3\n")
