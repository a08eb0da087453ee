"""The reference: openapi.json, a page made from it that needs no network, and events' schemas."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

from common.domain.errors import NotFound
from common.entrypoints.call import Call, Reply
from common.entrypoints.function import Function, Scale
from functions.reference.page import CONTENT_SECURITY_POLICY, render

# Written by `python -m infra.generate`; it lies here and nowhere else, so the wheel carries it.
_OPENAPI: Final = Path(__file__).with_name("openapi.json")
_SCHEMAS: Final = Path(__file__).with_name("schemas.json")
# The text changes with a release only, but a stale page after one would confuse.
_HEADERS: Final = {"cache-control": "public, max-age=300", "x-content-type-options": "nosniff"}

function = Function(
    name="reference",
    summary="The API's description: openapi.json, a page made from it, and the schemas of events",
    prefixes=("/openapi.json", "/docs", "/schemas"),
    scale=Scale(maximum=1),  # bytes that are made once
)


@function.get("/openapi.json", summary="The OpenAPI 3.1 description of this API",
              answer_example={"openapi": "3.1.0", "info": {"title": "rdev"}})  # fmt: skip
def description(_call: Call) -> Reply:
    return Reply(_openapi(), headers=_HEADERS)


@function.get("/docs", summary="The same as a page to read; it loads nothing from the network",
              media_type="text/html", answer_example="<!doctype html>\n<title>rdev API</title>\n")  # fmt: skip
def page(_call: Call) -> Reply:
    headers = _HEADERS | {"content-security-policy": CONTENT_SECURITY_POLICY}
    return Reply(_page(), headers=headers, media_type="text/html; charset=utf-8")


@function.get("/schemas/{schema}", summary="The JSON Schema of an event's data, as its `dataschema` says",
              media_type="application/schema+json", answer_example={"type": "object"})  # fmt: skip
def schema(call: Call) -> Reply:
    found = _schemas().get(call.path["schema"].removesuffix(".json"))
    if not isinstance(found, dict):
        raise NotFound(f"there is no schema {call.path['schema'][:80]!r}")
    return Reply(found, headers=_HEADERS, media_type="application/schema+json")


@cache
def _schemas() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_SCHEMAS.read_bytes())
    return found


@cache
def _openapi() -> bytes:
    return _OPENAPI.read_bytes()


@cache
def _page() -> bytes:
    return render(_openapi())


handle = function.target()
