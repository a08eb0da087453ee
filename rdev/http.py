"""HTTP as rdev speaks it: every request is safe to repeat, and is repeated until a bound.

A request whose answer was lost may have been carried out. Reading, revoking and cancelling can be
asked again by nature; everything that creates carries an Idempotency-Key, so that the server
answers the repetition with the first result. This module alone knows httpx, and is imported only
when a request is made: it costs a tenth of a second that `rdev --help` need not pay.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlencode, urlsplit

import httpx

from rdev import problems
from rdev.errors import CliError, NotAllowed, ServerFault, StreamBroken, StreamEnded, Unreachable
from rdev.retry import FIRST_CONTACT_S, REQUEST_S, Backoff, Clock
from rdev.settings import Server

CONNECT_S: Final = 10.0
READ_S: Final = 60.0
"""A function that starts from zero answers within a few seconds; the platform cuts at 60 s."""
PAGE_ITEMS: Final = 200
"""The largest page that the server gives."""
SIZE_HEADER: Final = "rdev-output-size"
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_STREAM_REFUSALS: Final = frozenset({400, 401, 403, 404, 405, 410, 422})


@dataclass(frozen=True, slots=True)
class Answer:
    """A response that was read to its end. `json` is None for an empty body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON.

        Raises ServerFault when it is not: then it was not rdev that answered.
        """
        try:
            return json.loads(self.body) if self.body else None
        except ValueError as error:
            raise ServerFault("the server's answer is not JSON; is this an rdev server?") from error

    @property
    def object(self) -> dict[str, Any]:
        """The body as a JSON object; raises ServerFault when it is none."""
        value = self.json
        if not isinstance(value, dict):
            raise ServerFault("the server's answer is not a JSON object")
        return value


@dataclass(frozen=True, slots=True)
class StoredOutput:
    """A part of a stored output, and how many bytes the whole has now if the server says so."""

    size: int | None
    pieces: Iterator[bytes]


class Api:
    """One server and one key. Usable from several threads; close it when done."""

    def __init__(
        self,
        server: Server,
        *,
        clock: Clock | None = None,
        tell: Callable[[str], None] = lambda _: None,
        bound_s: float = REQUEST_S,
    ) -> None:
        """`tell` gets a sentence whenever we wait, for the person at the terminal.

        A request is repeated for `bound_s` seconds, for less while nobody has ever answered.
        Raises NotAllowed without a usable key.
        """
        if server.api_key is None:
            raise NotAllowed(
                f"there is no API key for {server.url}",
                hint="set RDEV_API_KEY, or run `rdev login`",
            )
        if not (server.api_key.isascii() and server.api_key.isprintable()):
            raise NotAllowed(f"what {server.key_source} holds cannot be an API key")
        self.server = server
        self._clock = clock or Clock()
        self._tell = tell
        self._bound_s = bound_s
        self._answered = False
        self._client = _client(server, server.api_key)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def get(self, path: str, params: Mapping[str, str] | None = None) -> Answer:
        """GET; raises a CliError unless the answer is a success."""
        return self._request("GET", path, params=params)

    def get_all(self, path: str, params: Sequence[tuple[str, str]]) -> Answer:
        """GET with parameters that may come more than once."""
        return self._request("GET", f"{path}?{urlencode(params)}" if params else path)

    def get_waiting(self, path: str, seconds: int) -> Answer:
        """GET that the server may hold until the resource has ended (RFC 7240, `Prefer: wait`)."""
        return self._request("GET", path, headers={"Prefer": f"wait={seconds}"})

    def delete(self, path: str, *, if_match: str | None = None) -> Answer:
        """DELETE; a 404 on a repetition is the success whose answer was lost."""
        return self._request("DELETE", path, headers=_condition(if_match), gone_is_done=True)

    def put(self, path: str, body: Mapping[str, Any], *, if_match: str) -> Answer:
        """PUT over one version; a repetition of what was done already is done again in peace."""
        return self._request("PUT", path, content=_encoded(body), headers=_condition(if_match))

    def post(
        self, path: str, body: Mapping[str, Any] | None = None, *, kind: str | None = None
    ) -> Answer:
        """POST to something that is harmless to ask twice (cancel); `kind` is the media type."""
        headers = {} if kind is None else {"Content-Type": kind}
        return self._request("POST", path, content=_encoded(body), headers=headers)

    def patch(self, path: str, body: Mapping[str, Any], *, if_match: str | None = None) -> Answer:
        """PATCH; asking twice comes to the same, or is refused with the ETag of before."""
        return self._request("PATCH", path, content=_encoded(body), headers=_condition(if_match))

    def create(self, path: str, body: Mapping[str, Any] | None, *, starting: bool) -> Answer:
        """POST that creates; one Idempotency-Key for all repetitions, so it happens once.

        `starting`: what is created is a command, so a refusal is a `Refused`.
        """
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return self._request(
            "POST", path, content=_encoded(body), headers=headers, starting=starting
        )

    def pages(self, path: str, params: Mapping[str, str], *, limit: int) -> Iterator[Any]:
        """Up to `limit` items of a list, page by page."""
        asked, left = dict(params), limit
        if limit <= PAGE_ITEMS:
            # Else the server's own page size is as good as ours.
            asked["limit"] = str(limit)
        while left > 0:
            page = self.get(path, asked).object
            items = page.get("items")
            if not isinstance(items, list):
                raise ServerFault(f"{path} did not answer with a list")
            yield from items[:left]
            left -= len(items)
            cursor = page.get("next_cursor")
            if not cursor or not items:
                return
            asked["cursor"] = str(cursor)

    def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        starting: bool = False,
        gone_is_done: bool = False,
    ) -> Answer:
        request = self._client.build_request(
            method, path, params=params, content=content, headers=_headers(content, headers)
        )
        first_s = min(FIRST_CONTACT_S, self._bound_s)
        backoff = Backoff(self._clock, self._bound_s if self._answered else first_s)
        answer_lost = False
        while True:
            try:
                answer = _read(self._client.send(request))
            except httpx.RequestError as error:
                answer_lost = True
                failure: CliError = _unreachable(self.server, error)
                asked_s = None
            else:
                backoff.bound_s, self._answered = self._bound_s, True
                if 200 <= answer.status < 300:
                    return answer
                if answer_lost and gone_is_done and answer.status == httpx.codes.NOT_FOUND:
                    return answer
                failure = problems.of_response(answer.status, answer.body, starting=starting)
                if not problems.may_be_repeated(answer.status, answer.body):
                    raise failure
                asked_s = problems.retry_after_s(answer.headers.get("retry-after"))
            self._wait(backoff, failure, asked_s)

    def _wait(self, backoff: Backoff, failure: CliError, asked_s: float | None) -> None:
        delay = backoff.next_delay(asked_s)
        if delay is None:
            raise failure
        self._tell(f"{failure}; trying again, for at most {max(backoff.remaining_s, 0):.0f} s more")
        self._clock.pause(delay)

    @contextmanager
    def stream(self, path: str, last_id: str, *, idle_s: float) -> Iterator[Iterator[bytes]]:
        """Open an event stream after `last_id` and read its bytes as they come.

        `idle_s` without a byte, heartbeats included, means that the connection is dead.
        Raises StreamEnded on 204, StreamBroken for what another attempt may mend, and a CliError
        for a refusal that no attempt will.
        """
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        if last_id:
            headers["Last-Event-ID"] = last_id
        timeout = httpx.Timeout(CONNECT_S, read=idle_s)
        try:
            with self._client.stream("GET", path, headers=headers, timeout=timeout) as response:
                self._answered = True
                _require_event_stream(response)
                yield response.iter_raw()
        except httpx.TransportError as error:
            raise StreamBroken(_why(error)) from error

    def output_size(self, path: str, stream: str) -> int | None:
        """How many bytes of a stream are stored now; None when the server does not say."""
        answer = self.get(path, {"stream": stream, "offset": "0", "limit": "1"})
        return _size(answer.headers)

    @contextmanager
    def output(self, path: str, params: Mapping[str, str]) -> Iterator[StoredOutput]:
        """A stored output from an offset; no bytes when the offset is its end.

        Raises StreamBroken when the connection failed or the server asks for patience: what was
        read so far stands, ask again behind it.
        """
        headers = {"Accept": "text/plain, */*", "Accept-Encoding": "identity"}
        try:
            with self._client.stream("GET", path, params=params, headers=headers) as response:
                self._answered = True
                if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                    yield StoredOutput(None, iter(()))
                    return
                if response.status_code != httpx.codes.OK:
                    _refuse(response)
                yield StoredOutput(_size(response.headers), response.iter_raw())
        except httpx.TransportError as error:
            raise StreamBroken(_why(error)) from error


def probe(server: Server, path: str) -> Answer:
    """GET without a key, tried once: whatever is answered.

    Raises Unreachable when nothing is.
    """
    with _client(server, None) as client:
        try:
            return _read(client.get(path))
        except httpx.RequestError as error:
            raise _unreachable(server, error) from error


def _unreachable(server: Server, error: httpx.RequestError) -> Unreachable:
    return Unreachable(
        f"cannot reach {server.url} (from {server.source}): {_why(error)}",
        hint="`rdev doctor` says what is wrong",
    )


def _client(server: Server, key: str | None) -> httpx.Client:
    parts = urlsplit(server.url)
    authorization = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx.Client(
        base_url=server.url,
        headers={**authorization, "User-Agent": "rdev-cli"},
        timeout=httpx.Timeout(READ_S, connect=CONNECT_S),
        # Building a TLS context takes 50 ms, which plain http never uses; there are no redirects
        # that could lead to https.
        verify=parts.scheme == "https",
        follow_redirects=False,
        # A proxy from the environment can only be wrong for this very machine.
        trust_env=parts.hostname not in _LOOPBACK,
    )


def _size(headers: Mapping[str, str]) -> int | None:
    text = headers.get(SIZE_HEADER, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _condition(if_match: str | None) -> dict[str, str]:
    """If-Match; an ETag may be given without its quotes."""
    if if_match is None:
        return {}
    bare = if_match == "*" or if_match.endswith('"')
    return {"If-Match": if_match if bare else f'"{if_match}"'}


def _encoded(body: Mapping[str, Any] | None) -> bytes | None:
    return None if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8")


def _headers(content: bytes | None, more: Mapping[str, str] | None) -> dict[str, str]:
    kind = {} if content is None else {"Content-Type": "application/json"}
    return {"Accept": "application/json", **kind, **(more or {})}


def _read(response: httpx.Response) -> Answer:
    return Answer(response.status_code, response.headers, response.content)


def _require_event_stream(response: httpx.Response) -> None:
    if response.status_code == httpx.codes.NO_CONTENT:
        raise StreamEnded
    if response.status_code != httpx.codes.OK:
        _refuse(response)
    kind = response.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "text/event-stream":
        raise ServerFault(f"the stream answered {kind or 'nothing'}; is this an rdev server?")


def _refuse(response: httpx.Response) -> None:
    body = response.read()
    error = problems.of_response(response.status_code, body, starting=False)
    if response.status_code in _STREAM_REFUSALS or response.status_code < 400:
        raise error
    asked_s = problems.retry_after_s(response.headers.get("retry-after"))
    raise StreamBroken(str(error), retry_after_s=asked_s)


def _why(error: httpx.RequestError) -> str:
    if isinstance(error, httpx.ReadTimeout):
        return "it has been silent for too long"
    if isinstance(error, httpx.RemoteProtocolError):
        return "the connection was cut"
    return str(error) or type(error).__name__
