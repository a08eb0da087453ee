"""openapi.json (OpenAPI 3.1) from the declared routes and the wire models.

What a declaration does not say follows from it by rule: a route with scopes may answer 401, 403 and
429, one with a body 400, 413, 415 and 422, one that waits takes `Prefer`, and so on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter

from common.domain import errors, identifiers
from common.domain.errors import RdevError
from common.domain.project import NAME
from common.entrypoints import problem
from common.entrypoints.function import Function, Route
from common.entrypoints.http import IDEMPOTENCY_KEY
from common.entrypoints.models import resources

PATH: Final = PurePosixPath("functions/reference/openapi.json")
_NOTE: Final = "by `python -m infra.generate` from functions/*/main.py: do not edit"
_SCHEMA: Final = "#/components/schemas/"

_DESCRIPTION: Final = """\
rdev runs `claude`, shell and git commands in long-lived project workspaces, queues them fairly, \
streams their output and reports what really happened.

Send the key as `Authorization: Bearer rdev_…` or `X-API-Key`, never in a URL. Bodies and answers \
are JSON; an unknown field in a body or query is an error. A refusal is `application/problem+json` \
(RFC 9457); decide by its `code`. What belongs to a project that the key may not see answers 404, \
as what never was.

Lists have pages: `next_cursor` of one is `cursor` of the next, null on the last. A creation that \
may be sent again carries an `Idempotency-Key`. Every answer names its request in `X-Request-Id`, \
and takes yours if it is 1 to 64 of `A-Z a-z 0-9 _ . : -`."""

_ID: Final = re.compile(r"[a-z]{3}_[0-9a-f]{32}")
_ID_PATTERN: Final = "^{}_[0-9a-f]{{32}}$"
_TAG: Final = r'^(\*|"[!#-~]+")$'  # a list of them is possible too
_PARAMETERS: Final = {
    "action": "only this action, such as `key.revoked`",
    "after": "like `Last-Event-ID`, for clients that cannot set it; the header wins",
    "by": "what the sums are told apart by: project, key, model, day; may be repeated",
    "cursor": "`next_cursor` of the page before",
    "event_type": "only of these types; may be repeated",
    "key": "only of this key",
    "kind": "only these kinds; may be repeated",
    "label": "only with these labels, each `name=value`; may be repeated, all must match",
    "limit": "at most this many",
    "model": "only with this model",
    "offset": "from this byte on",
    "output": "`1`: output too, not only changes of state",
    "outcome": "only `submitted`, or only `refused`",
    "project": "only in these projects; may be repeated",
    "reason": "only with this reason, such as `no_trigger`",
    "replayed": "`true`: only what was replayed; `false`: only what was not",
    "since": "from this moment on",
    "source": "only from this source",
    "state": "only in these states; may be repeated",
    "stream": "`merged`, or `stdout` and `stderr` where they are kept apart",
    "type": "only of this type",
    "target": "only of this thing, by its id or name",
    "until": "before this moment",
    "validate": "`lenient` writes in spite of what is wrong with the frontmatter",
}
_PATH_PARAMETERS: Final = {
    ("commands", "id"): ("cmd_0190f3c2a4b87c0e9a5d1f2e3c4b5a69", "the command's id"),
    ("commands", "tool_use_id"): ("toolu_01A09q90qw90lq917835lq9", "claude's id of the tool use"),
    ("stream", "id"): ("cmd_0190f3c2a4b87c0e9a5d1f2e3c4b5a69", "the command's id"),
    ("keys", "id"): ("key_0190f3c2a4b87c0e9a5d1f2e3c4b5a60", "the key's id"),
    ("reference", "schema"): (
        "ai.orchard9.rdev.command.succeeded.v1.json",
        "the type of the event, and `.json`",
    ),
    ("webhooks", "id"): ("whk_0190f3c2a4b87c0e9a5d1f2e3c4b5a80", "the webhook's id"),
    ("webhooks", "delivery"): ("dlv_0190f3c2a4b87c0e9a5d1f2e3c4b5a81", "the delivery's id"),
    ("claude_config", "project"): ("demo", "the project's name"),
    ("claude_config", "kind"): ("commands", "commands, skills or agents"),
    ("claude_config", "name"): ("deploy", "its name; `folder:name` of a command in a folder"),
    ("triggers", "id"): ("trg_0190f3c2a4b87c0e9a5d1f2e3c4b5a61", "the trigger's id"),
    ("events", "trigger"): ("trg_0190f3c2a4b87c0e9a5d1f2e3c4b5a61", "the trigger's id"),
    ("events", "id"): ("dlt_0190f3c2a4b87c0e9a5d1f2e3c4b5a62", "the dead letter's id"),
    ("projects", "project"): ("demo", "the project's name"),
    ("projects", "id"): ("0190f3c2-a4b8-7c0e-9a5d-1f2e3c4b5a69", "the session's id"),
    ("queue", "project"): ("demo", "the project's name"),
    ("stream", "project"): ("demo", "the project's name"),
}
_EVENTS: Final[dict[str, type[BaseModel]]] = {
    "state": resources.StateEvent,
    "output": resources.OutputEvent,
    "agent": resources.AgentEvent,
    "approval": resources.ApprovalEvent,
    "usage": resources.UsageEvent,
    "truncated": resources.TruncatedEvent,
    "gap": resources.GapEvent,
    "end": resources.Command,
}
_MEANINGS: Final = {
    200: "Done",
    201: "Created",
    202: "Accepted; `Location` says where it is",
    204: "Done; there is nothing to say",
}

# One example of each status; the code is the class's, the text is what such an answer says.
_EXAMPLES: Final[tuple[RdevError, ...]] = (
    errors.InvalidRequest("the body is not JSON: Expecting value at line 1, column 1"),
    errors.Unauthorized("send exactly one key, as Authorization: Bearer rdev_…"),
    errors.Forbidden("this key lacks commands:write:shell"),
    errors.NotFound("there is no 'cmd_0190f3c2a4b87c0e9a5d1f2e3c4b5a69'"),
    errors.Conflict("it no longer waits"),
    errors.PreconditionFailed("it has changed since; read it again"),
    errors.PreconditionRequired("send If-Match with the ETag of what you change"),
    errors.PayloadTooLarge("a body may have 1048576 bytes at most"),
    errors.UriTooLong("an address may have 8192 bytes at most"),
    errors.UnsupportedMediaType("send the body as application/json"),
    errors.RangeNotSatisfiable("the stream has 6 bytes"),
    errors.InvalidField.one("scopes[0]", "unknown_scope", "scopes[0]: there is no such scope"),
    errors.RateLimited("100 requests in 60 s are used", limit=100, window_s=60, retry_after=12),
    errors.Unavailable("the database does not answer"),
    errors.RdevError("something broke on our side"),
)


def files(functions: list[Function]) -> dict[PurePosixPath, str]:
    """The one committed place: inside the function that serves it."""
    text = json.dumps(document(functions), indent=2, ensure_ascii=False)
    # JSON has no comments, and the first line shall say that it is generated.
    return {PATH: f'{{"x-generated": "{_NOTE}",\n' + text.removeprefix("{\n") + "\n"}


def document(functions: list[Function]) -> dict[str, Any]:
    """The OpenAPI document of every function that a gateway routes to."""
    public = [f for f in functions if f.prefixes or f.local_prefixes]
    schemas = _Schemas()
    schemas.of_model(resources.Problem)
    paths: dict[str, Any] = {}
    for function in public:
        for route in function.routes:
            operation = _operation(function, route, schemas)
            paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "rdev",
            "version": "1",
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": f.name, "description": f.summary} for f in public],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "rdev_…"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
            "responses": dict(_problems()),
            "headers": _HEADERS,
            "schemas": dict(sorted(schemas.found.items())),
        },
    }


class _Schemas:
    """JSON Schemas of models, each under its name once."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def of_model(self, model: type[BaseModel]) -> dict[str, Any]:
        """A reference to a model's schema."""
        return self._add(TypeAdapter(model))

    def of_adapter(self, adapter: TypeAdapter[Any]) -> dict[str, Any]:
        return self._add(adapter)

    def _add(self, adapter: TypeAdapter[Any]) -> dict[str, Any]:
        schema = adapter.json_schema(ref_template=_SCHEMA + "{model}")
        for name, definition in schema.pop("$defs", {}).items():
            self._keep(name, definition)
        if schema.get("type") == "object" and "title" in schema:
            name = schema["title"]
            self._keep(name, schema)
            return {"$ref": _SCHEMA + name}
        return dict(_untitled(schema))

    def _keep(self, name: str, definition: dict[str, Any]) -> None:
        definition = _untitled(definition)
        if self.found.setdefault(name, definition) != definition:
            raise ValueError(f"two models are called {name}")


def _untitled(schema: Any) -> Any:
    """Without pydantic's titles, which only repeat the names, and with text as it is meant."""
    if isinstance(schema, list):
        return [_untitled(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {k: v for k, v in schema.items() if k != "title" or not isinstance(v, str)}
    if isinstance(kept.get("description"), str):
        kept["description"] = re.sub(r"(?<!\n)\n(?!\n)", " ", kept["description"])
    return {k: _untitled(v) for k, v in kept.items()}


def _operation(function: Function, route: Route, schemas: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{function.name}_{route.handler.__name__}",
        "tags": [function.name],
        "summary": route.summary,
        "description": _scopes_in_words(route) + _reach_in_words(function, route),
        "security": [
            {scheme: [scope]} for scope in route.scopes for scheme in ("bearer", "apiKey")
        ],
    }
    parameters = [*_path_parameters(function, route), *_query(route), *_headers(route)]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        content = {"schema": schemas.of_adapter(route.body), "example": route.body_example}
        operation["requestBody"] = {
            "required": not route.body_optional,
            "content": {"application/json": content},
        }
    elif route.raw_body:
        operation["requestBody"] = {"required": True, "content": dict(_raw(route.raw_body))}
    operation["responses"] = _responses(route, schemas)
    return operation


def _raw(examples: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for media_type, example in examples.items():
        kind = "array" if isinstance(example, list) else "object"
        yield media_type, {"schema": {"type": kind}, "example": example}


def _scopes_in_words(route: Route) -> str:
    if route.signed:
        return "No key is needed: the body's signature says who sent it."
    if not route.scopes:
        return "Open: no key is needed."
    names = [f"`{scope}`" for scope in route.scopes]
    return f"Scope: {names[0]}." if len(names) == 1 else f"Scope: any of {', '.join(names)}."


def _reach_in_words(function: Function, route: Route) -> str:
    if any(_below(route.path, prefix) for prefix in function.prefixes):
        return ""
    return " Routed by a laptop's gateway only, not by a cluster's public route."


def _below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")


def _path_parameters(function: Function, route: Route) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", route.path):
        example, meaning = _PATH_PARAMETERS[function.name, name]
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "description": meaning,
            "schema": {"type": "string"} | _pattern_of(name, example),
            "example": example,
        }


def _pattern_of(name: str, example: str) -> dict[str, str]:
    """What an id or a project's name looks like; other names are text that fits into a path."""
    if name == "project":
        return {"pattern": f"^{NAME.pattern}$"}
    if _ID.fullmatch(example):
        return {"pattern": _ID_PATTERN.format(example[:3])}
    return {"pattern": "^[^\\u0000-\\u001f\\u007f]+$"}


def _query(route: Route) -> Iterator[dict[str, Any]]:
    if route.query is None:
        return
    schema = TypeAdapter(route.query).json_schema()
    for name, value in schema["properties"].items():
        yield {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", []),
            "description": _PARAMETERS[name],
            "schema": _untitled(value) | (_cursor_of(route) if name == "cursor" else {}),
        }


def _cursor_of(route: Route) -> dict[str, str]:
    """A cursor is the id of the last thing on a page (entrypoints/pages.py)."""
    last = str(route.answer_example["items"][-1].get("id", ""))
    if not _ID.fullmatch(last):  # of sessions: they are found by their newest command
        last = identifiers.COMMAND
    return {"pattern": _ID_PATTERN.format(last[:3])}


def _headers(route: Route) -> Iterator[dict[str, Any]]:
    if route.idempotent:
        meaning = "1 to 255 printable ASCII characters; the same again within 24 h answers the same"
        schema = {"type": "string", "maxLength": 257, "pattern": f"^{IDEMPOTENCY_KEY.pattern}$"}
        yield _header("Idempotency-Key", meaning, schema)
    if route.conditional:
        meaning = "the ETag of what is changed, or `*` for whatever is there"
        yield _header("If-Match", meaning, {"type": "string", "pattern": _TAG})
    if waits(route):
        meaning = "`wait=N`: hold the answer until the command ends, N seconds (45) at most"
        yield _header("Prefer", meaning, {"type": "string"})
    if route.kind == "stream":
        meaning = "`id` of the last event seen; the stream goes on behind it"
        yield _header("Last-Event-ID", meaning, {"type": "string"})


def _header(name: str, meaning: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": meaning, "schema": schema}


def waits(route: Route) -> bool:
    """Whether the handler may answer later, which is what `Prefer: wait` asks of it."""
    return "Later" in str(route.handler.__annotations__.get("return"))


def statuses(route: Route) -> dict[int, str]:
    """Every status a route may answer besides those any request may get, and what it means."""
    found = {route.status: _MEANINGS[route.status]} | dict(route.others)
    if route.status == 202 and waits(route):
        found[200] = "It ended within the time that `Prefer: wait` gave"
    refusals = {500, 503}
    if route.scopes:
        refusals |= {401, 403, 429}
    if "{" in route.path:
        refusals |= {400, 404}  # 400: NUL and what is not UTF-8, here and in queries
    if route.body is not None or route.raw_body:
        refusals |= {400, 413, 415, 422}
    if route.raw_body:
        refusals |= {404}
    if route.signed:
        refusals |= {401}
    if route.query is not None:
        refusals |= {400, 414, 422}
    if route.kind == "stream":
        refusals |= {400}
    if route.idempotent:
        refusals |= {409, 422}
    if route.conditional:
        refusals |= {412, 428}
    return dict(sorted((dict.fromkeys(refusals, "") | found).items()))


def _responses(route: Route, schemas: _Schemas) -> dict[str, Any]:
    return {
        str(status): _response(route, status, meaning, schemas)
        if status < 400
        else {"$ref": f"#/components/responses/Problem{status}"}
        for status, meaning in statuses(route).items()
    }


def _response(route: Route, status: int, meaning: str, schemas: _Schemas) -> dict[str, Any]:
    names = ["X-Request-Id"]
    names += ["RateLimit-Policy", "RateLimit"] if route.scopes else []
    names += ["Location"] if status in (201, 202) else []
    response: dict[str, Any] = {
        "description": meaning,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
    }
    if status == 204:
        return response
    schema: dict[str, Any] = {"type": "string"}
    if route.kind == "stream":
        schema["description"] = "server-sent events; `x-events` has the schema of each `data`"
    elif route.answer:
        schema = schemas.of_model(getattr(resources, route.answer))
    elif route.media_type.endswith(("/json", "+json")):
        schema = {"type": "object"}
    response["content"] = {route.media_type: {"schema": schema, "example": route.answer_example}}
    if route.kind == "stream":
        response["x-events"] = {name: schemas.of_model(model) for name, model in _EVENTS.items()}
    return response


def _problems() -> Iterator[tuple[str, Any]]:
    for error in _EXAMPLES:
        status, title = problem.status_of(error)
        example = problem.body_of(error, "req_0190f3c2a4b87c0e9a5d1f2e3c4b5a70")
        names = ["X-Request-Id"]
        names += ["WWW-Authenticate"] if status == 401 else []
        names += ["Retry-After"] if status in (429, 503) else []
        yield (
            f"Problem{status}",
            {
                "description": title,
                "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
                "content": {
                    "application/problem+json": {
                        "schema": {"$ref": _SCHEMA + "Problem"},
                        "example": example,
                    }
                },
            },
        )


def _text(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}


_HEADERS: Final = {
    "Location": _text("where the resource is"),
    "RateLimit": _text("what is left of the window: `r` requests, `t` seconds"),
    "RateLimit-Policy": _text("the key's window: `q` requests in `w` seconds"),
    "Retry-After": _text("seconds after which to ask again"),
    "WWW-Authenticate": _text("the scheme that is needed"),
    "X-Request-Id": _text("the name of this request, for logs and questions"),
}
