"""Every operation against what openapi.json promises of it, with requests that nobody thought of.

Valid and invalid ones, with every check that schemathesis has; bounded and always the same, so that
they can run with the others. Streams do not end by themselves and have tests of their own.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CHECKS
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import RejectedPositiveData

from tests.harness.running import ROOT, Rdev

EXAMPLES = 5  # an operation, beside those that cover each constraint of its schema
CONFIG = SchemathesisConfig.from_dict(
    {
        # JSON Schema's strings may hold NUL; PostgreSQL's text may not, so it is 400 everywhere.
        "generation": {"allow-x00": False, "deterministic": True},
        "checks": {
            # What is invalid and too large besides is refused before it is read.
            "negative_data_rejection": {
                "expected-statuses": [
                    400,
                    401,
                    403,
                    404,
                    405,
                    406,
                    409,
                    412,
                    413,
                    414,
                    415,
                    422,
                    428,
                    "5xx",
                ]
            },
        },
    }
)
# 422 for what a JSON Schema has no words for, by the field that is at fault.
UNSAYABLE = {
    r"args": "what may follow a verb of git is a grammar (common/domain/git_arguments.py)",
    r"(expires_at|run_at)": "the past, and what is too far ahead, depend on the clock",
    r"allowed_ips\[\d+\]": "a network has no bits set behind its prefix",
    r"env": "names that make programs run other code are a list (docs/concepts/security-model.md)",
    r"stream": "which streams a command has depends on the command",
    r"options\.json_schema": "that it is a JSON Schema of draft 7",
    r"options\.mcp_servers\..*": "a URL, a header's name, and the types of the servers",
    r"mcp_servers\..*": "likewise, in a retry",
    r"url": "which addresses are no receivers (common/domain/receivers.py)",
    r"headers": "a header's name, and those that are rdev's own",
    r"(name|content|files.*)": "what claude reads is a file with frontmatter",
}
# Operations whose bodies are languages of their own, refused as a whole by 400 or 422.
LANGUAGES = {
    "POST /v1/events": "a CloudEvent is told by its headers or by its content type",
    "POST /v1/events/github/{trigger}": "a delivery of GitHub, signed",
    "POST /v1/triggers": "filters, and templates of commands",
    "PATCH /v1/triggers/{id}": "likewise",
    "POST /v1/triggers/{id}/test": "a CloudEvent",
}

DOCUMENT = str(ROOT / "functions" / "reference" / "openapi.json")
SHORT_FORMS = "^/v1/projects/{project}/(claude|shell|git)$"  # of POST /v1/commands
# Three kinds of command make more cases than all other operations: one in four, always the same.
LARGE = "POST /v1/commands"
schema = schemathesis.openapi.from_path(DOCUMENT, config=CONFIG).exclude(
    path_regex=f"^/v1/streams/|{SHORT_FORMS}"
)
short = schemathesis.openapi.from_path(DOCUMENT, config=CONFIG).include(path_regex=SHORT_FORMS)
ONE_RUN = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def rdev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rdev]:
    """One that claims nothing: what is thought up here shall not run on this machine."""
    home: Path = tmp_path_factory.mktemp("home")
    running = Rdev(home, RDEV_RUNNER_COMMANDS="0").start()
    yield running
    with running.client() as client:  # nobody revoked the key that all of this needed
        assert client.get("/v1/keys").status_code == 200
        started = client.get("/v1/commands?state=running&state=succeeded&state=failed").json()
        assert started["items"] == []
    running.stop()


@schema.parametrize()
@ONE_RUN
def test_an_operation_keeps_its_promises(rdev: Rdev, case: schemathesis.Case[Any]) -> None:
    """What the schema allows is accepted, what it does not is refused, and nothing surprises."""
    check(rdev, case)


@short.parametrize()
@settings(ONE_RUN, phases=[Phase.generate])
def test_a_short_form_keeps_them_too(rdev: Rdev, case: schemathesis.Case[Any]) -> None:
    """Its fields are those of the long form, whose every constraint was tried above."""
    check(rdev, case)


def check(rdev: Rdev, case: schemathesis.Case[Any]) -> None:
    """Send it, and hold the answer to every check there is."""
    if case.operation.label == LARGE and zlib.crc32(repr((case.body, case.headers)).encode()) % 4:
        return
    headers = {"Authorization": f"Bearer {rdev.key}"}
    sent: Any = {"base_url": rdev.url, "headers": headers}  # for checks that ask once more
    answer = case.call(**sent)
    checks: Any = CHECKS.get_all()
    try:
        case.validate_response(answer, checks, headers=headers, transport_kwargs=sent)
    except FailureGroup as group:
        left = [error for error in group.exceptions if not _unsayable(error, case, answer)]
        if left:
            raise FailureGroup(left, group.message) from None


def _unsayable(error: Exception, case: schemathesis.Case[Any], answer: Any) -> bool:
    """Whether it is refused, all of it, for reasons that the document gives in words only."""
    if not isinstance(error, RejectedPositiveData):
        return False
    if answer.status_code in (414, 428):
        return True  # a query of many values, each of which would do; a change that wants If-Match
    if answer.status_code == 400 and "If-Match is an ETag in its quotes" in answer.text:
        return True  # schemathesis writes no quotes into headers, whatever their pattern
    if case.operation.label in LANGUAGES:
        return answer.status_code in (400, 422)
    if answer.status_code != 422:
        return False
    fields = [problem["field"] for problem in answer.json()["errors"]]
    return all(any(re.fullmatch(known, field) for known in UNSAYABLE) for field in fields)
