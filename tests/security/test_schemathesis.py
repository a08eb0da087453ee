"""Every operation against what openapi.json promises of it, with requests that nobody thought of.

Bounded and always the same, so that it can run with the others; streams do not end by themselves
and are held by their own tests. What the schema cannot say (an address range, a git verb) is 422.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from tests.harness.running import ROOT, Rdev

EXAMPLES = 10  # an operation; all of them together take about as long as starting rdev
CHECKS = [not_a_server_error, status_code_conformance, response_schema_conformance]

schema = schemathesis.openapi.from_path(
    str(ROOT / "functions" / "reference" / "openapi.json")
).exclude(path_regex="^/v1/streams/")


@pytest.fixture(scope="module")
def rdev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rdev]:
    home: Path = tmp_path_factory.mktemp("home")
    running = Rdev(home).start()
    yield running
    running.stop()


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_an_operation_keeps_its_promises(rdev: Rdev, case: schemathesis.Case[Any]) -> None:
    """No 5xx, no status and no body that the document does not have."""
    headers = {"authorization": f"Bearer {rdev.key}"}
    case.call_and_validate(base_url=rdev.url, headers=headers, checks=CHECKS)
