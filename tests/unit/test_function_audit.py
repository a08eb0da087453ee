"""functions/audit: what callers see of the trail, and what refusals leave in it."""

from __future__ import annotations

import json

import pytest

from common.domain import keys
from common.domain.audit import AuditFilter
from common.domain.errors import Unavailable
from common.domain.keys import Caller, RateLimit
from common.ports.commands import Origin
from tests.unit.conftest import Api
from tests.unit.fakes import KEY

CALLER = Caller(KEY, "ci", frozenset(), None)


def filled(api: Api) -> None:
    for number, project in enumerate(["demo", "other", None]):
        api.audit_state.record(CALLER, Origin(f"req_{number}"), "x.done", f"t{number}", project)


def test_the_trail_is_listed_by_page_and_filter(api: Api) -> None:
    """Newest first; ids and cursors look as all others do."""
    filled(api)
    client = api.client("audit", api.keys.make("audit:read"))
    first = client.get("/v1/audit?limit=2").json()
    rest = client.get(f"/v1/audit?cursor={first['next_cursor']}").json()
    assert [e["target"] for e in first["items"] + rest["items"]] == ["t2", "t1", "t0"]
    assert rest["next_cursor"] is None
    assert [e["target"] for e in client.get("/v1/audit?project=other").json()["items"]] == ["t1"]
    assert client.get("/v1/audit?since=yesterday").status_code == 422


def test_a_key_for_some_projects_sees_only_their_entries(api: Api) -> None:
    """Whatever it asks for, and in the export too."""
    filled(api)
    client = api.client("audit", api.keys.make("audit:read", projects={"demo"}))
    assert [e["target"] for e in client.get("/v1/audit").json()["items"]] == ["t0"]
    assert client.get("/v1/audit?project=other").json()["items"] == []
    lines = client.get("/v1/audit/export").text.splitlines()
    assert [json.loads(line)["target"] for line in lines] == ["t0"]


def test_an_export_is_ndjson(api: Api) -> None:
    """One entry a line, all of them."""
    filled(api)
    answer = api.client("audit", api.keys.make("audit:read")).get("/v1/audit/export")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line)["target"] for line in answer.text.splitlines()] == ["t2", "t1", "t0"]


def test_a_broken_trail_names_its_entry(api: Api) -> None:
    """The chain holds until somebody changes what it sealed."""
    filled(api)
    api.audit.seal(10)
    client = api.client("audit", api.keys.make("audit:read"))
    assert client.get("/v1/audit/verify").json()["ok"] is True
    del api.audit_state.audit[1]
    verdict = client.get("/v1/audit/verify").json()
    assert (verdict["ok"], verdict["broken"]) == (
        False,
        {"id": "aud_" + "0" * 31 + "2", "reason": "missing"},
    )


def test_refusals_reach_the_trail_without_the_secret(api: Api) -> None:
    """403 with its key and both addresses, 401 and 429 in a sum; of a key only its public part."""
    weak = api.keys.make("projects:read")
    strange = keys.new_key()
    api.client("keys", weak).get("/v1/keys")
    api.client("keys", strange).get("/v1/keys")
    api.client("keys", "rdev_half-a-secret").get("/v1/keys")
    api.keys.remaining = 0
    limited = api.keys.make("keys:admin", rate_limit=RateLimit(1, 60))
    api.client("keys", limited).get("/v1/keys")
    api.app.refusals.flush()
    total, forbidden = api.audit.list(AuditFilter())
    assert (forbidden.detail["code"], forbidden.target) == ("forbidden", "GET /v1/keys")
    assert forbidden.key_id == api.keys.rows[keys.hash_of(weak)].id
    assert forbidden.peer_ip == "127.0.0.1"
    counted = {(r["prefix"], r["status"]) for r in total.detail["refused"]}
    assert counted == {
        (keys.prefix_of(strange), 401),
        ("", 401),
        (keys.prefix_of(limited), 429),
    }
    written = repr(api.audit_state.audit)
    assert not any(secret in written for secret in (weak, strange, limited, "half-a-secret"))


def test_an_export_that_cannot_be_read_is_an_error_and_no_half_answer(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first page is read before the status is sent; any moment can be asked about."""

    def away(*_: object) -> None:
        raise Unavailable("away")

    client = api.client("audit", api.keys.make("audit:read"))
    assert client.get("/v1/audit/export?since=0001-01-01T00:00:00%2B23:59").status_code == 200
    monkeypatch.setattr(api.audit, "list", away)
    assert client.get("/v1/audit/export").status_code == 503
