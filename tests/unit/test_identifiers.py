"""common/domain/identifiers.py: UUIDv7 inside, prefix and hex outside."""

from __future__ import annotations

import ast
import subprocess
import sys
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.domain import identifiers
from common.domain.errors import NotFound


def test_new_ids_are_version_7_and_sort_by_age() -> None:
    """Ids made later sort later."""
    made = [identifiers.new_id() for _ in range(200)]
    assert made == sorted(made)
    assert {i.version for i in made} == {7}


FORKS = """
import os, sys
from common.domain.identifiers import new_id

new_id()  # the generator has a state by now, as in a zygote that has made ids
for child in range(2):
    ours, theirs = os.pipe()
    if not os.fork():
        made = [new_id().int & 0xFFFFFFFF for _ in range(100)]  # random bits, no time, no counter
        os.write(theirs, repr(made).encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as answer:
        print(answer.read())
"""


def test_forked_processes_make_different_ids() -> None:
    """Two children of one process draw different random bits, whatever the clock says."""
    told = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True)
    first, second = (ast.literal_eval(line) for line in told.stdout.splitlines())
    assert len(first) == len(second) == 100
    assert first != second and first[0] != second[0]


@given(st.uuids())
def test_what_is_shown_is_read_back(value: UUID) -> None:
    """`parse` undoes `show`."""
    assert identifiers.parse("cmd", identifiers.show("cmd", value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cmd",
        "cmd_",
        "key_" + "0" * 32,
        "cmd_" + "0" * 31,
        "cmd_" + "0" * 33,
        "cmd_" + "A" * 32,
        "cmd_" + "0" * 31 + "g",
        "cmd_" + "0" * 32 + "\n",
        "cmd_" + "٠" * 32,
        "cmd_\ud800" + "0" * 31,
        "cmd_01234567-89ab-cdef-0123-456789abcdef",
        "CMD_" + "0" * 32,
        "cmd_" + "x" * 5000,
    ],
)
def test_anything_else_is_not_found(text: str) -> None:
    """A malformed id is answered like one that never was, with a short text."""
    with pytest.raises(NotFound) as caught:
        identifiers.parse("cmd", text)
    assert len(caught.value.detail) < 200
