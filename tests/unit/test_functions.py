"""functions/*/main.py, all of them: what every route refuses, in the same way."""

from __future__ import annotations

import importlib
import json
import re
from typing import Any

import pytest

from common.domain import identifiers, scopes
from common.domain.command import State
from common.domain.keys import RateLimit
from common.entrypoints.function import Function, Route
from common.services.authorise import acceptable
from tests.unit import fakes
from tests.unit.conftest import FUNCTIONS, Api, Client

NAMES = sorted(path.parent.name for path in FUNCTIONS.glob("*/main.py"))
DECLARED: dict[str, Function] = {
    name: importlib.import_module(f"functions.{name}.main").function for name in NAMES
}
ROUTES = [
    pytest.param(name, route, id=f"{route.method} {route.path}")
    for name, function in DECLARED.items()
    for route in function.routes
]
WITH_SCOPE = [p for p in ROUTES if p.values[1].scopes]
WITH_BODY = [p for p in ROUTES if p.values[1].body is not None]
PROJECT_ROUTES = [
    p
    for p in WITH_SCOPE
    if "{" in p.values[1].path
    and p.values[0] not in {"keys", "webhooks"}  # no project's, or several: test_attacks.py
    and p.values[1].path != "/v1/streams/commands/{id}"  # the tailer decides: test_tailing.py
]


SCHEMA = "ai.orchard9.rdev.command.lost.v1.json"


def path_of(route: Route, **values: str) -> str:
    delivery = "dlv_" + "0" * 32
    plain = {"id": "cmd_" + "0" * 32, "delivery": delivery, "project": "other"}
    plain |= {"kind": "commands", "name": "deploy", "trigger": "trg_0", "tool_use_id": "t"}
    plain |= {"schema": SCHEMA}
    values = plain | values
    return route.path.format_map(values)


def body_of(route: Route, **more: Any) -> bytes:
    return json.dumps((route.body_example or {}) | more).encode()


def call(client: Client, route: Route, path: str | None = None, **more: Any) -> Any:
    if route.body is not None and "content" not in more:
        more["content"] = body_of(route)
    if route.conditional:
        more["headers"] = {"if-match": "*"} | more.get("headers", {})
    return client.request(route.method, path or path_of(route), **more)


def problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (body["status"], body["code"]) == (status, code)
    assert body["request_id"] == answer.headers["x-request-id"]
    return body


@pytest.mark.parametrize("name", NAMES)
def test_a_function_is_its_folder(name: str) -> None:
    """Declared under the folder's name, with a summary and no path twice per method."""
    function = DECLARED[name]
    assert function.name == name
    assert function.summary
    listed = [(route.method, route.path) for route in function.routes]
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize("name", NAMES)
def test_every_public_route_lies_under_its_prefixes(name: str) -> None:
    """What the gateway does not route to a function cannot be reached there."""
    function = DECLARED[name]
    prefixes = (*function.prefixes, *function.local_prefixes)
    for route in function.routes:
        public = any(route.path == p or route.path.startswith(p + "/") for p in prefixes)
        assert public == bool(prefixes)


@pytest.mark.parametrize(("name", "route"), ROUTES)
def test_routes_need_scopes_of_the_closed_list(name: str, route: Route) -> None:
    """Every route under /v1 has a scope; open ones are named here."""
    assert set(route.scopes) <= set(scopes.ALL)
    open_routes = {"/health", "/ready", "/metrics", "/openapi.json", "/docs", "/follow", "/"}
    open_routes.add("/schemas/{schema}")
    assert bool(route.scopes) != (route.path in open_routes or route.signed)


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_path_is_not_found(api: Api, name: str) -> None:
    """A problem like every other."""
    problem(api.client(name).get("/no/such/path"), 404, "not_found")


@pytest.mark.parametrize(("name", "route"), ROUTES)
@pytest.mark.parametrize("method", ["PUT", "OPTIONS"])
def test_an_unknown_method_is_told_which_there_are(
    api: Api, name: str, route: Route, method: str
) -> None:
    """405 with Allow, key or not."""
    known = {r.method for r in DECLARED[name].routes if r.path == route.path}
    if method in known:
        return  # that is no unknown one here
    answer = api.client(name).request(method, path_of(route))
    problem(answer, 405, "method_not_allowed")
    allowed = set(re.split(", ", answer.headers["allow"]))
    assert allowed >= known
    assert ("HEAD" in allowed) == (route.method == "GET" and route.kind == "plain") or (
        "GET" in allowed
    )


@pytest.mark.parametrize(("name", "route"), WITH_SCOPE)
def test_without_a_key_nothing_is_told(api: Api, name: str, route: Route) -> None:
    """401 with WWW-Authenticate, whatever is at the path."""
    answer = call(api.client(name), route)
    problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == 'Bearer realm="rdev"'


@pytest.mark.parametrize(("name", "route"), WITH_SCOPE)
def test_an_unknown_key_reads_like_a_malformed_one(api: Api, name: str, route: Route) -> None:
    """Same status, same text."""
    unknown = fakes.FakeKeys().make()
    told = [call(api.client(name, key), route).json()["detail"] for key in (unknown, "rdev_x")]
    assert told[0] == told[1]


@pytest.mark.parametrize(("name", "route"), WITH_SCOPE)
def test_every_scope_opens_exactly_its_routes(api: Api, name: str, route: Route) -> None:
    """The whole matrix: any scope that grants one of the route's is enough, no other is."""
    refusal = f"this key lacks the scope {' or '.join(acceptable(route.scopes))}"
    for scope in scopes.ALL:
        answer = call(api.client(name, api.keys.make(scope)), route)
        if any(scopes.grants(frozenset({scope}), wanted) for wanted in route.scopes):
            assert answer.status_code != 401
            assert answer.status_code != 403 or answer.json()["detail"] != refusal
        else:
            assert problem(answer, 403, "forbidden")["detail"] == refusal


@pytest.mark.parametrize(("name", "route"), WITH_SCOPE)
def test_a_key_from_another_address_is_refused(api: Api, name: str, route: Route) -> None:
    """With a code of its own."""
    key = api.keys.make(*scopes.ALL, allowed_ips=("10.0.0.0/8",))
    client = api.client(name, key, peer="203.0.113.7")
    problem(call(client, route), 403, "ip_not_allowed")


@pytest.mark.parametrize(("name", "route"), WITH_SCOPE)
def test_a_full_window_says_when_to_come_back(api: Api, name: str, route: Route) -> None:
    """429 with Retry-After and RateLimit; the same for all."""
    key = api.keys.make(*scopes.ALL, rate_limit=RateLimit(100, 60))
    api.keys.remaining = 0
    answer = call(api.client(name, key), route)
    problem(answer, 429, "rate_limited")
    assert answer.headers["retry-after"] == "31"
    assert answer.headers["ratelimit"] == '"default";r=0;t=31'
    assert answer.headers["ratelimit-policy"] == '"default";q=100;w=60'


@pytest.mark.parametrize(("name", "route"), WITH_SCOPE)
def test_a_database_that_is_away_is_503(api: Api, name: str, route: Route) -> None:
    """With Retry-After; nothing was changed."""
    api.keys.away = True
    answer = call(api.client(name, api.keys.make()), route)
    problem(answer, 503, "not_ready")
    assert answer.headers["retry-after"]


@pytest.mark.parametrize(("name", "route"), PROJECT_ROUTES)
def test_what_belongs_to_another_project_was_never_there(api: Api, name: str, route: Route) -> None:
    """404 with the same words as for what does not exist, request id aside."""
    foreign = fakes.command(state=State.RUNNING, project="other")
    api.commands.rows[foreign.id] = foreign
    client = api.client(name, api.keys.make(*scopes.ALL, projects={"demo"}))
    shown = identifiers.show(identifiers.COMMAND, foreign.id)
    theirs = call(client, route, path_of(route, id=shown, project="other"))
    nobody = call(client, route, path_of(route, project="nobody"))
    first, second = problem(theirs, 404, "not_found"), problem(nobody, 404, "not_found")
    same = first["detail"].replace(shown, "X").replace("other", "X")
    assert same == second["detail"].replace("cmd_" + "0" * 32, "X").replace("nobody", "X")
    assert api.commands.submitted == []
    assert api.commands.cancelled == []


# -- bodies --------------------------------------------------------------------------------------


def ask(api: Api, name: str, route: Route, content: bytes, **headers: str) -> Any:
    client = api.client(name, api.keys.make(*scopes.ALL))
    return call(client, route, path_of(route, project="demo"), content=content, headers=headers)


@pytest.mark.parametrize(("name", "route"), WITH_BODY)
def test_an_unknown_field_is_named(api: Api, name: str, route: Route) -> None:
    """422, and nothing is left behind."""
    body = problem(ask(api, name, route, body_of(route, lease_token=1)), 422, "invalid_field")
    assert [
        e for e in body["errors"] if (e["field"], e["code"]) == ("lease_token", "unknown_field")
    ]
    assert api.commands.submitted == []


@pytest.mark.parametrize(("name", "route"), WITH_BODY)
@pytest.mark.parametrize(
    "body",
    [b"{", b'{"a":NaN}', b'{"a":1,"a":1}', b'{"a":"\\ud800"}', b'{"a":"\\u0000"}', b"[" * 100_000,
     b'{"a":' + b"9" * 5000 + b"}", b"\xff", b"[]"],
    ids=lambda body: repr(body[:12]),
)  # fmt: skip
def test_what_is_not_our_json_is_a_bad_request(
    api: Api, name: str, route: Route, body: bytes
) -> None:
    """400, the same in every function."""
    problem(ask(api, name, route, body), 400, "invalid_request")
    assert api.commands.submitted == []


@pytest.mark.parametrize(("name", "route"), WITH_BODY)
@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
    ids=lambda h: "/".join(h.values()),
)
def test_another_media_type_is_not_supported(
    api: Api, name: str, route: Route, headers: dict[str, str]
) -> None:
    """415, a zip bomb's encoding too."""
    problem(ask(api, name, route, body_of(route), **headers), 415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("name", "route"), [p for p in ROUTES if p.values[1].method in {"POST", "PATCH"}]
)
@pytest.mark.parametrize("declared", [True, False])
def test_a_body_that_is_too_large_is_not_read(
    make_api: Any, name: str, route: Route, declared: bool
) -> None:
    """413, by its declared length or as soon as it is over it; of an event that is a record."""
    api: Api = make_api(RDEV_MAX_BODY="1000")
    client = api.client(name, api.keys.make(*scopes.ALL))
    large = b'{"a":"' + b"x" * ((route.max_body or 1000) + 1000) + b'"}'
    content = large if declared else [large[:500], large[500:]]
    answer = call(client, route, content=content)
    if DECLARED[name].salvages or DECLARED[name].dead_letter_sink:
        assert (answer.status_code, answer.content) == (202, b"")
        [letter] = api.audit_state.dead_letters.values()
        assert letter.data == b""
    else:
        problem(answer, 413, "payload_too_large")


@pytest.mark.parametrize(("name", "route"), [p for p in WITH_BODY if p.values[1].idempotent])
@pytest.mark.parametrize("header", ["", "x" * 256, "é", 'a"b'])
def test_an_idempotency_key_is_short_and_plain(
    api: Api, name: str, route: Route, header: str
) -> None:
    """400 for anything else."""
    answer = ask(api, name, route, body_of(route), **{"idempotency-key": header.encode()})  # type: ignore[arg-type]
    problem(answer, 400, "invalid_request")


@pytest.mark.parametrize(("name", "route"), ROUTES)
def test_a_bug_tells_nothing(api: Api, name: str, route: Route, monkeypatch: Any) -> None:
    """500 without stack, SQL or path."""
    if route.kind == "stream":
        api.tailer.error = RuntimeError("SELECT secret FROM /etc/passwd")

    def broken(*_args: object, **_kw: object) -> Any:
        raise RuntimeError("SELECT secret FROM /etc/passwd")

    for port in (api.commands, api.projects, api.keys):
        for method in ("submit", "get", "list", "create", "revoke", "authorise"):
            if hasattr(port, method):
                monkeypatch.setattr(port, method, broken)
    parts = ("health", "repair", "bury", "runner", "watch", "fan_out", "sender")
    for part in (*parts, "receive", "receive_github"):
        monkeypatch.setitem(api.app.__dict__, part, property(broken))
    monkeypatch.setitem(api.app.__dict__, "draining", None)
    key = api.keys.make(*scopes.ALL)
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "t"}
    answer = call(api.client(name, key), route, headers=headers)
    if name == "reference" or route.path == "/health":
        assert answer.status_code == 200
    else:
        body = problem(answer, 500, "internal")
        assert "secret" not in answer.text
        assert body["detail"] == "something broke on our side"
