"""The HTTP side: discovery for kubectl, objects, lists, watches, exec, and how tests steer it."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, fields
from typing import Any, Final
from weakref import WeakSet

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from tests.fake_kubernetes.execs import TRUE, Exec
from tests.fake_kubernetes.faults import Faults
from tests.fake_kubernetes.pods import Pod, environment
from tests.fake_kubernetes.store import (
    KINDS,
    ApiError,
    Change,
    Object,
    Store,
    matches_fields,
    matches_labels,
    now,
)

BOOKMARK_S: Final = 1.0
VERBS: Final = ["create", "delete", "get", "list", "update", "watch"]
Answer = Callable[["Api", Request], Awaitable[Response]]


class Api:
    """The state behind the routes."""

    def __init__(self) -> None:
        self.store = Store()
        self.faults = Faults()
        self.pods: dict[str, Pod] = {}  # by uid
        self.transports: WeakSet[Any] = WeakSet()  # of every connection but the tests' own
        self._snapshots: dict[str, tuple[int, list[Object]]] = {}  # of lists being read, by token
        self.seen: Counter[str] = Counter()

    async def close(self) -> None:
        await asyncio.gather(*(pod.end() for pod in self.pods.values()))
        self.pods.clear()

    # -- objects -------------------------------------------------------------------------------

    async def collection(self, request: Request) -> Response:
        plural, namespace = request.path_params["plural"], request.path_params["namespace"]
        if request.method == "POST":
            self.seen["create"] += 1
            made = await self.store.create(plural, namespace, await request.json())
            if plural == "pods":
                await self._kubelet(made)
            return JSONResponse(self.store.get(plural, namespace, made["metadata"]["name"]), 201)
        if request.query_params.get("watch") in TRUE:
            self.seen["watch"] += 1
            return self._watch(request, plural, namespace)
        self.seen["list"] += 1
        return self._list(request, plural, namespace)

    async def item(self, request: Request) -> Response:
        p = request.path_params
        plural, namespace, name = p["plural"], p["namespace"], p["name"]
        if request.method == "DELETE":
            return JSONResponse(await self._delete(plural, namespace, name))
        if request.method == "PUT":
            return JSONResponse(
                await self.store.update(plural, namespace, name, await request.json())
            )
        self.seen["get"] += 1
        return JSONResponse(self.store.get(plural, namespace, name))

    async def _delete(self, plural: str, namespace: str, name: str) -> Object:
        gone = await self.store.delete(plural, namespace, name)
        pod = self.pods.pop(gone["metadata"]["uid"], None)
        if pod is not None:
            await pod.end()
        return gone

    async def _kubelet(self, made: Object) -> None:
        """Run the pod, unless its annotations say that it stays Pending."""
        metadata = made["metadata"]
        notes = metadata.get("annotations") or {}
        if notes.get("fake/pending"):
            await self._set_status(made, "Pending", ready=False)
            return
        volumes = list(filter(None, notes.get("fake/volumes", "").split(",")))
        more = json.loads(notes.get("fake/env", "{}"))
        env = environment(metadata["name"], notes.get("fake/home", "/"), more)
        self.pods[metadata["uid"]] = Pod(env, volumes)
        await self._set_status(made, "Running", ready=not notes.get("fake/unready"))

    async def _set_status(self, made: Object, phase: str, *, ready: bool) -> None:
        containers = made["spec"]["containers"]

        def edit(pod: Object) -> None:
            restarts = (
                pod.get("status", {}).get("containerStatuses", [{}])[0].get("restartCount", 0)
            )
            pod["status"] = {
                "phase": phase,
                "startTime": now(),
                "conditions": [{"type": "Ready", "status": str(ready)}],
                "containerStatuses": [
                    {
                        "name": c["name"],
                        "ready": ready,
                        "restartCount": restarts,
                        "state": {"running": {}} if phase == "Running" else {"waiting": {}},
                    }
                    for c in containers
                ],
            }

        metadata = made["metadata"]
        await self.store.patch("pods", metadata["namespace"], metadata["name"], edit)

    # -- lists and watches ---------------------------------------------------------------------

    def _list(self, request: Request, plural: str, namespace: str) -> Response:
        query = request.query_params
        version, found = self.store.version, self._matching(plural, namespace, query)
        if token := query.get("continue"):
            if self.faults.pages_expire or token not in self._snapshots:
                raise ApiError(410, "Expired", "the continue token has expired")
            version, found = self._snapshots.pop(token)  # later pages are as old as the first
        limit = min(filter(None, (int(query.get("limit") or 0), self.faults.page)), default=0)
        page, rest = (found[:limit], found[limit:]) if limit else (found, [])
        metadata = {"resourceVersion": str(version)}
        if rest:
            metadata["continue"] = uuid.uuid4().hex
            self._snapshots[metadata["continue"]] = version, rest
        kind = f"{KINDS[plural]}List"
        return JSONResponse({"apiVersion": "v1", "kind": kind, "metadata": metadata, "items": page})

    def _matching(self, plural: str, namespace: str, query: Any) -> list[Object]:
        return [
            made
            for (kind, where, _), made in sorted(self.store.objects.items())
            if (kind, where) == (plural, namespace) and _selected(made, query)
        ]

    def _watch(self, request: Request, plural: str, namespace: str) -> Response:
        since = int(request.query_params.get("resourceVersion") or 0)
        if since and since < self.store.oldest:
            raise ApiError(410, "Expired", f"too old resource version: {since}")
        lines = self._events(request.query_params, plural, namespace, since)
        return StreamingResponse(_cut(lines, request.scope), media_type="application/json")

    async def _events(
        self, query: Any, plural: str, namespace: str, since: int
    ) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        ends = loop.time() + float(query.get("timeoutSeconds") or 300)
        position, sent = since or self.store.version, 0
        if not since:
            for made in self._matching(plural, namespace, query):
                yield _line("ADDED", made)
        while loop.time() < ends:
            if self.faults.down:
                raise ConnectionAbortedError
            if self.faults.watch_gone:
                self.faults.watch_gone = False
                yield _line("ERROR", _status(410, "Expired", "too old resource version"))
                return
            news = [] if self.faults.watch_stall else self._news(plural, namespace, position)
            for change in news:
                position = change.version
                if (line := _seen_as(change, query)) is not None:
                    yield line
                    sent += 1
                    if self.faults.watch_drop_every and sent >= self.faults.watch_drop_every:
                        raise ConnectionAbortedError
            if (
                not news
                and query.get("allowWatchBookmarks") in TRUE
                and not self.faults.watch_stall
            ):
                position = self.store.version
                yield _bookmark(plural, position)
            seen = self.store.version if self.faults.watch_stall else position
            await self._next_change(seen, min(BOOKMARK_S, max(0.0, ends - loop.time())))

    def _news(self, plural: str, namespace: str, position: int) -> list[Change]:
        return [
            c
            for c in self.store.history
            if c.version > position
            and c.plural == plural
            and c.object["metadata"]["namespace"] == namespace
        ]

    async def _next_change(self, position: int, seconds: float) -> None:
        if self.store.version > position:
            return
        try:
            async with asyncio.timeout(seconds), self.store.changed:
                await self.store.changed.wait()
        except TimeoutError:
            return

    # -- exec ----------------------------------------------------------------------------------

    async def exec(self, socket: WebSocket) -> None:
        self.seen["exec"] += 1
        namespace, name = socket.path_params["namespace"], socket.path_params["name"]
        here = not self.faults.exec_pods or name in self.faults.exec_pods
        faults = self.faults if here else Faults()
        try:
            made = self.store.get("pods", namespace, name)
            if faults.exec_stall:
                await asyncio.sleep(3600)
            if faults.exec_status:
                raise ApiError(faults.exec_status, "Refused", "exec is refused")
            pod = self.pods.get(made["metadata"]["uid"])
            if pod is None:
                raise ApiError(400, "BadRequest", f"pod {name} does not have a host assigned")
            _require_container(made, socket.query_params)
        except ApiError as error:
            await socket.send_denial_response(_refusal(error, self.faults))
            return
        argv = socket.query_params.getlist("command")
        await Exec(socket, pod, faults).run(argv, socket.query_params)

    # -- how tests steer it --------------------------------------------------------------------

    async def steer(self, request: Request) -> Response:
        """GET: what was asked so far. POST: `faults` to set, `compact`, or a pod to change."""
        if request.method == "POST":
            wanted = await request.json()
            if "faults" in wanted:
                known = {f.name for f in fields(Faults)}
                assert wanted["faults"].keys() <= known
                self.faults = Faults(**wanted["faults"])
                if self.faults.down:
                    for transport in self.transports - {request.scope["extensions"]["transport"]}:
                        transport.abort()
                await self.store.wake()
            if wanted.get("compact"):
                self.store.compact()
            if "restart" in wanted:
                await self._restart(*wanted["restart"])
            if "status" in wanted:
                namespace, name, phase, ready = wanted["status"]
                await self._set_status(self.store.get("pods", namespace, name), phase, ready=ready)
            if "delete" in wanted:
                await self._delete("pods", *wanted["delete"])
            if "reset" in wanted:
                await self._reset()
        return JSONResponse({"seen": self.seen, "faults": asdict(self.faults)})

    async def _restart(self, namespace: str, name: str) -> None:
        made = self.store.get("pods", namespace, name)
        await self.pods[made["metadata"]["uid"]].restart()

        def edit(pod: Object) -> None:
            for status in pod["status"]["containerStatuses"]:
                status["restartCount"] += 1

        await self.store.patch("pods", namespace, name, edit)

    async def _reset(self) -> None:
        self.faults = Faults()
        self.seen.clear()
        for plural, namespace, name in list(self.store.objects):
            await self.store.delete(plural, namespace, name)
        await self.close()


def _require_container(made: Object, query: Any) -> None:
    names = [c["name"] for c in made["spec"]["containers"]]
    wanted = query.get("container") or names[0]
    if wanted not in names:
        raise ApiError(400, "BadRequest", f"container {wanted} is not valid for the pod")


def _selected(made: Object, query: Any) -> bool:
    return matches_labels(made, query.get("labelSelector", "")) and matches_fields(
        made, query.get("fieldSelector", "")
    )


def _seen_as(change: Change, query: Any) -> bytes | None:
    """The change as a watch with this selector sees it: it may come into view or leave it."""
    here = _selected(change.object, query)
    before = change.before is not None and _selected(change.before, query)
    if change.type == "DELETED":
        return _line("DELETED", change.object) if before else None
    if here:
        return _line("MODIFIED" if before else "ADDED", change.object)
    return _line("DELETED", change.object) if before else None


def _line(kind: str, made: Object) -> bytes:
    return json.dumps({"type": kind, "object": made}).encode() + b"\n"


def _bookmark(plural: str, version: int) -> bytes:
    metadata = {"resourceVersion": str(version)}
    return _line("BOOKMARK", {"apiVersion": "v1", "kind": KINDS[plural], "metadata": metadata})


def _status(code: int, reason: str, message: str) -> Object:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


def _refusal(error: ApiError, faults: Faults) -> Response:
    headers = {"retry-after": faults.retry_after} if faults.retry_after else {}
    return JSONResponse(_status(error.code, error.reason, error.message), error.code, headers)


async def _cut(lines: AsyncIterator[bytes], scope: Scope) -> AsyncIterator[bytes]:
    try:
        async for line in lines:
            yield line
    except ConnectionAbortedError:
        await asyncio.sleep(0)  # what was yielded is written first
        scope["extensions"]["transport"].abort()


class Gate:
    """Before any route: API server down, wrong token, refused requests."""

    def __init__(self, inner: ASGIApp, api: Api) -> None:
        self._inner = inner
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        faults = self._api.faults
        if scope["type"] == "lifespan" or scope["path"] == "/_fake":
            await self._inner(scope, receive, send)
            return
        transport = scope["extensions"]["transport"]
        if transport not in self._api.transports:
            self._api.transports.add(transport)
            self._api.seen["connection"] += 1
        if faults.down:
            scope["extensions"]["transport"].abort()
            return
        error = self._refused(scope)
        if error is None:
            await self._inner(scope, receive, send)
        elif isinstance(error, _Stall):
            await _stall(error, send)
        elif scope["type"] == "websocket":
            await receive()
            await WebSocket(scope, receive, send).send_denial_response(_refusal(error, faults))
        else:
            await _refusal(error, faults)(scope, receive, send)

    def _refused(self, scope: Scope) -> ApiError | None:
        faults = self._api.faults
        given = dict(scope["headers"]).get(b"authorization", b"").decode()
        if faults.token and given.lower() != f"bearer {faults.token}".lower():
            self._api.seen["401"] += 1
            return ApiError(401, "Unauthorized", "Unauthorized")
        if faults.certificate and _shown_name(scope) != faults.certificate:
            self._api.seen["401"] += 1
            return ApiError(401, "Unauthorized", "Unauthorized")
        if faults.stall and scope["type"] == "http":
            return _Stall(0, "", faults.stall)
        if faults.status and scope["type"] == "http":
            if faults.status_times == 1:
                faults.status, faults.status_times = 0, 0
                return ApiError(429, "TooManyRequests", "once more")
            faults.status_times -= bool(faults.status_times)
            return ApiError(faults.status, "Refused", "refused by the test")
        return None


class _Stall(ApiError):
    """No answer at all; its message says from where on."""


async def _stall(stall: _Stall, send: Send) -> None:
    if stall.message == "body":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})
    await asyncio.sleep(3600)


def _shown_name(scope: Scope) -> str | None:
    """The common name of the client's certificate."""
    shown = scope["extensions"]["transport"].get_extra_info("peercert") or {}
    names = [dict(part) for part in shown.get("subject", ())]
    return next((name["commonName"] for name in names if "commonName" in name), None)


def application(api: Api) -> ASGIApp:
    """The ASGI app."""

    async def discovery(request: Request) -> Response:
        return JSONResponse(_DISCOVERY[request.url.path])

    async def failed(_request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return _refusal(error, api.faults)

    objects = "/api/v1/namespaces/{namespace}/{plural:plural}"
    app = Starlette(
        routes=[
            *(Route(path, discovery) for path in _DISCOVERY),
            Route("/_fake", api.steer, methods=["GET", "POST"]),
            WebSocketRoute("/api/v1/namespaces/{namespace}/pods/{name}/exec", api.exec),
            *(
                route
                for plural in KINDS
                for route in (
                    Route(
                        objects.replace("{plural:plural}", plural),
                        _with_plural(api.collection, plural),
                        methods=["GET", "POST"],
                    ),
                    Route(
                        objects.replace("{plural:plural}", plural) + "/{name}",
                        _with_plural(api.item, plural),
                        methods=["GET", "PUT", "DELETE"],
                    ),
                )
            ),
        ],
        exception_handlers={ApiError: failed},
    )
    return Gate(app, api)


def _with_plural(
    handler: Callable[[Request], Awaitable[Response]], plural: str
) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        request.path_params["plural"] = plural
        return await handler(request)

    return handle


_DISCOVERY: Final[dict[str, Object]] = {
    "/version": {"major": "1", "minor": "32", "gitVersion": "v1.32.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {
        "kind": "APIResourceList",
        "groupVersion": "v1",
        "resources": [
            {
                "name": plural,
                "singularName": kind.lower(),
                "namespaced": True,
                "kind": kind,
                "verbs": VERBS,
            }
            for plural, kind in KINDS.items()
        ],
    },
}
