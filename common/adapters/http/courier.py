"""Courier on httpcore: one guarded POST, for which no answer is too slow, too long or too odd.

httpcore and not httpx, because its network backend is where a connection is made: a host is
resolved once, every address of it is checked, and the address that was checked is the one that is
connected to (a name that changes its mind between the two is of no use to an attacker). TLS still
names and verifies the host. Nothing here follows redirects or reads proxies from the environment.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import certifi
import httpcore
from standardwebhooks import Webhook

from common.domain import receivers
from common.domain.errors import InvalidField
from common.domain.receivers import Network, Receiver
from common.domain.webhooks import HEAD_BYTES, TIMEOUT_S, Answer

IDLE_S: Final = 30.0  # that a connection waits for the next delivery
CONNECTIONS: Final = 64
SHOWN: Final = 300

_SECONDS: Final = re.compile(r"[0-9]{1,9}")


class Refused(Exception):
    """The host resolved to an address that nobody may be sent to."""


class _Deadline(threading.local):
    """When the request of this thread must be over; httpcore does all its I/O in its caller."""

    at: float = 0.0

    def left(self) -> float:
        """Seconds left. Raises ConnectTimeout when there are none."""
        left = self.at - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("timed out")
        return left


class _Stream(httpcore.NetworkStream):
    """A connection whose every wait ends at the deadline: a byte a second buys no time."""

    def __init__(self, inner: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._inner = inner
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._deadline.left())

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        inner = self._inner.start_tls(ssl_context, server_hostname, self._deadline.left())
        return _Stream(inner, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Guarded(httpcore.NetworkBackend):
    """Connects to checked addresses only."""

    def __init__(self, allowed: Sequence[Network], deadline: _Deadline) -> None:
        self._inner = httpcore.SyncBackend()
        self._allowed = allowed
        self._deadline = deadline
        self.receiver = threading.local()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = resolve(host, port)
        if not addresses:
            raise httpcore.ConnectError("the host does not resolve")
        try:
            receivers.check(self.receiver.now, addresses, self._allowed)
        except InvalidField as error:
            raise Refused(error.detail) from None
        failure: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for address in addresses:
            try:
                inner = self._inner.connect_tcp(
                    address, port, self._deadline.left(), None, [_NODELAY]
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _Stream(inner, self._deadline)
        assert failure is not None  # there was an address
        raise failure


_NODELAY: Final = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def resolve(host: str, port: int) -> list[str]:
    """Every address of a host, in the order in which to try them; none when it has none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class HttpCourier:
    """One pool of connections per process."""

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        self._allowed = allowed
        self._deadline = _Deadline()
        self._backend = _Guarded(allowed, self._deadline)
        self._pool_lock = threading.Lock()
        self._made: httpcore.ConnectionPool | None = None

    def check(self, url: str) -> None:
        receiver = receivers.parse(url)
        receivers.check(receiver, resolve(receiver.host, receiver.port), self._allowed)

    def sign(self, secret: bytes, name: str, at: datetime, body: bytes) -> str:
        return Webhook(secret.decode("ascii")).sign(name, at, body.decode("utf-8"))

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        began = time.monotonic()
        self._deadline.at = began + TIMEOUT_S
        try:
            receiver = self._backend.receiver.now = receivers.parse(url)
            status, answered, head = self._exchange(receiver, headers, body)
        except (Refused, InvalidField) as error:
            return Answer(None, _ms(began), f"refused: {error}"[:SHOWN], refused=True)
        except (httpcore.ConnectError, httpcore.ProtocolError, httpcore.NetworkError) as error:
            return Answer(None, _ms(began), _why(error))
        except httpcore.TimeoutException:
            return Answer(None, _ms(began), f"no answer within {TIMEOUT_S:g} s")
        except (OSError, ValueError) as error:
            return Answer(None, _ms(began), _why(error))
        error_text = None if 200 <= status < 300 else _named(status)
        return Answer(status, _ms(began), error_text, head, retry_after_s(answered))

    def close(self) -> None:
        """Let go of the connections."""
        if self._made is not None:
            self._made.close()

    def _exchange(
        self, receiver: Receiver, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, str, bytes]:
        url = httpcore.URL(
            scheme=receiver.scheme.encode(),
            host=receiver.host.encode(),
            port=receiver.port,
            target=receiver.target.encode(),
        )
        sent = [(b"Host", _host_header(receiver))]
        sent += [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
        sent.append((b"Content-Length", str(len(body)).encode()))
        with self._pool.stream("POST", url, headers=sent, content=body) as response:
            head = b""
            try:
                for chunk in response.iter_stream():
                    head += chunk
                    if len(head) >= HEAD_BYTES:
                        break  # leaving the block closes the connection
            except (httpcore.TimeoutException, httpcore.ProtocolError, httpcore.NetworkError):
                pass  # the status says what became of it; a body that breaks off changes nothing
            asked = {n.lower(): v for n, v in response.headers}.get(b"retry-after", b"")
            return response.status, asked.decode("latin-1"), head[:HEAD_BYTES]

    @property
    def _pool(self) -> httpcore.ConnectionPool:
        with self._pool_lock:
            if self._made is None:
                self._made = httpcore.ConnectionPool(
                    ssl_context=_tls(),
                    max_connections=CONNECTIONS,
                    max_keepalive_connections=CONNECTIONS,
                    keepalive_expiry=IDLE_S,
                    network_backend=self._backend,
                )
            return self._made


def _tls() -> ssl.SSLContext:
    """The system's authorities (SSL_CERT_FILE adds an own one) and those that are known to all."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _host_header(receiver: Receiver) -> bytes:
    host = f"[{receiver.host}]" if ":" in receiver.host else receiver.host
    usual = receivers.PORTS[receiver.scheme] == receiver.port
    return (host if usual else f"{host}:{receiver.port}").encode("ascii")


def retry_after_s(text: str) -> float | None:
    """Seconds that Retry-After asks for, as a number or as a date; None when it asks nothing."""
    text = text.strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


def _named(status: int) -> str:
    return "redirects are not followed" if 300 <= status < 400 else f"it answered {status}"


def _why(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:SHOWN]


def _ms(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
