"""The attack table's rows, and proof that each is tried by a test that carries its number.

The rows are those of design/security.md that rdev meets today. Rows 10 and 11 wait for the console,
64 to 68 come with Kubernetes and its manifests: a test may carry one of their numbers before it is
listed here.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ROWS = {
    1: "no key",
    2: "a malformed or oversized key",
    3: "a revoked or expired key",
    4: "a key in the query string",
    5: "two Authorization headers",
    6: "a known prefix with a wrong secret",
    7: "a dump of the database holds no usable key",
    8: "a key is shown once",
    9: "a key makes no wider one",
    12: "another project's id",
    13: "every route and every scope",
    14: "mass assignment",
    15: "list filters do not widen",
    16: "Last-Event-ID of another project",
    17: "an Idempotency-Key belongs to a key",
    18: "a batch with one foreign item",
    19: "X-Forwarded-For forged at its left",
    20: "two X-Forwarded-For lines",
    21: "addresses that are none, ports, zones, mapped",
    22: "other forwarding headers",
    23: "a chain of trusted proxies alone",
    24: "allowed_ips with IPv6",
    25: "a burst",
    26: "the limit over many processes",
    27: "a body beyond the limit",
    28: "an address of 64 KiB",
    29: "100,000 levels of JSON",
    30: "an integer of 5,000 digits",
    31: "NaN and Infinity",
    32: "a JSON key twice",
    33: "a slow head or body",
    34: "too many streams of a key",
    35: "a compressed body",
    36: "patterns that backtrack",
    37: "lone surrogates",
    38: "NUL",
    39: "line breaks in names",
    40: "invisible characters in names",
    41: "config names that differ by case or normal form",
    42: "names that are paths",
    43: "a symbolic link planted below .claude",
    44: "a symbolic link as parent, and a race",
    45: "shell metacharacters",
    46: "a script is one argument",
    47: "variables that run other code",
    48: "cwd outside the workspace",
    49: "a prompt that looks like an option",
    50: "options of claude",
    51: "git runs programs",
    52: "git writes and reads files",
    53: "abbreviated and bundled options of git",
    54: "addresses for git",
    55: "webhooks to the inside, by every notation",
    56: "a name that is rebound",
    57: "a redirect to the inside",
    58: "schemes, users and ports",
    59: "an endless answer",
    60: "signatures, and secrets that are replaced",
    61: "line breaks in headers of webhooks",
    62: "events from strangers",
    63: "a spoofed completion",
    69: "canary secrets",
    70: "redaction",
    71: "the shapes of secrets in what was logged",
    72: "a 500 tells nothing",
    73: "the audit trail is append-only and sealed",
    74: "methods of nobody, and no Server header",
}
# Rows of the files in `.claude`, whose function may not be in this tree yet.
OF_CLAUDE_CONFIG = {41, 43, 44}
_NUMBER = re.compile(r"\brow[-_](\d{1,2})(?![0-9])")


def numbers_in(test: ast.FunctionDef, module: ast.Module) -> Iterator[int]:
    """The rows a test carries: in its name, its parameters' ids, or `@pytest.mark.row`."""
    yield from map(int, _NUMBER.findall(test.name.replace("test_", " ")))
    for decorator in test.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.row":
            yield from (ast.literal_eval(argument) for argument in decorator.args)
        yield from _ids_in(decorator, module)


def _ids_in(decorator: ast.expr, module: ast.Module) -> Iterator[int]:
    """Also where the parameters are a constant of the module."""
    named = {node.id for node in ast.walk(decorator) if isinstance(node, ast.Name)}
    constants = [
        node.value
        for node in module.body
        if isinstance(node, ast.Assign)
        and {t.id for t in node.targets if isinstance(t, ast.Name)} & named
    ]
    for node in (decorator, *constants):
        for text in ast.walk(node):
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                yield from map(int, _NUMBER.findall(text.value))


@pytest.fixture(scope="module")
def tried() -> dict[int, set[str]]:
    """Tests by the rows they carry."""
    found: dict[int, set[str]] = defaultdict(set)
    for path in sorted(TESTS.rglob("test_*.py")):
        module = ast.parse(path.read_bytes())
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for number in numbers_in(node, module):
                    found[number].add(f"{path.relative_to(TESTS)}::{node.name}")
    return found


def expected() -> set[int]:
    """Every row, without those of a function that is not here."""
    there = (TESTS.parent / "functions" / "claude_config" / "main.py").is_file()
    return set(ROWS) - (set() if there else OF_CLAUDE_CONFIG)


def test_the_list_is_the_tables() -> None:
    """1 to 9, 12 to 63 and 69 to 74, none forgotten."""
    assert set(ROWS) == {*range(1, 10), *range(12, 64), *range(69, 75)}


def test_every_row_is_tried(tried: dict[int, set[str]]) -> None:
    """A row without a test is named here."""
    assert {row: ROWS[row] for row in sorted(expected() - set(tried))} == {}


def test_no_test_carries_a_number_that_is_no_row(tried: dict[int, set[str]]) -> None:
    """A slip of the pen would leave another row without its test."""
    assert {row: tests for row, tests in tried.items() if not 1 <= row <= 74} == {}
