"""The gateway: routing, streaming, disconnects, limits; on real sockets and processes."""

from __future__ import annotations

import json
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.local.wire import MAX_BODY_BYTES, MAX_HEAD_BYTES, MAX_TARGET_BYTES
from tests.integration.local_cluster import Local, lay_out, running, service, until_noted


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    settings = lay_out(
        tmp_path_factory.mktemp("gateway"),
        service("hello", prefixes="/v1/hello,/echo,/hold,/half,/die,/big,/silent"),
        service("deeper", prefixes="/v1/hello/deeper"),
        service("inside", prefixes=""),
        service("broken", env={"BROKEN": "1"}),
        service("short", timeoutSeconds=3, prefixes="/short"),
        service("slow", responseStartTimeoutSeconds=1, prefixes="/slow"),
    )
    with running(settings) as found:
        yield found


@pytest.fixture
def client(local: Local) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=local.url, timeout=30, trust_env=False) as found:
        yield found


def said(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/hello", "hello"),
        ("/v1/hello/", "hello"),
        ("/v1/hello/x", "hello"),
        ("/v1/hello/deeper", "deeper"),
        ("/v1/hello/deeper/still?q=/v1/hello", "deeper"),
        ("/v1/hello/deeperandmore", "hello"),
    ],
)
def test_the_longest_prefix_of_whole_segments_wins(
    client: httpx.Client, path: str, name: str
) -> None:
    """A prefix matches its path and what is below it, never half a segment."""
    assert said(client.get(path))["service"] == name


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/helloo", "/inside", "//v1/hello", "/V1/hello"])
def test_an_unknown_path_is_a_problem(client: httpx.Client, path: str) -> None:
    """What no function owns, cluster-local ones included, is 404 problem+json."""
    answer = client.get(client.base_url.join("/").copy_with(raw_path=path.encode()))
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "not_found"


def test_a_browser_gets_a_page(client: httpx.Client) -> None:
    """Whoever accepts HTML sees what there is instead, with the path made harmless."""
    answer = client.get("/<b>nope", headers={"accept": "text/html"})
    assert answer.status_code == 404 and "text/html" in answer.headers["content-type"]
    assert "/v1/hello" in answer.text and "<b>" not in answer.text


def test_method_path_query_headers_and_body_arrive_as_sent(client: httpx.Client) -> None:
    """The gateway changes nothing that is the application's."""
    answer = client.request(
        "PATCH",
        "/v1/hello/a%2Fb%20c;x?q=1&q=%zz",
        content=b"some body",
        headers={"x-own": "1", "Accept-Language": "de"},
    )
    seen = said(answer)
    assert (seen["method"], seen["path"]) == ("PATCH", "/v1/hello/a%2Fb%20c;x")
    assert (seen["query"], seen["body"]) == ("q=1&q=%zz", "some body")
    headers = dict(seen["headers"])
    assert headers["x-own"] == "1" and headers["accept-language"] == "de"
    assert answer.headers["x-own"] == "yes"


def test_forwarding_headers_of_a_client_are_overwritten(client: httpx.Client) -> None:
    """X-Forwarded-For is the peer alone; nothing that a client forged remains."""
    names = ("X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Host")
    forged = dict.fromkeys(names, "6.6.6.6")
    headers = said(client.get("/v1/hello", headers=forged))["headers"]
    assert [value for name, value in headers if name == "x-forwarded-for"] == ["127.0.0.1"]
    assert "6.6.6.6" not in str(headers)


def test_functions_learn_where_they_are(local: Local, client: httpx.Client) -> None:
    """Each gets its own environment, and nothing that slows its start."""
    environment = said(client.get("/v1/hello"))["environment"]
    assert environment["K_SERVICE"] == "hello"
    assert environment["RDEV_SERVICE_URL"] == local.internal + "/services/{service}"
    assert environment["RDEV_BROKER_URL"] == local.internal + "/broker"
    assert environment["RDEV_EDGE_OVERWRITES"] == "1"
    assert environment["RDEV_TRUSTED_PROXIES"] == "127.0.0.0/8"
    assert environment["RDEV_HOST"] == "127.0.0.1"
    assert "PYTHONDONTWRITEBYTECODE" not in environment


def test_a_cluster_local_address_reaches_every_function(local: Local) -> None:
    """/services/<name>/… strips its own prefix and reaches functions without a public path."""
    seen = said(httpx.get(f"{local.internal}/services/inside/a/b?c=d", trust_env=False))
    assert (seen["service"], seen["path"], seen["query"]) == ("inside", "/a/b", "c=d")
    assert said(httpx.get(f"{local.internal}/services/inside", trust_env=False))["path"] == "/"
    assert httpx.get(f"{local.internal}/services/nobody/", trust_env=False).status_code == 404


def test_both_directions_stream_at_once(local: Local) -> None:
    """Each part of a body reaches the function, and its answer us, before the next is sent."""
    with socket.create_connection(("127.0.0.1", local.port), timeout=30) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        received = b""
        for text in (b"one", b"two", b"three"):
            connection.sendall(b"%x\r\n%b\r\n" % (len(text), text))
            while text not in received:
                part = connection.recv(4096)
                assert part, received
                received += part
        connection.sendall(b"0\r\n\r\n")
        while not received.endswith(b"0\r\n\r\n"):
            received += connection.recv(4096)


def test_a_client_that_goes_away_reaches_the_function(local: Local, client: httpx.Client) -> None:
    """An aborted stream is a disconnect in the function."""
    before = len(local.notes("hello", "disconnected"))
    with client.stream("GET", "/hold") as answer:
        assert next(answer.iter_raw()) == b"data: open\n\n"
    until_noted(local, "hello", "disconnected", before + 1)


def test_large_bodies_pass_whole(client: httpx.Client) -> None:
    """Megabytes pass both ways without loss."""
    size = 5 * 1024 * 1024 + 17
    assert len(client.get(f"/big?{size}").content) == size
    data = bytes(range(256)) * 4096 * 4
    assert client.post("/echo", content=data).content == data


def test_a_reader_that_stops_stops_the_writer(local: Local) -> None:
    """What a client does not read stays in the function instead of in the gateway's memory."""
    size = 300 * 1024 * 1024
    before = resident()
    with socket.create_connection(("127.0.0.1", local.port), timeout=30) as connection:
        connection.sendall(b"GET /big?%d HTTP/1.1\r\nHost: x\r\n\r\n" % size)
        assert connection.recv(10)
        # Another request on the same loop is answered: the stalled one holds up nobody.
        said(httpx.get(f"{local.url}/v1/hello", timeout=30, trust_env=False))
        assert resident() - before < size // 2


def resident() -> int:
    """Bytes of memory of this process, in which the gateway runs."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_a_head_answer_has_no_body_and_the_connection_goes_on(client: httpx.Client) -> None:
    """HEAD keeps content-length and its connection."""
    answer = client.head("/v1/hello")
    assert answer.status_code == 200 and int(answer.headers["content-length"]) > 0
    assert answer.content == b""
    assert said(client.get("/v1/hello"))["method"] == "GET"


def raw(local: Local, sent: bytes) -> bytes:
    """Send bytes and read until the gateway closes or a whole answer with a length is there."""
    with socket.create_connection(("127.0.0.1", local.port), timeout=30) as connection:
        threading.Thread(target=_send, args=(connection, sent), daemon=True).start()
        received = b""
        while part := connection.recv(65536):
            received += part
        return received


def _send(connection: socket.socket, sent: bytes) -> None:
    try:
        connection.sendall(sent)
    except OSError:
        return  # the gateway may answer and close before it has read everything


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"NONSENSE\r\n\r\n", 405),
        (b"GET /v1/hello HTTP/1.1\r\nHost: x\r\nBad Header\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (
            b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            400,
        ),
        (b"GET /v1/hello HTTP/1.1\r\nHost: x\r\nX: %b\r\n\r\n" % (b"x" * MAX_HEAD_BYTES), 431),
        (b"GET /v1/hello HTTP/1.1\r\nHost: x\r\nX: %b" % (b"x" * MAX_HEAD_BYTES * 2), 431),
        (b"GET /v1/hello?%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * MAX_TARGET_BYTES), 414),
        (
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1),
            413,
        ),
    ],
)
def test_what_is_absurd_is_refused_and_the_connection_closed(
    local: Local, head: bytes, status: int
) -> None:
    """Broken, ambiguous and oversized requests get a 4xx problem and reach no function."""
    received = raw(local, head)
    assert received.startswith(b"HTTP/1.1 %d " % status), received[:200]
    assert json.loads(received.partition(b"\r\n\r\n")[2])["status"] == status


def test_a_body_that_grows_beyond_the_limit_is_cut(local: Local) -> None:
    """Without a Content-Length the limit counts what comes."""
    chunk = b"%x\r\n%b\r\n" % (1 << 20, b"x" * (1 << 20))
    sent = b"POST /v1/hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    received = raw(local, sent + chunk * (MAX_BODY_BYTES // (1 << 20) + 1))
    assert received.startswith(b"HTTP/1.1 413 "), received[:200]


def test_a_client_that_waits_for_100_continue_gets_it(local: Local) -> None:
    """`Expect: 100-continue` is answered when the body is wanted."""
    with socket.create_connection(("127.0.0.1", local.port), timeout=30) as connection:
        connection.sendall(
            b"POST /v1/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
            b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.sendall(b"hi")
        received = b""
        while part := connection.recv(65536):
            received += part
        assert b'"body": "hi"' in received


def test_pipelined_requests_are_answered_in_order(local: Local) -> None:
    """Several requests in one segment get their answers one after the other."""
    received = raw(
        local,
        b"GET /v1/hello/1 HTTP/1.1\r\nHost: x\r\n\r\n"
        b"GET /nope HTTP/1.1\r\nHost: x\r\n\r\n"
        b"GET /v1/hello/3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    order = [received.index(mark) for mark in (b"/v1/hello/1", b"under /nope", b"/v1/hello/3")]
    assert order == sorted(order)


def test_http_1_0_gets_an_answer_that_ends_with_the_connection(local: Local) -> None:
    """An old client sees no chunks."""
    received = raw(local, b"POST /echo HTTP/1.0\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
    assert received.endswith(b"\r\n\r\nhi") and b"chunked" not in received.lower()


def test_an_upgrade_is_answered_as_plain_http(local: Local) -> None:
    """Offers to switch protocols are ignored, as curl's h2c offer may be."""
    received = raw(
        local,
        b"GET /v1/hello HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    )
    assert received.startswith(b"HTTP/1.1 200 ")


def test_a_function_that_cannot_start_answers_with_the_reason(client: httpx.Client) -> None:
    """503 with what its log says last, and when to come again."""
    answer = client.get("/broken")
    assert answer.status_code == 503 and "retry-after" in answer.headers
    assert "broken on purpose" in answer.json()["detail"]


def test_a_death_before_the_answer_is_502_and_the_next_request_starts_anew(
    client: httpx.Client,
) -> None:
    """A request that is not safe to repeat tells its client; the function is started again."""
    said(client.get("/v1/hello"))
    answer = client.post("/die")
    assert answer.status_code == 502
    while client.get("/v1/hello").status_code == 503:
        threading.Event().wait(0.1)  # it crashed soon after its start: a short pause is meant
    said(client.get("/v1/hello"))


def test_a_death_within_the_answer_breaks_the_connection(client: httpx.Client) -> None:
    """Half an answer never looks whole."""
    while client.get("/v1/hello").status_code == 503:
        threading.Event().wait(0.1)
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/half")


def test_timeout_seconds_cuts_a_stream_with_a_last_word(local: Local) -> None:
    """As queue-proxy does after the first byte: a clean end with `request timeout` in it."""
    answer = httpx.get(f"{local.internal}/services/short/hold", timeout=30, trust_env=False)
    assert answer.status_code == 200
    assert answer.content == b"data: open\n\nrequest timeout"


def test_a_late_first_byte_is_504(local: Local) -> None:
    """timeoutSeconds and responseStartTimeoutSeconds both count before the answer begins."""
    for name in ("short", "slow"):
        url = f"{local.internal}/services/{name}/silent"
        answer = httpx.get(url, timeout=30, trust_env=False)
        assert answer.status_code == 504 and answer.json()["detail"] == "request timeout"
