"""common/domain/project.py: what may be a project's name."""

from __future__ import annotations

import pytest

from common.domain.project import NAME


@pytest.mark.parametrize("name", ["a", "demo", "my-app-2", "0", "a" * 63])
def test_a_dns_label_is_a_name(name: str) -> None:
    """Lower-case letters, digits and inner hyphens, at most 63."""
    assert NAME.fullmatch(name)


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "A", "a_b", "a.b", "..", "a/b", "a\n", "é", "a" * 64, "a b"]
)
def test_anything_that_could_leave_its_directory_is_none(name: str) -> None:
    """A name is a directory too: no dots, slashes, spaces or line ends."""
    assert not NAME.fullmatch(name)
