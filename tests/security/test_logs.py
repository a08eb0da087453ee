"""Row 70: what rdev writes about itself goes out without secrets, whoever put them there."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from common.domain import keys
from common.domain.redaction import MARK
from tests.harness.running import ROOT

PASSWORD, SEALING = "p@ss<w>ord", "Zm9yIHRlc3RzIG9ubHkuIGZvciB0ZXN0cyBvbmx5IQ=="
PROGRAM = """
import base64, logging, os, sys
from common.bootstrap import app
from common.services import telemetry

app().telemetry_started("a-test")
secrets = [*app().settings.secrets, sys.stdin.read()]
log = telemetry.logger("a.test")
for secret in secrets:
    log.info("plain", value=secret, listed=[{"deep": secret}])
    log.warning("encoded", value=base64.b64encode(b"x" + secret.encode()).decode())
    logging.getLogger("uvicorn.error").warning("a library says %s", secret)
    try:
        raise RuntimeError(f"cannot reach {app().settings.database_url} with {secret}")
    except RuntimeError as error:
        log.error("raised", exc_info=error)
        logging.getLogger("another").exception("raised")
"""


@pytest.mark.row(70)
def test_a_log_line_holds_no_secret() -> None:
    """In fields, messages and tracebacks, of ours and of libraries; each line is still JSON."""
    key = keys.new_key()
    environment = os.environ | {
        "RDEV_SECRET_KEYS": SEALING,
        "RDEV_DATABASE_URL": "postgresql://app:p%40ss%3Cw%3Eord@db.example/rdev",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=key, env=environment, cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    printed = done.stdout + done.stderr
    for secret in (PASSWORD, "p%40ss", SEALING, key, key[14:]):
        assert secret not in printed
    ours = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert {line["msg"] for line in ours} == {"plain", "encoded", "raised"}
    assert sum(MARK in line for line in done.stderr.splitlines()) >= len(ours)
    assert "db.example" in printed  # what a person needs to know is still there
