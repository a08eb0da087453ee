"""common/services/refusals.py: what was refused is on record, and nobody can write it full."""

from __future__ import annotations

from common.adapters.memory.audit import MemoryAuditLog
from common.adapters.memory.state import MemoryState
from common.domain.audit import AuditFilter
from common.domain.errors import Unavailable
from common.ports.audit import AuditLog
from common.ports.commands import Origin
from common.services import refusals
from common.services.refusals import Refusals
from tests.unit.fakes import KEY

ORIGIN = Origin("req_1", "192.0.2.1", "10.0.0.1")
NEVER_S = 3600.0  # tests flush themselves


def made() -> tuple[MemoryAuditLog, Refusals]:
    log = MemoryAuditLog(MemoryState())
    return log, Refusals(lambda: log, NEVER_S)


def test_403_and_409_are_entries_of_their_own() -> None:
    """With the key, both addresses and the code."""
    log, noted = made()
    noted.note(403, "ip_not_allowed", "GET /x", ORIGIN, key_id=KEY, project="demo")
    noted.note(409, "conflict", "POST /x", ORIGIN, key_id=KEY)
    noted.close()
    second, first = log.list(AuditFilter())
    assert (first.key_id, first.project, first.target) == (KEY, "demo", "GET /x")
    assert (first.client_ip, first.peer_ip) == ("192.0.2.1", "10.0.0.1")
    assert first.detail == {"status": 403, "code": "ip_not_allowed"}
    assert second.detail["status"] == 409


def test_401_and_429_are_counted_into_one_entry() -> None:
    """By key prefix, address and route; other refusals are nobody's business."""
    log, noted = made()
    for _ in range(50):
        noted.note(401, "unauthorized", "GET /x", ORIGIN, prefix="rdev_AAAAAAAA")
    noted.note(429, "rate_limited", "GET /x", ORIGIN, prefix="rdev_AAAAAAAA")
    noted.note(404, "not_found", "GET /x", ORIGIN)
    noted.flush()
    [entry] = log.list(AuditFilter())
    assert entry.action == "requests.refused"
    assert entry.detail["count"] == 51
    assert [(r["status"], r["count"]) for r in entry.detail["refused"]] == [(401, 50), (429, 1)]


def test_a_flood_is_a_bounded_number_of_entries_and_counters() -> None:
    """What is over the bounds is counted all the same."""
    log, noted = made()
    for n in range(1000):
        noted.note(403, "forbidden", "GET /x", Origin(f"r{n}", f"10.0.{n // 250}.{n % 250}"))
    noted.flush()
    entries = log.list(AuditFilter(limit=5000))
    assert len(entries) == refusals.MOST_ROWS + 1
    assert len(entries[0].detail["refused"]) <= refusals.MOST_COUNTERS + 1
    assert entries[0].detail["count"] == 1000 - refusals.MOST_ROWS


def test_a_database_that_is_away_hurts_nobody() -> None:
    """The refusal was answered; losing its entry is logged and no more."""

    def away() -> AuditLog:
        raise Unavailable("away")

    noted = Refusals(away, NEVER_S)
    noted.note(403, "forbidden", "GET /x", ORIGIN)
    noted.flush()
    noted.close()
