"""What a refusal means to the person."""

from __future__ import annotations

import json

import pytest

from rdev import exit_codes, problems


def body(code: str, **fields: object) -> bytes:
    return json.dumps({"code": code, "title": "T", "detail": "why", **fields}).encode()


@pytest.mark.parametrize(
    ("status", "code", "starting", "exit_code"),
    [
        (401, "unauthorized", True, exit_codes.NOT_ALLOWED),
        (403, "forbidden", False, exit_codes.NOT_ALLOWED),
        (404, "not_found", False, exit_codes.USAGE),
        (404, "not_found", True, exit_codes.REFUSED),
        (409, "session_busy", True, exit_codes.REFUSED),
        (422, "invalid_field", True, exit_codes.REFUSED),
        (422, "invalid_field", False, exit_codes.USAGE),
        (429, "concurrency_limited", True, exit_codes.REFUSED),
        (500, "internal", True, exit_codes.SERVER_FAULT),
        (503, "not_ready", True, exit_codes.UNREACHABLE),
        (302, "moved", False, exit_codes.SERVER_FAULT),
    ],
)
def test_maps_refusals(status: int, code: str, starting: bool, exit_code: int) -> None:
    """Each kind of refusal ends with its own exit code."""
    assert problems.of_response(status, body(code), starting=starting).exit_code == exit_code


def test_says_which_field_is_wrong() -> None:
    """The person reads the field, not only that one is wrong."""
    errors = [{"field": "scopes[0]", "code": "unknown_scope", "message": "no such scope"}]
    error = problems.of_response(422, body("invalid_field", errors=errors), starting=False)
    assert str(error) == "scopes[0]: no such scope"


def test_names_the_request_at_a_server_fault() -> None:
    """What an operator needs to find the fault in the logs."""
    error = problems.of_response(500, body("internal", request_id="req_1"), starting=False)
    assert "req_1" in str(error)


@pytest.mark.parametrize("text", [b"", b"<html>", b"[]", b"{}", b"\xff"])
def test_reports_an_answer_that_is_no_problem(text: bytes) -> None:
    """A proxy's page is not shown, but its status is."""
    assert "HTTP 404" in str(problems.of_response(404, text, starting=False))


def test_cannot_steer_the_terminal() -> None:
    """Escape sequences in a message are left out."""
    error = problems.of_response(404, body("not_found", detail="a\x1b[2Jb"), starting=False)
    assert "\x1b" not in str(error)


@pytest.mark.parametrize(
    ("status", "code", "repeated"),
    [
        (409, "idempotency_in_flight", True),
        (409, "session_busy", False),
        (429, "rate_limited", True),
        (429, "concurrency_limited", False),
        (503, "shutting_down", True),
        (502, "", True),
        (500, "internal", False),
        (404, "not_found", False),
    ],
)
def test_repeats_only_what_time_may_mend(status: int, code: str, repeated: bool) -> None:
    """Overload and hand-over pass; a refusal does not."""
    assert problems.may_be_repeated(status, body(code)) is repeated


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("3", 3.0), (" 7 ", 7.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-1", None)],
)
def test_reads_retry_after(header: str | None, seconds: float | None) -> None:
    """Seconds are honoured; anything else is as if it were not there."""
    assert problems.retry_after_s(header) == seconds
