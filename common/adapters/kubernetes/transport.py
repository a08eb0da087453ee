"""Transport over exec WebSockets: the workspace is one life of one container.

A channel is only a wire. Whoever closes it, loses it or dies leaves the command running; kubelet
ends only what it started, which is the caller's end of the supervisor.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from websockets.exceptions import (
    ConnectionClosed,
    InvalidStatus,
    ProxyError,
    WebSocketException,
)
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from common.adapters.kubernetes.access import Access, Session
from common.adapters.kubernetes.api import (
    Missing,
    Refused,
    path_of,
    retry_after,
    said_by,
)
from common.adapters.kubernetes.frames import (
    ERROR,
    STDERR,
    STDIN,
    STDIN_BYTES,
    STDOUT,
    VERSIONS,
    Exited,
    RuntimeFailed,
    outcome,
)
from common.adapters.kubernetes.pods import Pods
from common.domain.command import Reason
from common.domain.discovery import Life, Pod
from common.domain.errors import Unavailable
from common.domain.workspace import Place, TransportLost, WorkspaceGone, WorkspaceUnreachable
from common.ports.dependencies import KUBERNETES, Breaker, Breakers, workspace

OPEN_S: Final = 10.0  # from connecting to the answer of the handshake
PING_S: Final = 20.0  # a wire that says nothing for twice this is lost
# A frame is 32 KiB from kubelet; what is bigger is not ours.
FRAME_BYTES: Final = 4 * 1024 * 1024
FRAMES_AHEAD: Final = 64
# After the Status, what is still on its way; kubectl waits too, and servers close by themselves.
LAST_S: Final = 2.0
STDERR_KEPT: Final = 64 * 1024


class KubernetesTransport:
    """Opens channels into pods; `runs` is where they keep their run directories."""

    def __init__(self, access: Access, pods: Pods, breakers: Breakers, runs: str) -> None:
        self._access = access
        self._pods = pods
        self._breakers = breakers
        self._runs = runs.rstrip("/")

    def runs(self, place: Place) -> str:
        """See `Transport.runs`: on a volume that outlives the container, outside the work tree."""
        return f"{self._runs}/{place.project}"

    def verify(self, place: Place) -> None:
        """See `Transport.verify`: UID, restart count and label, asked live."""
        life = _life(place)
        pod = self._pod(place, life, fresh=True)
        if life.has_left(pod, place.project):
            detail = f"pod {pod.name} is not labelled for {place.project} any more"
            raise WorkspaceGone(Reason.WORKSPACE_GONE, detail)

    def open(self, place: Place, argv: Sequence[str], stdin: bytes = b"") -> ExecChannel:
        """See `Transport.open`."""
        life = _life(place)
        breaker = self._breakers.of(workspace(place.project))
        try:
            breaker.allow()
        except Unavailable as error:
            raise WorkspaceUnreachable(error.detail) from error
        try:
            self._pod(place, life, fresh=False)
            return ExecChannel(self._connect(place, life, argv), stdin, breaker)
        except (WorkspaceGone, ServerAway):
            raise  # neither says anything about this workspace
        except (TransportLost, WorkspaceUnreachable) as error:
            breaker.failed(str(error))
            raise

    def _pod(self, place: Place, life: Life, *, fresh: bool) -> Pod:
        """The pod, while it is in the life that is meant."""
        pod = self._seen(place, life, fresh=fresh)
        if not fresh and life.ended(pod) is not None:  # what was remembered may be an earlier life
            pod = self._seen(place, life, fresh=True)
        reason = life.ended(pod)
        if reason is not None:
            raise WorkspaceGone(reason, f"pod {life.pod} is not in the life that was meant")
        return pod

    def _seen(self, place: Place, life: Life, *, fresh: bool) -> Pod:
        try:
            return self._pods.get(place.namespace, life.pod, fresh=fresh)
        except Missing as error:
            raise WorkspaceGone(Reason.POD_DELETED, f"pod {life.pod} is gone") from error
        except Refused as error:
            raise WorkspaceUnreachable(f"pod {life.pod}: {error}") from error
        except Unavailable as error:
            raise ServerAway(error.detail) from error

    def _connect(self, place: Place, life: Life, argv: Sequence[str]) -> ClientConnection:
        server = self._breakers.of(KUBERNETES)
        try:
            server.allow()
        except Unavailable as error:
            raise ServerAway(error.detail) from error
        try:
            connection = self._as_known(place, life, argv)
        except Unavailable as error:
            server.failed(error.detail)
            raise ServerAway(error.detail) from error
        except InvalidStatus as error:
            raise _refused(error, life, server) from error
        except (WebSocketException, OSError) as error:
            raise TransportLost(f"exec handshake: {type(error).__name__}: {error}") from error
        server.succeeded()
        return connection

    def _as_known(self, place: Place, life: Life, argv: Sequence[str]) -> ClientConnection:
        """A handshake; after a 401 one more, with credentials that were read anew."""
        session = self._access.session()
        try:
            return self._handshake(session, place, life, argv)
        except InvalidStatus as error:
            if error.response.status_code != 401:
                raise
        self._access.renew(session)
        return self._handshake(self._access.session(), place, life, argv)

    def _handshake(
        self, session: Session, place: Place, life: Life, argv: Sequence[str]
    ) -> ClientConnection:
        """Raises Unavailable when no connection was made, so that no request can have arrived."""
        sent = False

        class Wire(ClientConnection):
            def handshake(self, *arguments: Any, **named: Any) -> None:
                nonlocal sent
                sent = True
                super().handshake(*arguments, **named)

        headers = self._access.authorization(session)
        try:
            return connect(
                _url(session, place, life, argv),
                ssl=session.tls,
                server_hostname=session.configuration.tls_server_name,
                subprotocols=[Subprotocol(name) for name in VERSIONS],
                compression=None,
                additional_headers=headers,
                proxy=session.proxy,
                open_timeout=OPEN_S,
                ping_interval=PING_S,
                ping_timeout=PING_S,
                close_timeout=1,
                max_size=FRAME_BYTES,
                max_queue=FRAMES_AHEAD,
                create_connection=Wire,
                legacy=True,  # one connection and not a loop of them
            )
        except (ProxyError, OSError) as error:
            if sent:
                raise
            raise Unavailable(f"the Kubernetes API cannot be reached for exec: {error}") from error


class ServerAway(WorkspaceUnreachable):
    """The API server's trouble, which its own breaker counts."""


def _life(place: Place) -> Life:
    life = Life.parse(place.pod_uid)
    if life is None:
        raise WorkspaceUnreachable(f"{place.project} has no pod")
    return life


def _url(session: Session, place: Place, life: Life, argv: Sequence[str]) -> str:
    """Always with stdin: servers differ in what they do without it. Argv shows in audit logs."""
    query = [
        ("container", life.container),
        *(("command", argument) for argument in argv),
        *((stream, "true") for stream in ("stdin", "stdout", "stderr")),
    ]
    base = urlsplit(session.configuration.host)
    scheme = "wss" if base.scheme == "https" else "ws"
    path = f"{base.path.rstrip('/')}{path_of(place.namespace, 'pods', life.pod)}/exec"
    return f"{scheme}://{base.netloc}{path}?{urlencode(query)}"


def _refused(error: InvalidStatus, life: Life, server: Breaker) -> Exception:
    """What a handshake that was answered without an upgrade means."""
    response = error.response
    status, message = response.status_code, said_by(bytes(response.body or b""))
    detail = f"exec into pod {life.pod}: {status}: {message}"
    if status == 404:
        return WorkspaceGone(Reason.POD_DELETED, detail)
    if status == 429:
        server.failed(detail, retry_after(response.headers))
        return ServerAway(detail)
    # Below 500 the request was turned down; above, a proxy may have lost an answer.
    return WorkspaceUnreachable(detail) if status < 500 else TransportLost(detail)


class ExecChannel:
    """One exec call, as a Channel."""

    def __init__(self, connection: ClientConnection, stdin: bytes, breaker: Breaker) -> None:
        self._connection = connection
        self._breaker = breaker
        self._reading = threading.Lock()
        self._closed = threading.Event()
        self._ready: deque[memoryview] = deque()
        self._said = bytearray()
        self._status = b""
        self._ended: Exited | None = None
        self._answered = False
        self._last_by: float | None = None  # when a Status has come, how long to wait for the rest
        if connection.subprotocol is None:
            self._drop()
            raise TransportLost("the server speaks neither v5 nor v4 of the exec protocol")
        self._begin(stdin)

    # -- the port --------------------------------------------------------------------------------

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes | None:
        """See `Channel.read`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._reading:
            while not self._ready:
                if self._ended is not None:
                    return b""
                if not self._receive(deadline):
                    return None
            first = self._ready.popleft()
            if len(first) > max_bytes:
                self._ready.appendleft(first[max_bytes:])
            return bytes(first[:max_bytes])

    def result(self, timeout: float | None = None) -> int:
        """See `Channel.result`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._reading:
            while self._ended is None:
                self._ready.clear()
                if not self._receive(deadline):
                    raise TimeoutError
            return self._ended.code

    @property
    def stderr(self) -> bytes:
        """See `Channel.stderr`."""
        return bytes(self._said)

    def close(self) -> None:
        """See `Channel.close`."""
        if not self._closed.is_set():
            self._closed.set()
            self._drop()

    # -- the wire --------------------------------------------------------------------------------

    def _begin(self, stdin: bytes) -> None:
        """Send stdin; a long one from a thread: the far side may want to be read meanwhile."""
        if len(stdin) <= STDIN_BYTES:
            self._send(stdin)
        else:
            threading.Thread(target=self._send, args=(stdin,), daemon=True).start()

    def _send(self, stdin: bytes) -> None:
        head = bytes([STDIN])
        # What is wrong with the wire is for the reader to say, who is asked what came of the call.
        with suppress(ConnectionClosed, OSError):
            for start in range(0, len(stdin), STDIN_BYTES):
                self._connection.send(head + stdin[start : start + STDIN_BYTES])

    def _receive(self, deadline: float | None) -> bool:
        """Take one frame; False when none came in time."""
        try:
            frame = self._connection.recv(self._patience(deadline), decode=False)
        except TimeoutError:
            if self._last_by is None or time.monotonic() < self._last_by:
                return False
            self._conclude()
            return True
        except (ConnectionClosed, OSError) as error:
            self._over(error)
            return True
        self._take(frame)
        return True

    def _patience(self, deadline: float | None) -> float | None:
        if self._closed.is_set():
            raise TransportLost("the channel was closed here")
        ends = [end for end in (deadline, self._last_by) if end is not None]
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _take(self, frame: bytes) -> None:
        channel, data = (frame[0], memoryview(frame)[1:]) if frame else (STDOUT, memoryview(b""))
        if channel == ERROR:
            self._status += data
            self._last_by = time.monotonic() + LAST_S
            return
        if not data:  # servers open a channel with an empty frame
            return
        self._works()
        if channel == STDOUT:
            self._ready.append(data)
        elif channel == STDERR:
            self._said += data
            del self._said[:-STDERR_KEPT]

    def _over(self, error: Exception) -> None:
        if self._closed.is_set():
            raise TransportLost("the channel was closed here") from error
        if self._last_by is None:
            self._broke(f"the exec connection was lost: {error or type(error).__name__}")
        self._conclude()

    def _conclude(self) -> None:
        """The Status has come, and nothing will come after it."""
        match outcome(self._status):
            case Exited() as exited:
                self._works()
                self._ended = exited
                self._drop()
            case RuntimeFailed(detail):
                self._broke(f"the container runtime: {detail}")
            case None:
                self._broke(f"no status can be read: {self._status[:80]!r}")

    def _works(self) -> None:
        """The workspace has answered."""
        if not self._answered:
            self._answered = True
            self._breaker.succeeded()

    def _broke(self, detail: str) -> None:
        if not self._answered:
            self._breaker.failed(detail)
        self._drop()
        raise TransportLost(detail)

    def _drop(self) -> None:
        """Let go at once: the far side needs no goodbye, and waiting for one holds a thread."""
        self._connection.close_socket()
