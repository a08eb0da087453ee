"""URLs and the sockets they open: Unix, TCP without delay, and SSL in each of libpq's modes."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from common.adapters.postgres.connection import Connection
from common.adapters.postgres.target import SSL_REQUEST, Target
from common.domain.errors import Unavailable


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgresql://postgres@/rdev?host=/dir",
            Target("postgres", "rdev", host="/dir", directory="/dir", sslmode="disable"),
        ),
        (
            "postgres://u%40x:p%2Fw@db.example:6432/name?sslmode=verify-full&sslrootcert=/ca.pem",
            Target("u@x", "name", "p/w", "db.example", 6432, None, "verify-full", "/ca.pem"),
        ),
        ("postgresql://u@[::1]/d", Target("u", "d", host="::1")),
        ("postgresql://u@/", Target("u", "u")),
        (
            "postgresql:///d?host=%2Ftmp%2Fpg&port=5433&user=u&password=p",
            Target("u", "d", "p", "/tmp/pg", 5433, "/tmp/pg", "disable"),
        ),
    ],
)
def test_a_url_says_where_and_as_whom(url: str, expected: Target) -> None:
    """User, password, host, port, database and SSL, as libpq writes them."""
    assert Target.parse(url) == expected


@pytest.mark.parametrize("url", ["mysql://u@h/d", "rdev", "postgresql://u@h/d?sslmode=maybe"])
def test_what_is_no_database_url_is_refused(url: str) -> None:
    """A process with a wrong URL does not start."""
    with pytest.raises(ValueError):
        Target.parse(url)


def test_a_local_socket_speaks_no_ssl(postgres_url: str) -> None:
    """On a Unix socket nothing is negotiated, whatever the URL asks."""
    connection = Connection(Target.parse(postgres_url + "&sslmode=require"))
    assert connection.script("SELECT 1") == [[1]]
    assert not isinstance(connection.session._usock, ssl.SSLSocket)
    connection.close()


# -- over the network -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for `localhost` that vouches for itself, beside its key."""
    folder = tmp_path_factory.mktemp("certificate")
    folder.chmod(0o755)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.crt"
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "server.key").write_bytes(private)
    return path


class Front:
    """A server's front on a TCP port: answers SSLRequest as asked, then passes bytes both ways.

    The wheel's PostgreSQL is built without SSL, so the encryption ends here.
    """

    def __init__(self, behind: str, certificate: Path | None) -> None:
        self._behind = behind
        self._context = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificate, certificate.with_name("server.key"))
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for one in [*self._open, self._server]:
            one.close()

    def _accept(self) -> None:
        pipes: list[threading.Thread] = []
        with suppress(OSError):  # the front was closed
            while True:
                client, _ = self._server.accept()
                pipes.append(threading.Thread(target=self._serve, args=(client,)))
                pipes[-1].start()
        for pipe in pipes:
            pipe.join()

    def _serve(self, client: socket.socket) -> None:
        self._open.append(client)
        with suppress(OSError):  # the client went, or did not believe our certificate
            first = client.recv(8, socket.MSG_WAITALL)
            if first == SSL_REQUEST:
                client.sendall(b"S" if self._context else b"N")
                first = b""
                if self._context:
                    client = self._context.wrap_socket(client, server_side=True)
                    self._open.append(client)
            behind = socket.socket(socket.AF_UNIX)
            self._open.append(behind)
            behind.connect(self._behind)
            behind.sendall(first)
            back = threading.Thread(target=self._pass, args=(behind, client))
            back.start()
            self._pass(client, behind)
            back.join()

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


@pytest.fixture(params=["ssl", "plain"])
def server(
    request: pytest.FixtureRequest, postgres_url: str, certificate: Path
) -> Iterator[tuple[int, bool]]:
    """A server on a port of 127.0.0.1, with SSL and without: (port, whether it has SSL)."""
    directory = Target.parse(postgres_url).directory
    with_ssl = request.param == "ssl"
    front = Front(f"{directory}/.s.PGSQL.5432", certificate if with_ssl else None)
    yield front.port, with_ssl
    front.close()


def is_encrypted(url: str) -> bool:
    connection = Connection(Target.parse(url))
    try:
        assert connection.script("SELECT 1") == [[1]]
        used = connection.session._usock
        assert used.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        return isinstance(used, ssl.SSLSocket)
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("sslmode", "over_ssl", "over_plain"),
    [
        ("disable", False, False),
        ("prefer", True, False),
        ("require", True, None),
        ("verify-ca", True, None),
        ("verify-full", True, None),
    ],
)
def test_each_mode_encrypts_as_in_libpq(
    server: tuple[int, bool],
    certificate: Path,
    sslmode: str,
    over_ssl: bool,
    over_plain: bool | None,
) -> None:
    """prefer takes what there is, require insists, verify- also asks who answers."""
    port, with_ssl = server
    url = f"postgresql://postgres@localhost:{port}/rdev?sslmode={sslmode}&sslrootcert={certificate}"
    expected = over_ssl if with_ssl else over_plain
    if expected is None:
        with pytest.raises(Unavailable):
            is_encrypted(url)
    else:
        assert is_encrypted(url) is expected


@pytest.mark.parametrize("server", ["ssl"], indirect=True)
def test_a_stranger_is_not_believed(server: tuple[int, bool], certificate: Path) -> None:
    """verify-full refuses another name, verify- modes an unknown issuer; require asks nobody."""
    port, _ = server
    by_address = f"postgresql://postgres@127.0.0.1:{port}/rdev?sslrootcert={certificate}&sslmode="
    unknown = f"postgresql://postgres@localhost:{port}/rdev?sslmode="
    assert is_encrypted(by_address + "verify-ca")
    assert is_encrypted(unknown + "require")
    for url in (by_address + "verify-full", unknown + "verify-full", unknown + "verify-ca"):
        with pytest.raises(Unavailable):
            is_encrypted(url)
