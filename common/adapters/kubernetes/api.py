"""Plain calls to the API server: raw JSON, timeouts on everything, one breaker before all of it.

Refused          the server answered something else than what was asked for
├── Missing      404
└── Gone         410: a list's continuation or a watch's position is too old
Unavailable      (domain) the server cannot be asked now
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final
from urllib.parse import quote, urlencode

import urllib3
from kubernetes.client.exceptions import ApiException

from common.adapters.kubernetes.access import Access, Session
from common.domain.errors import Unavailable
from common.ports.dependencies import Breaker

CONNECT_S: Final = 3.0
READ_S: Final = 10.0
PAGE: Final = 500  # objects a list asks for at once, as kubectl does
_LINE_BYTES: Final = 64 * 1024
_SAID_CHARS: Final = 300

Query = Mapping[str, str]


class Refused(Exception):
    """The server's answer was a failure of the call, not of the server."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Missing(Refused):
    pass


class Gone(Refused):
    pass


class Api:
    """Thread-safe."""

    def __init__(self, access: Access, breaker: Breaker) -> None:
        self.access = access
        self._breaker = breaker

    @property
    def namespace(self) -> str:
        """Where the workspaces are. Raises Unavailable."""
        with self._judged():
            return self.access.namespace

    def get(self, path: str, query: Query | None = None) -> dict[str, Any]:
        """One object or one page. Raises Refused, Unavailable."""
        self._breaker.allow()
        with self._judged():
            answer = self._ask(path, query or {}, READ_S)
            try:
                found: dict[str, Any] = json.loads(answer.data)
            except ValueError as error:
                raise Unavailable(f"the Kubernetes API answers no JSON at {path}") from error
        self._breaker.succeeded()
        return found

    def list_all(self, path: str, query: Query | None = None) -> tuple[list[dict[str, Any]], str]:
        """All objects, page by page, and the resourceVersion they were read at.

        A continuation that expired is answered by starting over: half of an old list and half of a
        new one would be neither.
        """
        for _ in range(3):
            try:
                return self._list_once(path, dict(query or {}))
            except Gone:
                continue
        raise Unavailable(f"lists of {path} expire while they are read")

    @contextmanager
    def watch(self, path: str, query: Query, read_s: float) -> Iterator[Watching]:
        """The events of one watch until the server ends it. Raises Refused, Unavailable."""
        self._breaker.allow()
        with self._judged():
            answer = self._ask(path, {**query, "watch": "1"}, read_s)
        self._breaker.succeeded()
        try:
            with self._judged():
                yield Watching(answer)
        finally:
            answer.close()  # what is left unread would be taken for the next answer

    def _list_once(self, path: str, query: dict[str, str]) -> tuple[list[dict[str, Any]], str]:
        query["limit"] = str(PAGE)
        found: list[dict[str, Any]] = []
        while True:
            page = self.get(path, query)
            found += page.get("items") or []
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return found, str(metadata.get("resourceVersion", ""))
            query["continue"] = metadata["continue"]

    def _ask(self, path: str, query: Query, read_s: float) -> Any:
        """One answer with status 200, its body not yet read."""
        session = self.access.session()
        answer = self._send(session, path, query, read_s)
        if answer.status == 401:
            answer.release_conn()
            self.access.renew(session)
            answer = self._send(self.access.session(), path, query, read_s)
        if answer.status == 200:
            return answer
        raise self._refusal(answer)

    def _send(self, session: Session, path: str, query: Query, read_s: float) -> Any:
        url = f"{session.configuration.host}{path}"
        if query:
            url += "?" + urlencode(query)
        headers = {"accept": "application/json", **self.access.authorization(session)}
        client = self.access.client(session)
        for last in (False, True):
            try:
                return client.call_api(
                    "GET", url, header_params=headers, _request_timeout=(CONNECT_S, read_s)
                ).response
            except urllib3.exceptions.ProtocolError:
                # A kept connection that the server was just closing; a second time it is trouble.
                if last:
                    raise
        raise AssertionError

    def _refusal(self, answer: Any) -> Exception:
        status, message = answer.status, said_by(answer.data)
        if status == 429 or status >= 500:
            after = retry_after(answer.headers)
            self._breaker.failed(f"{status}: {message}", after)
            # Counted: not to be counted again by `_judged`.
            return _Counted(
                f"the Kubernetes API answers {status}: {message}", retry_after=int(after or 2)
            )
        self._breaker.succeeded()
        kind = {404: Missing, 410: Gone}.get(status, Refused)
        return kind(status, message)

    @contextmanager
    def _judged(self) -> Iterator[None]:
        """What keeps us from an answer that can be read counts against the server."""
        try:
            yield
        except _Counted:
            raise
        except Unavailable as error:
            self._breaker.failed(error.detail)
            raise
        except (urllib3.exceptions.HTTPError, ApiException, OSError) as error:
            detail = f"{type(error).__name__}: {error}"[:_SAID_CHARS]
            self._breaker.failed(detail)
            raise Unavailable(f"the Kubernetes API cannot be reached: {detail}") from error


class _Counted(Unavailable):
    """The breaker knows already."""


class Watching:
    """An open watch."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            for line in _lines(self._answer):
                yield json.loads(line)
        except ValueError as error:
            raise Unavailable("a watch was cut in the middle of an event") from error

    def hang_up(self) -> None:
        """Make whoever reads it stop; from any thread."""
        with suppress(OSError, ValueError, RuntimeError):  # it has ended already
            self._answer.shutdown()


def path_of(namespace: str, plural: str, name: str = "") -> str:
    """The address of an object or of a collection."""
    path = f"/api/v1/namespaces/{quote(namespace, safe='')}/{plural}"
    return f"{path}/{quote(name, safe='')}" if name else path


def retry_after(headers: Any) -> float | None:
    """Seconds to stay away, when the server says so; it says seconds, never a date."""
    text = headers.get("retry-after") or ""
    return min(float(text), 300.0) if text.isdecimal() else None


def said_by(body: bytes) -> str:
    """The message of a Status object, or the beginning of whatever came instead."""
    try:
        found = json.loads(body)
        return str(found["message"])[:_SAID_CHARS]
    except (ValueError, KeyError, TypeError):
        return body[:_SAID_CHARS].decode("utf-8", "replace")


def _lines(answer: Any) -> Iterator[bytes]:
    rest = b""
    while chunk := answer.read1(_LINE_BYTES):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line.strip())
    if rest.strip():
        yield rest
