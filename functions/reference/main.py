"""The reference: openapi.json as it was generated, and a page made from it that needs no network."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from common.entrypoints.call import Call, Reply
from common.entrypoints.function import Function, Scale
from functions.reference.page import CONTENT_SECURITY_POLICY, render

# Written by `python -m infra.generate`; it lies here and nowhere else, so the wheel carries it.
_OPENAPI: Final = Path(__file__).with_name("openapi.json")
# The text changes with a release only, but a stale page after one would confuse.
_HEADERS: Final = {"cache-control": "public, max-age=300", "x-content-type-options": "nosniff"}

function = Function(
    name="reference",
    summary="The API's description: openapi.json and a page made from it",
    prefixes=("/openapi.json", "/docs"),
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


@cache
def _openapi() -> bytes:
    return _OPENAPI.read_bytes()


@cache
def _page() -> bytes:
    return render(_openapi())


handle = function.target()
