"""common/entrypoints/problem.py: the one table from errors to HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest

from common.domain import errors
from common.domain.errors import FieldError, InvalidField, RateLimited, RdevError, Unavailable
from common.entrypoints.problem import STATUSES, problem, status_of


def every_error(base: type[RdevError] = RdevError) -> list[type[RdevError]]:
    return [base, *(e for child in base.__subclasses__() for e in every_error(child))]


OURS = [e for e in every_error() if e.__module__ == errors.__name__]


def make(kind: type[RdevError]) -> RdevError:
    if kind is InvalidField:
        return InvalidField.one("scopes[0]", "unknown_scope", "there is no such scope")
    if kind is RateLimited:
        return RateLimited("slow down", limit=100, window_s=60, retry_after=7)
    return kind("a sentence")


def test_the_table_has_every_error_of_the_tree() -> None:
    """And nothing else."""
    assert set(STATUSES) == set(OURS)


@pytest.mark.parametrize("kind", OURS)
def test_every_error_is_a_problem_document(kind: type[RdevError]) -> None:
    """RFC 9457 with code and request id, as api.md shows it."""
    error = make(kind)
    answer = problem(error, "req_1")
    body: dict[str, Any] = json.loads(bytes(answer.body))
    status, title = STATUSES[kind]
    assert answer.status_code == body["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-request-id"] == body["request_id"] == "req_1"
    assert (body["title"], body["code"], body["detail"]) == (title, error.code, error.detail)
    assert body["type"] == f"https://rdev.orchard9.ai/problems/{error.code.replace('_', '-')}"
    assert ("errors" in body) == (kind is InvalidField)
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert ("retry-after" in answer.headers) == (status in {429, 503})


def test_wrong_fields_are_listed() -> None:
    """Each with field, code and message."""
    both = InvalidField([FieldError("a", "b", "c"), FieldError("d", "e", "f")])
    assert json.loads(bytes(problem(both, "r").body))["errors"] == [
        {"field": "a", "code": "b", "message": "c"},
        {"field": "d", "code": "e", "message": "f"},
    ]


def test_a_code_of_its_own_shows_in_type_and_body() -> None:
    """`session_busy` is a conflict."""
    body = json.loads(bytes(problem(errors.Conflict("x", code="session_busy"), "r").body))
    assert (body["status"], body["code"]) == (409, "session_busy")
    assert body["type"].endswith("/session-busy")


def test_an_error_made_elsewhere_has_the_status_of_its_base() -> None:
    """Adapters may refine errors without a row here."""

    class Conflicted(Unavailable):
        pass

    assert status_of(Conflicted("x"))[0] == 503


def test_text_that_is_no_unicode_can_be_told() -> None:
    """A detail may quote what was wrong, lone surrogates too."""
    assert problem(errors.NotFound("\ud800"), "r").body.isascii()  # type: ignore[union-attr]
