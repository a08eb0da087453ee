"""The attack table over HTTP, one test id a row (design/security.md has the rows)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from common.adapters.memory.keys import MemoryKeyStore
from common.domain import keys, sse
from common.domain.audit import AuditFilter
from common.domain.command import State
from common.domain.launch import job_for
from common.ports.keys import Grant
from infra.generation import declared
from tests.security.conftest import ONE_A_MINUTE, House

SHELL = {"project": "demo", "kind": "shell", "script": "true"}


def dumped(body: Any) -> bytes:
    return json.dumps(body).encode()


def refused(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    body: dict[str, Any] = answer.json()
    return body


def submitted(house: House, key: str, **more: Any) -> Any:
    return house.client("commands", key).post("/v1/commands", content=dumped(SHELL | more))


# -- keys ------------------------------------------------------------------------------------------


def bearer(text: str) -> tuple[str, str]:
    return "authorization", f"Bearer {text}"


def of_same_prefix(good: str) -> str:
    """A well-formed key whose public part is `good`'s and whose secret is not."""
    body = keys.prefix_of(good) + "_" + "0" * 32
    return body + keys._checksum(body)


def test_row_1_no_key(house: House) -> None:
    """401 that says which scheme is needed."""
    answer = house.client("keys").get("/v1/keys")
    refused(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda _: "x", id="row-2-malformed"),
        pytest.param(lambda _: "rdev_" + "A" * 50_000, id="row-2-oversized"),
        pytest.param(lambda good: good[:-1] + "!", id="row-2-checksum"),
        pytest.param(of_same_prefix, id="row-6-right-prefix-wrong-secret"),
    ],
)
def test_a_wrong_key_reads_like_an_unknown_one(house: House, wrong: Callable[[str], str]) -> None:
    """Status and body are the same but for the request's id: nothing to learn."""
    good = house.key()
    unknown = house.client("keys", keys.new_key()).get("/v1/keys")
    answer = house.client("keys", wrong(good)).get("/v1/keys")
    refused(answer, 401, "unauthorized")
    assert answer.json() | {"request_id": ""} == unknown.json() | {"request_id": ""}


@pytest.mark.parametrize(
    ("sent", "calls"),
    [
        pytest.param(lambda _: "x", 0, id="row-2-malformed"),
        pytest.param(lambda _: "rdev_" + "A" * 50_000, 0, id="row-2-oversized"),
        pytest.param(lambda good: good[:-1] + "!", 0, id="row-2-checksum"),
        pytest.param(lambda _: keys.new_key(), 1, id="row-2-unknown"),
        pytest.param(of_same_prefix, 1, id="row-6-right-prefix-wrong-secret"),
    ],
)
def test_what_a_wrong_key_costs_tells_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch, sent: Callable[[str], str], calls: int
) -> None:
    """One question to the database whatever of a key is right, none for what anybody can see."""
    good, asked = house.key(), []

    def authorise(key_hash: bytes, *_args: object, **_more: object) -> Grant:
        asked.append(key_hash)
        return Grant("unknown", None)

    monkeypatch.setattr(house.key_store, "authorise", authorise)
    refused(house.client("keys", sent(good)).get("/v1/keys"), 401, "unauthorized")
    assert [len(digest) for digest in asked] == [32] * calls


def test_row_3_a_revoked_key_is_refused_by_the_next_request(house: House) -> None:
    """Its waiting commands end as key_revoked; that streams close is test_stream_http.py's."""
    admin, doomed = house.key(), house.key()
    waiting = submitted(house, doomed).json()["id"]
    path = f"/v1/keys/{house.id_of(doomed)}"
    assert house.client("keys", admin).request("DELETE", path).status_code == 204
    refused(house.client("keys", doomed).get("/v1/keys"), 401, "unauthorized")
    ended = house.client("commands", admin).get(f"/v1/commands/{waiting}").json()
    assert (ended["state"], ended["outcome"]["reason"]) == ("cancelled", "key_revoked")


@pytest.mark.parametrize("name", ["api_key", "key", "access_token"])
def test_row_4_a_key_in_the_url(house: House, name: str) -> None:
    """401 even beside a good header: it is in somebody's log by now."""
    good = house.key()
    refused(house.client("keys", good).get(f"/v1/keys?{name}={good}"), 401, "unauthorized")


def test_row_5_two_keys(house: House) -> None:
    """Which of the two would it be?"""
    good = house.key()
    for second in (bearer(good), ("x-api-key", good), bearer("x")):
        answer = house.client("keys").get("/v1/keys", headers=[bearer(good), second])
        refused(answer, 401, "unauthorized")


@pytest.mark.row(7, 8)
def test_a_key_is_shown_once_and_stored_nowhere(house: House) -> None:
    """Neither another answer nor anything that is stored holds its text."""
    client = house.client("keys", house.key())
    made = client.post("/v1/keys", content=dumped({"name": "ci", "scopes": ["audit:read"]}))
    text = made.json()["key"]
    rotated = client.post(f"/v1/keys/{made.json()['id']}/rotate").json()["key"]
    stored = repr(vars(house.state)) + client.get("/v1/keys").text
    for secret in (text, rotated):
        assert keys.is_well_formed(secret)
        assert secret not in stored
        assert secret[14:] not in stored


@pytest.mark.parametrize(
    "wider",
    [
        {"scopes": ["audit:read"]},
        {"projects": None},
        {"projects": ["demo", "other"]},
        {"allowed_ips": []},
        {"allowed_ips": ["0.0.0.0/0"]},
        {"rate_limit": {"limit": 2, "window_s": 60}},
    ],
    ids=lambda wider: f"row-9-{next(iter(wider))}",
)
@pytest.mark.parametrize("how", ["create", "update", "rotate"])
def test_row_9_no_key_makes_a_wider_one(house: House, how: str, wider: dict[str, Any]) -> None:
    """Neither from nothing, nor out of another, nor by taking over one that is wider."""
    weak = house.key(
        "keys:admin", projects={"demo"}, allowed_ips=("127.0.0.0/8",), rate_limit=ONE_A_MINUTE
    )
    rate = {"limit": 1, "window_s": 60}
    fits = {"name": "x", "scopes": ["keys:admin"], "projects": ["demo"], "rate_limit": rate,
            "allowed_ips": ["127.0.0.1/32"]}  # fmt: skip
    admin = house.client("keys", house.key())
    start = fits | wider if how == "rotate" else fits
    other = admin.post("/v1/keys", content=dumped(start)).json()["id"]
    before = repr(house.state.keys)
    client = house.client("keys", weak)
    if how == "create":
        answer = client.post("/v1/keys", content=dumped(fits | wider))
    elif how == "update":
        answer = client.request("PATCH", f"/v1/keys/{other}", content=dumped(wider))
    else:
        answer = client.post(f"/v1/keys/{other}/rotate")
    assert answer.status_code in (403, 404)
    changed = repr(house.state.keys)
    assert len(house.state.keys) == before.count("KeyRow(") == changed.count("KeyRow(")


# -- other people's things -------------------------------------------------------------------------


def test_row_12_another_projects_command_was_never_there(house: House) -> None:
    """404, the same body as for an id that never was, for every verb."""
    foreign = submitted(house, house.key(), project="other").json()["id"]
    client = house.client("commands", house.key(projects={"demo"}))
    for id_ in (foreign, "cmd_" + "0" * 32):
        path = f"/v1/commands/{id_}"
        answers = [
            client.get(path),
            client.get(f"{path}/output"),
            client.post(f"{path}/cancel"),
            client.post(f"{path}/retry"),
            client.request("PATCH", path, content=b'{"priority":"low"}'),
        ]
        said = [refused(a, 404, "not_found")["detail"].replace(id_, "ID") for a in answers]
        assert set(said) == {"there is no 'ID'"}
    assert [r.command.state for r in house.state.by_id()] == [State.QUEUED]


@pytest.mark.parametrize(
    "extra",
    [{"state": "succeeded"}, {"project_id": "x"}, {"priority": 999}, {"lease_token": 1},
     {"key_id": "key_x"}, {"outcome": {}}],
    ids=lambda extra: f"row-14-{next(iter(extra))}",
)  # fmt: skip
def test_row_14_mass_assignment(house: House, extra: dict[str, Any]) -> None:
    """422, and nothing was created."""
    refused(submitted(house, house.key(), **extra), 422, "invalid_field")
    assert house.state.commands == {}


def test_row_15_filters_do_not_widen(house: House) -> None:
    """Asking for a foreign project shows nothing, asking for both shows one's own."""
    for project in ("demo", "other"):
        submitted(house, house.key(), project=project)
    client = house.client("commands", house.key(projects={"demo"}))
    for query, seen in (("", ["demo"]), ("?project=other", []),
                        ("?project=other&project=demo", ["demo"])):  # fmt: skip
        items = client.get(f"/v1/commands{query}").json()["items"]
        assert [item["project"] for item in items] == seen


@pytest.mark.parametrize("last", ["0", "1", "2", "1000000"])
def test_row_16_a_place_in_a_foreign_stream_opens_nothing(house: House, last: str) -> None:
    """404 as for no such command or project; a cursor of another project is none of this one."""
    foreign = submitted(house, house.key(), project="other").json()["id"]
    client = house.client("stream", house.key(projects={"demo"}))
    for path in (f"commands/{foreign}", "commands/cmd_" + "0" * 32, "projects/other"):
        house.app.__dict__["tailer"] = house.tailer()
        answer = client.get(f"/v1/streams/{path}", headers={"last-event-id": last})
        refused(answer, 404, "not_found")
    house.app.__dict__["tailer"] = house.tailer()
    cursor = {"last-event-id": sse.encode_cursor("other", int(last), {})}
    refused(client.get("/v1/streams/projects/demo", headers=cursor), 400, "invalid_request")


def test_row_17_idempotency_belongs_to_a_key(house: House) -> None:
    """Another key's Idempotency-Key with the same body is a command of one's own."""
    ids = set()
    for key in (house.key(), house.key()):
        answer = house.client("commands", key).post(
            "/v1/commands", content=dumped(SHELL), headers={"idempotency-key": "k"}
        )
        assert "idempotency-replayed" not in answer.headers
        ids.add(answer.json()["id"])
    assert len(ids) == 2


def test_row_18_a_list_with_one_foreign_item_is_refused_whole(house: House) -> None:
    """Nothing of it is done, also what would have been allowed by itself."""
    client = house.client("keys", house.key("keys:admin", projects={"demo"}))
    before = len(house.state.keys)
    wanted = {"name": "x", "scopes": ["keys:admin"], "projects": ["demo", "other"]}
    assert client.post("/v1/keys", content=dumped(wanted)).status_code == 403
    assert len(house.state.keys) == before


# Bodies that hold several things, each with its test that one foreign item refuses all.
BATCHES: set[str] = set()


def test_row_18_no_other_door_takes_a_batch() -> None:
    """No body is a list, or holds a list of things that have ids or projects of their own."""
    batches = {
        f"{route.method} {route.path}"
        for function in declared.functions()
        for route in function.routes
        if route.body is not None and _is_batch(route.body.json_schema())
    }
    assert batches == BATCHES


def _is_batch(schema: dict[str, Any]) -> bool:
    return schema.get("type") == "array" or any(
        "project" in names or pattern.startswith(("^cmd_", "^key_"))
        for names, pattern in _items_of(schema)
    )


def _items_of(schema: Any) -> Iterator[tuple[list[str], str]]:
    """Of every list in a schema: what its items' fields are called, and what they look like."""
    if isinstance(schema, dict):
        if isinstance(schema.get("items"), dict):
            items = schema["items"]
            yield list(items.get("properties", {})), items.get("pattern", "")
        for value in schema.values():
            yield from _items_of(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _items_of(value)


# -- addresses -------------------------------------------------------------------------------------

ALLOWED = ("203.0.113.7/32", "2001:db8::/32")


@pytest.mark.row(19, 20, 21, 22, 23, 24)
@pytest.mark.parametrize(
    ("peer", "lines", "known"),
    [
        pytest.param("203.0.113.7", [], True, id="row-24-direct-v4"),
        pytest.param("2001:db8::9", [], True, id="row-24-cidr-v6"),
        pytest.param("10.0.0.1", ["203.0.113.7"], True, id="row-19-honest-proxy"),
        pytest.param("10.0.0.1", ["203.0.113.7, 198.51.100.1"], False, id="row-19-forged-leftmost"),
        pytest.param("198.51.100.1", ["203.0.113.7"], False, id="row-19-no-proxy-of-ours"),
        pytest.param("10.0.0.1", ["203.0.113.7", "198.51.100.1"], False, id="row-20-two-lines"),
        pytest.param("10.0.0.1", ["garbage"], False, id="row-21-garbage"),
        pytest.param("10.0.0.1", [""], False, id="row-21-empty"),
        pytest.param("10.0.0.1", ["203.0.113.7:80x"], False, id="row-21-port"),
        pytest.param("10.0.0.1", ["2001:db8::1%eth0x y"], False, id="row-21-zone"),
        pytest.param("::ffff:203.0.113.7", [], True, id="row-21-mapped"),
        pytest.param("10.0.0.1", ["10.0.0.2, 10.0.0.3"], False, id="row-23-all-trusted"),
    ],
)
def test_an_address_is_what_trusted_proxies_say(
    make_house: Any, peer: str, lines: list[str], known: bool
) -> None:
    """403 ip_not_allowed for the rest, with both addresses on record; other headers say nothing."""
    house: House = make_house(RDEV_TRUSTED_PROXIES="10.0.0.0/8")
    bound, free = house.key(allowed_ips=ALLOWED), house.key()
    liars = [("x-real-ip", "203.0.113.7"), ("forwarded", "for=203.0.113.7"),
             ("x-forwarded-host", "203.0.113.7")]  # fmt: skip
    headers = [*(("x-forwarded-for", line) for line in lines), *liars]
    client = house.client("keys", peer=peer)
    answer = client.get("/v1/keys", headers=[bearer(bound), *headers])
    assert client.get("/v1/keys", headers=[bearer(free), *headers]).status_code == 200
    if known:
        assert answer.status_code == 200
        return
    refused(answer, 403, "ip_not_allowed")
    house.app.refusals.flush()
    [entry] = house.app.audit.list(AuditFilter(action="request.refused"))
    assert entry.peer_ip == peer
    assert entry.client_ip != "203.0.113.7"


# -- rate and resources ----------------------------------------------------------------------------


def test_row_25_a_burst_is_told_when_to_come_back(house: House) -> None:
    """429 with Retry-After and both RateLimit headers; refusals consume nothing."""
    client = house.client("keys", house.key(rate_limit=ONE_A_MINUTE))
    assert client.get("/v1/keys").status_code == 200
    for _ in range(3):
        answer = client.get("/v1/keys")
        refused(answer, 429, "rate_limited")
        assert 0 < int(answer.headers["retry-after"]) <= 61
        assert answer.headers["ratelimit-policy"] == '"default";q=1;w=60'
        assert answer.headers["ratelimit"].startswith('"default";r=0;t=')


RAW = {
    "row-27-too-large": (b'{"script":"' + b"x" * (2 << 20) + b'"}', 413, "payload_too_large"),
    "row-29-100k-deep": (b"[" * 100_000, 400, "invalid_request"),
    "row-30-5000-digits": (b'{"priority":' + b"9" * 5000 + b"}", 400, "invalid_request"),
    "row-31-nan": (b'{"priority":NaN}', 400, "invalid_request"),
    "row-31-infinity": (b'{"priority":-Infinity}', 400, "invalid_request"),
    "row-31-1e999": (b'{"priority":1e999}', 400, "invalid_request"),
    "row-32-twice": (b'{"kind":"shell","kind":"git"}', 400, "invalid_request"),
    "row-37-surrogate-value": (b'{"script":"\\ud800"}', 400, "invalid_request"),
    "row-37-surrogate-name": (b'{"\\udfff":1}', 400, "invalid_request"),
    "row-38-nul": (b'{"script":"a\\u0000b"}', 400, "invalid_request"),
    "row-42-overlong-utf8": (b'{"project":"\xc0\xae"}', 400, "invalid_request"),
}


@pytest.mark.parametrize("row", RAW)
def test_a_body_of_an_attacker_is_refused_whole(house: House, row: str) -> None:
    """400 or 413, never 500, and the next request is answered as ever."""
    body, status, code = RAW[row]
    client = house.client("commands", house.key())
    refused(client.post("/v1/commands", content=body), status, code)
    assert client.post("/v1/commands", content=dumped(SHELL)).status_code == 202


def test_row_35_a_gzip_bomb_is_not_unpacked(house: House) -> None:
    """415: bodies come as they are."""
    headers = {"content-encoding": "gzip"}
    client = house.client("commands", house.key())
    answer = client.post("/v1/commands", content=b"\x1f\x8b" + b"\0" * 100, headers=headers)
    refused(answer, 415, "unsupported_media_type")


REGEX_FOOD = {
    "project": "a" + "-" * 50_000 + "!",
    "labels": {"a" + "./" * 30_000 + "!": "x"},
    "env": {"A" * 60_000 + "!": "x"},
}


@pytest.mark.parametrize("field", REGEX_FOOD, ids=lambda field: f"row-36-{field}")
def test_row_36_no_pattern_eats_the_processor(house: House, field: str) -> None:
    """Processor time, not wall time, so that a busy machine says nothing about the pattern."""
    client = house.client("commands", house.key())
    body = dumped(SHELL | {field: REGEX_FOOD[field]})
    began = time.process_time()
    refused(client.post("/v1/commands", content=body), 422, "invalid_field")
    assert time.process_time() - began < 1  # a pattern that backtracks takes minutes here


NAMES = {
    "row-39-newline": "a\nb",
    "row-39-cr": "a\rb",
    "row-40-bidi": "a\u202eb",
    "row-40-zero-width": "a\u200bb",
    "row-40-line-separator": "a\u2028b",
    "row-40-tag": "a\U000e0041b",
}


@pytest.mark.parametrize("row", NAMES)
def test_a_name_is_one_visible_line(house: House, row: str) -> None:
    """422 where a name or a label's value would lie to whoever reads it."""
    client = house.client("keys", house.key())
    body = dumped({"name": NAMES[row], "scopes": ["audit:read"]})
    refused(client.post("/v1/keys", content=body), 422, "invalid_field")
    refused(submitted(house, house.key(), labels={"a": NAMES[row]}), 422, "invalid_field")


@pytest.mark.parametrize(
    "name", ["..", "../x", "..\\x", "/etc", "~", "-x", ".x", "CON x", "a" * 256, "%2e%2e%2f"]
)
def test_row_42_a_project_is_a_plain_name(house: House, name: str) -> None:
    """A name that could be a path is 422."""
    refused(submitted(house, house.key(), project=name), 422, "invalid_field")


@pytest.mark.parametrize(
    "cwd",
    ["/", "/etc", "..", "../x", "a/../../b", "./..", "a/..", "\x00", "x" * 1025],
    ids=lambda cwd: f"row-48-{cwd[:10]!r}",
)
def test_a_folder_is_one_of_the_workspace(house: House, cwd: str) -> None:
    """4xx for what would lie outside; symbolic links are the supervisor's to see."""
    answer = submitted(house, house.key(), cwd=cwd)
    assert answer.status_code == (400 if "\0" in cwd else 422)
    assert house.state.commands == {}


# -- programs --------------------------------------------------------------------------------------

META = "x; touch /tmp/canary; $(touch /tmp/canary) `touch /tmp/canary` | & > < ' \" \\"


@pytest.mark.row(45, 46)
def test_text_stays_text(house: House) -> None:
    """A script is one argument of `sh -c`; every other argument is itself."""
    key = house.key()
    submitted(house, key, script=META)
    argv = {"project": "demo", "kind": "shell", "argv": ["echo", META]}
    house.client("commands", key).post("/v1/commands", content=dumped(argv))
    prompt = {"project": "demo", "kind": "claude", "prompt": META}
    house.client("commands", key).post("/v1/commands", content=dumped(prompt))
    script, plain, claude = [job_for(r.command, {}, 1) for r in house.state.by_id()]
    assert script.argv == ("sh", "-c", META)
    assert plain.argv == ("echo", META)
    assert META not in " ".join(map(str, claude.argv))
    assert claude.stdin == META.encode()


@pytest.mark.parametrize(
    "name",
    ["LD_PRELOAD", "LD_AUDIT", "BASH_ENV", "ENV", "GIT_SSH_COMMAND", "GIT_CONFIG_COUNT",
     "NODE_OPTIONS", "PATH", "IFS", "HTTPS_PROXY", "https_proxy", "Http_Proxy", "PYTHONPATH",
     "PYTHONSTARTUP", "PERL5OPT", "RUBYOPT", "JAVA_TOOL_OPTIONS", "SHELLOPTS", "PS4", "EDITOR",
     "PAGER", "HOME", "XDG_CONFIG_HOME", "SSH_ASKPASS", "GLIBC_TUNABLES", "RDEV_HOME",
     "CLAUDE_CONFIG_DIR", "A=B", "A B", "1A", "", "BASH_FUNC_x%%"],
)  # fmt: skip
def test_row_47_no_variable_runs_other_code(house: House, name: str) -> None:
    """422 for whatever makes a loader, shell, interpreter or git do something else."""
    refused(submitted(house, house.key(), env={name: "x"}), 422, "invalid_field")


@pytest.mark.parametrize(
    "prompt", ["--version", "--dangerously-skip-permissions", "-p --mcp-config x"]
)
def test_row_49_a_prompt_is_no_option(house: House, prompt: str) -> None:
    """It goes in on stdin."""
    body = {"project": "demo", "kind": "claude", "prompt": prompt}
    house.client("commands", house.key()).post("/v1/commands", content=dumped(body))
    [row] = house.state.by_id()
    job = job_for(row.command, {}, 1)
    assert prompt not in job.argv
    assert job.stdin == prompt.encode()


@pytest.mark.parametrize(
    "option", ["settings", "mcp_config", "add_dir", "plugin_dir", "debug_file", "--settings"]
)
def test_row_50_claude_takes_options_of_a_list(house: House, option: str) -> None:
    """Whatever could load programs or reach other folders is 422."""
    body = {"project": "demo", "kind": "claude", "prompt": "x", "options": {option: "x"}}
    answer = house.client("commands", house.key()).post("/v1/commands", content=dumped(body))
    refused(answer, 422, "invalid_field")


# -- leaks -----------------------------------------------------------------------------------------

CANARY = "c4n4ry-8f3a1"


def test_row_69_a_refused_body_does_not_come_back(house: House) -> None:
    """Error bodies and the audit trail name fields, never the values of secrets."""
    client = house.client("commands", house.key())
    for body in (
        SHELL | {"env": {"LD_PRELOAD": CANARY}},
        SHELL | {"env": {"OK": CANARY}, "priority": 7},
        SHELL | {"env": {"OK": {"nested": CANARY}}},
        {"project": "demo", "kind": "claude", "prompt": CANARY, "options": {"max_turns": 0}},
    ):
        answer = client.post("/v1/commands", content=dumped(body))
        assert answer.status_code == 422
        assert CANARY not in answer.text
    house.app.refusals.flush()
    assert CANARY not in repr(house.state.audit)


def test_row_72_a_bug_tells_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 without stack, SQL or path."""

    def broken(*_args: object, **_more: object) -> None:
        raise RuntimeError(f"SELECT {CANARY} FROM /etc/passwd")

    monkeypatch.setattr(MemoryKeyStore, "list", broken)
    answer = house.client("keys", house.key()).get("/v1/keys")
    body = refused(answer, 500, "internal")
    assert not any(word in answer.text for word in (CANARY, "SELECT", "Traceback", ".py"))
    assert body["request_id"]


@pytest.mark.parametrize("method", ["TRACE", "TRACK", "CONNECT", "PUT", "FOO"])
def test_row_74_other_methods_are_not_possible(house: House, method: str) -> None:
    """405 with the methods that are, and no header names a server."""
    answer = house.client("keys", house.key()).request(method, "/v1/keys")
    refused(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD, POST"
    assert "server" not in answer.headers


@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param("/v1/keys%0A", 400, id="row-39-line-end"),
        pytest.param("/v1/keys/x%0Ay", 400, id="row-39-line-within"),
        pytest.param("/v1/keys/%00", 400, id="row-38-nul"),
        pytest.param("/v1/keys/%ff", 400, id="row-37-no-utf8"),
        pytest.param("/v1/keys/%ed%a0%80", 400, id="row-37-surrogate"),
        pytest.param("/v1/keys/%c0%ae%c0%ae", 400, id="row-42-overlong"),
        pytest.param("/v1/keys/%2e%2e%2f", 404, id="row-42-dots"),
        pytest.param("/v1/keys/..", 404, id="row-42-parent"),
        pytest.param("/v1/keys/", 404, id="row-42-empty"),
        pytest.param("/v1/keys//x", 404, id="row-42-twice"),
        pytest.param("/v1/keys/%E2%80%AE", 404, id="row-40-bidi"),
        pytest.param("/robots.txt", 404, id="row-42-robots"),
        pytest.param("/favicon.ico", 404, id="row-42-favicon"),
        pytest.param("/%", 404, id="row-42-percent"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PROPFIND"])
def test_an_odd_path_is_a_problem_too(house: House, method: str, path: str, status: int) -> None:
    """The same form as every refusal, whatever part of the stack says it."""
    answer = house.client("keys", house.key()).request(method, path)
    codes = {400: {"invalid_request"}, 404: {"not_found"}}
    if answer.status_code == 405:
        codes[405], status = {"method_not_allowed"}, 405
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] in codes[status]
