"""Row 71: nothing in the repository looks like a secret that somebody could use."""

from __future__ import annotations

import pytest

from common.domain import keys
from tests.security import scan
from tests.security.scan import found_in


@pytest.mark.row(71)
def test_no_file_of_the_repository_holds_a_secret() -> None:
    """Every file that git tracks, whatever it is."""
    assert scan.leaks() == {}


def test_the_scan_sees_what_it_looks_for() -> None:
    """A key of ours and one of each kind nearby, which are put together only here."""
    kinds = [
        b"sk-ant-" + b"api03-" + b"a" * 90,
        b"gh" + b"p_" + b"a" * 36,
        b"AK" + b"IA" + b"A" * 16,
        b"-----BEGIN " + b"PRIVATE KEY-----",
        keys.new_key().encode(),
    ]
    assert all(found_in(b"x = '" + kind + b"'") for kind in kinds)
