"""openapi.json: valid, complete, and with examples that are what they say."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from functions.reference.page import render
from infra.generation import declared, openapi

FUNCTIONS = declared.functions()
RAW = (declared.ROOT / openapi.PATH).read_bytes()
DOCUMENT = json.loads(RAW)
OPERATIONS = [
    (f"{method.upper()} {path}", operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
]
EACH = pytest.mark.parametrize(
    "operation", [o for _, o in OPERATIONS], ids=[name for name, _ in OPERATIONS]
)


def valid(schema: dict[str, Any], example: Any) -> list[str]:
    """What is wrong with an example."""
    whole = schema | {"components": DOCUMENT["components"]}
    return [error.message for error in OAS31Validator(whole).iter_errors(example)]


def test_it_is_valid_openapi() -> None:
    """An independent validator of OpenAPI 3.1 accepts the document."""
    validate(DOCUMENT)


def test_it_has_every_operation_that_a_gateway_routes() -> None:
    """Whatever is declared under a prefix is described, and nothing else is."""
    declared_routes = {
        f"{r.method} {r.path}"
        for f in FUNCTIONS
        if f.prefixes or f.local_prefixes
        for r in f.routes
    }
    assert {name for name, _ in OPERATIONS} == declared_routes


def test_operations_have_names_of_their_own() -> None:
    """Generated clients name methods after `operationId`."""
    names = [operation["operationId"] for _, operation in OPERATIONS]
    assert len(set(names)) == len(names)


@EACH
def test_an_operation_has_an_example_of_its_answer(operation: dict[str, Any]) -> None:
    """Each success that has content has an example, and the example fits the schema."""
    for status, response in operation["responses"].items():
        for media_type, content in response.get("content", {}).items():
            assert content.get("example"), (status, media_type)
            assert valid(content["schema"], content["example"]) == []
        if status != "204" and status < "400":
            assert response["content"]


@EACH
def test_an_operation_has_an_example_of_its_body(operation: dict[str, Any]) -> None:
    """Each body has an example that fits its schema."""
    if "requestBody" in operation:
        content = operation["requestBody"]["content"]["application/json"]
        assert content["example"] is not None
        assert valid(content["schema"], content["example"]) == []


@EACH
def test_an_operation_says_who_may_use_it(operation: dict[str, Any]) -> None:
    """It names its scopes or says that it is open, and 401 is there where a key is asked for."""
    scoped = bool(operation["security"])
    assert ("Scope: " in operation["description"]) is scoped
    signed = "signature" in operation["description"]
    assert ("401" in operation["responses"]) is (scoped or signed)


@pytest.mark.parametrize("route", [r for f in FUNCTIONS for r in f.routes if r.body is not None])
def test_the_server_itself_takes_the_example(route: Any) -> None:
    """The very model that reads bodies accepts the example."""
    route.body.validate_json(json.dumps(route.body_example))


@pytest.mark.parametrize("name", DOCUMENT["components"]["responses"])
def test_a_refusal_has_an_example(name: str) -> None:
    """Each problem's example is one, with the status it stands for."""
    content = DOCUMENT["components"]["responses"][name]["content"]["application/problem+json"]
    assert valid(content["schema"], content["example"]) == []
    assert content["example"]["status"] == int(name.removeprefix("Problem"))


def test_the_page_shows_every_operation_and_loads_nothing() -> None:
    """The HTML has an article per operation, and neither a script nor anything from elsewhere."""
    html = render(RAW).decode()
    for _, operation in OPERATIONS:
        assert f'<article id="{operation["operationId"]}">' in html
    assert not re.search(
        r"<(script|link|img|iframe)|https?://(?!rdev\.orchard9\.ai/problems|example\.com/)", html
    )
    targets = set(re.findall(r'href="#([^"]+)"', html))
    assert targets <= set(re.findall(r'id="([^"]+)"', html))
