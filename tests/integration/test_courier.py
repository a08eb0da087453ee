"""common/adapters/http/courier.py over real sockets: what a receiver does cannot hurt us."""

from __future__ import annotations

import datetime as dt
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from standardwebhooks import Webhook

from common.adapters.http import courier as module
from common.adapters.http.courier import HttpCourier, retry_after_s
from common.domain.errors import InvalidField
from common.domain.webhooks import HEAD_BYTES, Answer, new_secret
from tests.harness.receiver import receiver
from tests.harness.running import until

LOOPBACK = (ip_network("127.0.0.0/8"),)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Serve = Callable[[socket.socket], None]


def whole(connection: socket.socket) -> bytes:
    """A request with its body: closed with some of it unread, a connection is reset."""
    data = b""
    while (size := _size(data)) is None or len(data) < size:
        part = connection.recv(65536)
        if not part:
            raise ConnectionResetError
        data += part
    return data


def _size(data: bytes) -> int | None:
    """Bytes of the request that begins so, None while its head is not there yet."""
    head = re.match(rb".*?\r\n\r\n", data, re.DOTALL)
    length = re.search(rb"content-length: (\d+)", head[0], re.IGNORECASE) if head else None
    return head.end() + int(length[1] if length else 0) if head else None


@contextmanager
def listening(serve: Serve) -> Iterator[int]:
    """A socket whose every connection `serve` gets; its port."""
    server = socket.create_server(("127.0.0.1", 0))

    def work() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                threading.Thread(target=_one, args=(serve, connection), daemon=True).start()

    threading.Thread(target=work, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        server.close()


def _one(serve: Serve, connection: socket.socket) -> None:
    with connection, suppress(OSError):
        serve(connection)


def post(port: int, courier: HttpCourier | None = None, url: str = "http://127.0.0.1") -> Answer:
    made = courier or HttpCourier(LOOPBACK)
    try:
        return made.post(f"{url}:{port}/x", {"a": "b"}, b"{}")
    finally:
        if courier is None:
            made.close()


def saying(data: bytes) -> Serve:
    def serve(connection: socket.socket) -> None:
        whole(connection)
        connection.sendall(data)

    return serve


def test_an_answer_is_taken_with_its_beginning() -> None:
    """Status and body; one connection serves many deliveries."""
    with receiver() as hook:
        courier = HttpCourier(LOOPBACK)
        answers = [courier.post(hook.url, {"X-A": "b"}, b'{"n":1}') for _ in range(3)]
        courier.close()
    assert [(a.status, a.head, a.error) for a in answers] == [(200, b"ok", None)] * 3
    assert {c.headers["x-a"] for c in hook.came} == {"b"}
    assert {c.body for c in hook.came} == {b'{"n":1}'}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_row_57_a_redirect_is_not_followed(status: int) -> None:
    """Wherever it points, it is a failure and nobody is asked."""
    asked: list[bytes] = []

    def inside(connection: socket.socket) -> None:
        asked.append(whole(connection))

    with listening(inside) as private:
        where = f"location: http://127.0.0.1:{private}/\r\ncontent-length: 0\r\n\r\n"
        said = f"HTTP/1.1 {status} Go\r\n{where}"
        with listening(saying(said.encode())) as port:
            answer = post(port)
    assert (answer.status, answer.error) == (status, "redirects are not followed")
    assert not answer.delivered
    assert asked == []


def test_row_59_an_endless_answer_is_cut_and_its_connection_closed() -> None:
    """20 kB are kept."""
    closed = threading.Event()

    def endless(connection: socket.socket) -> None:
        whole(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            while True:
                connection.sendall(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
        except OSError:
            closed.set()

    with listening(endless) as port:
        answer = post(port)
        assert closed.wait(20)
    assert (answer.status, len(answer.head)) == (200, HEAD_BYTES)


def test_a_receiver_that_drips_gets_no_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole request has one deadline, however alive the connection looks."""
    monkeypatch.setattr(module, "TIMEOUT_S", 0.4)

    def drip(connection: socket.socket) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nx: " + b"y" * 10_000:
            connection.sendall(bytes([byte]))
            time.sleep(0.02)

    with listening(drip) as port:
        answer = post(port)
    assert (answer.status, answer.error) == (None, "no answer within 0.4 s")
    assert answer.overloaded


def test_a_body_that_breaks_off_changes_no_status() -> None:
    """What was said counts; the rest is for people."""
    said = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"
    with listening(saying(said)) as port:
        answer = post(port)
    assert (answer.status, answer.head) == (200, b"half")


@pytest.mark.parametrize("said", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 99999 x\r\n\r\n"])
def test_what_is_no_answer_is_told_as_one(said: bytes) -> None:
    """Without a status, with a reason."""
    with listening(saying(said)) as port:
        answer = post(port)
    assert answer.status is None
    assert answer.error
    assert answer.overloaded


def test_nobody_there_is_told_too() -> None:
    """A refused connection, a name that does not resolve, and a name that changes its mind."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "refused" in (post(port).error or "").lower()
    answer = HttpCourier(LOOPBACK).post("https://nobody.invalid/", {}, b"{}")
    assert (answer.status, answer.error) == (None, "the host does not resolve")


def test_row_56_a_rebound_name_is_connected_to_where_it_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Resolved once a connection: an inside address is refused then too, whatever creation saw."""
    asked: list[str] = []
    answers = [["1.1.1.1"], ["127.0.0.1"], ["1.1.1.1", "127.0.0.1"]]

    def resolve(host: str, _port: int) -> list[str]:
        asked.append(host)
        return answers[len(asked) - 1]

    monkeypatch.setattr(module, "resolve", resolve)
    reached: list[bytes] = []
    with listening(lambda c: reached.append(c.recv(65536))):
        courier = HttpCourier()
        courier.check("https://rebind.example.com/")  # public when it is created
        for _ in range(2):
            answer = courier.post("https://rebind.example.com/", {}, b"{}")
            assert answer.refused
            assert (answer.status, answer.overloaded) == (None, False)
            assert "address of the inside" in (answer.error or "")
    assert asked == ["rebind.example.com"] * 3
    assert reached == []


@pytest.mark.parametrize("url", ["http://127.0.0.1", "http://localhost", "http://[::1]"])
def test_row_55_the_inside_is_refused_when_connecting(url: str) -> None:
    """Also for an endpoint that was stored when it was still allowed."""
    with listening(saying(OK)) as port:
        courier = HttpCourier()
        answer = post(port, courier, url)
        assert answer.refused
        with pytest.raises(InvalidField):
            courier.check(f"{url}:{port}/")


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate of its own authority for a name: (certificate, key) as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


def test_tls_names_and_verifies_the_host_of_the_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although an address is connected to; a host by another name is not trusted."""
    chain, key = certificate(tmp_path, "hooks.example.com")
    monkeypatch.setenv("SSL_CERT_FILE", str(chain))
    monkeypatch.setattr(module, "resolve", lambda _host, _port: ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    named: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: named.append(name)
    seen: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            seen.append(whole(secured))
            secured.sendall(OK)

    with listening(serve) as port:
        answer = post(port, url="https://hooks.example.com")
        other = post(port, url="https://other.example.com")
    assert (answer.status, answer.error) == (200, None)
    assert named[0] == "hooks.example.com"
    assert f"Host: hooks.example.com:{port}\r\n".encode() in seen[0]
    assert other.status is None
    assert "certificate" in (other.error or "").lower()
    until("both are through", lambda: len(named) == 2)


def test_a_signature_is_that_of_the_specification() -> None:
    """As the reference implementation verifies it: the right body, and a fresh one."""
    secret, body = new_secret(), b'{"test":"\\u00fc"}'
    now = dt.datetime.now(dt.UTC)
    signature = HttpCourier().sign(secret.encode(), "evt_1", now, body)
    stamp = str(int(now.timestamp()))
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,AAAA {signature}",
    }
    Webhook(secret).verify(body, headers)
    for wrong in ({"webhook-id": "evt_2"}, {"webhook-timestamp": str(int(stamp) - 301)}):
        with pytest.raises(Exception, match=r"signature|old"):
            Webhook(secret).verify(body, headers | wrong)
    with pytest.raises(Exception, match="signature"):
        Webhook(new_secret()).verify(body, headers)


def test_the_specifications_own_example_is_signed_alike() -> None:
    """Row 60: the vector that all libraries share."""
    secret = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    at = dt.datetime.fromtimestamp(1614265330, dt.UTC)
    signature = HttpCourier().sign(
        secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", at, b'{"test": 2432232314}'
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_retry_after_is_seconds_or_a_date() -> None:
    """Anything else asks nothing."""
    assert retry_after_s(" 120 ") == 120
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=60)
    asked = retry_after_s(soon.strftime("%a, %d %b %Y %H:%M:%S GMT"))
    assert asked is not None and 55 < asked <= 60
    assert retry_after_s("Thu, 01 Jan 1970 00:00:00 GMT") == 0
    for odd in ("", "soon", "-1", "1e9", "٣"):
        assert retry_after_s(odd) is None
