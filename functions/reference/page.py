"""The reference page: HTML from openapi.json, without scripts, fonts or anything else to load."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from html import escape
from typing import Any, Final

_METHODS: Final = ("get", "post", "put", "patch", "delete")

_STYLE: Final = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881}
body{font:16px/1.55 system-ui,sans-serif;max-width:62rem;margin:0 auto;padding:1.5rem}
nav ul{columns:2;padding:0;list-style:none}
h1,h2,h3{line-height:1.25}
h2{margin-top:3rem;border-bottom:1px solid var(--line)}
article{border:1px solid var(--line);border-radius:.5rem;padding:0 1rem 1rem;margin:1rem 0}
code,pre{font:13px/1.45 ui-monospace,monospace}
pre{background:var(--soft);padding:.75rem;border-radius:.35rem;overflow:auto}
table{border-collapse:collapse;width:100%}
td,th{text-align:left;vertical-align:top;border-bottom:1px solid var(--line);padding:.3rem .5rem}
.method{font-weight:700;text-transform:uppercase}
summary{cursor:pointer}
"""

_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
# Only this page's own style; nothing else can load, run, be framed or be sent anywhere.
CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


def render(openapi: bytes) -> bytes:
    """The page for an OpenAPI document."""
    document = json.loads(openapi)
    body = "\n".join((*_head(document), *_operations(document), *_schemas(document)))
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(document['info']['title'])} API</title>\n<style>{_STYLE}</style>\n"
        f"{body}\n</html>\n"
    ).encode()


def _head(document: dict[str, Any]) -> Iterator[str]:
    info = document["info"]
    yield f"<h1>{escape(info['title'])} API {escape(info['version'])}</h1>"
    yield from (f"<p>{_inline(part)}</p>" for part in info["description"].split("\n\n"))
    yield '<p>The same for machines: <a href="/openapi.json">/openapi.json</a></p>'
    yield "<nav><ul>"
    for path, method, operation in _each(document):
        link = f"<code>{method.upper()} {escape(path)}</code>"
        yield f'<li><a href="#{operation["operationId"]}">{link}</a></li>'
    yield "</ul></nav>"


def _each(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item:
                yield path, method, item[method]


def _operations(document: dict[str, Any]) -> Iterator[str]:
    section = None
    for path, method, operation in _each(document):
        (tag,) = operation["tags"]
        if tag != section:
            section = tag
            described = next(t["description"] for t in document["tags"] if t["name"] == tag)
            yield f"<h2>{escape(tag)}</h2><p>{_inline(described)}</p>"
        yield f'<article id="{operation["operationId"]}">'
        yield f'<h3><code><span class="method">{method}</span> {escape(path)}</code></h3>'
        yield f"<p>{_inline(operation['summary'])}</p>"
        yield f"<p>{_inline(operation['description'])}</p>"
        yield from _parameters(operation.get("parameters", []), document)
        yield from _body(operation)
        yield from _responses(operation, document)
        yield "</article>"


def _parameters(parameters: list[dict[str, Any]], document: dict[str, Any]) -> Iterator[str]:
    if not parameters:
        return
    yield "<table><tr><th>parameter<th>in<th>type<th>meaning</tr>"
    for reference in parameters:
        p = _resolve(reference, document)
        need = " (required)" if p.get("required") and p["in"] != "path" else ""
        yield (
            f"<tr><td><code>{escape(p['name'])}</code>{need}<td>{p['in']}"
            f"<td>{_inline(_type(p['schema']))}<td>{_inline(p.get('description', ''))}</tr>"
        )
    yield "</table>"


def _body(operation: dict[str, Any]) -> Iterator[str]:
    if "requestBody" not in operation:
        return
    content = operation["requestBody"]["content"]["application/json"]
    yield f"<p>Body: {_linked(content['schema'])}</p>"
    yield f"<pre>{escape(_pretty(content['example']))}</pre>"


def _responses(operation: dict[str, Any], document: dict[str, Any]) -> Iterator[str]:
    for status, reference in operation["responses"].items():
        response = _resolve(reference, document)
        for media_type, content in response.get("content", {}).items():
            yield f"<details><summary>{status} {_inline(response['description'])}</summary>"
            yield f"<p><code>{escape(media_type)}</code> {_linked(content.get('schema', {}))}</p>"
            yield f"<pre>{escape(_pretty(content.get('example', '')))}</pre></details>"
        if not response.get("content"):
            yield f"<p>{status} {_inline(response['description'])}</p>"


def _schemas(document: dict[str, Any]) -> Iterator[str]:
    yield "<h2>Schemas</h2>"
    for name, schema in document["components"]["schemas"].items():
        yield f'<article id="schema-{escape(name)}"><h3><code>{escape(name)}</code></h3>'
        yield f"<p>{_inline(schema.get('description', ''))}</p>"
        if "properties" in schema:
            yield from _properties(schema)
        else:
            yield f"<p>{_linked(schema)}</p>"
        yield "</article>"


def _properties(schema: dict[str, Any]) -> Iterator[str]:
    required = schema.get("required", [])
    yield "<table><tr><th>field<th>type<th>meaning</tr>"
    for field, value in schema["properties"].items():
        need = " (required)" if field in required else ""
        yield (
            f"<tr><td><code>{escape(field)}</code>{need}<td>{_linked(value)}"
            f"<td>{_inline(value.get('description', ''))}</tr>"
        )
    yield "</table>"


def _resolve(value: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in value:
        return value
    found: Any = document
    for part in value["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return dict(found)


def _linked(schema: dict[str, Any]) -> str:
    """A schema's type, with links to the schemas it names."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#schema-{name}"><code>{name}</code></a>'
    for key in ("oneOf", "anyOf"):
        if key in schema:
            return " or ".join(_linked(one) for one in schema[key])
    if schema.get("type") == "array" and "items" in schema:
        return "array of " + _linked(schema["items"])
    return _inline(_type(schema))


def _type(schema: dict[str, Any]) -> str:
    """A schema's type in words: `string, 1 to 100 characters`."""
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return " | ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"array of {_type(schema.get('items', {}))}"
    kind = schema.get("type", "any JSON")
    text = " or ".join(kind) if isinstance(kind, list) else str(kind)
    low, high = (
        schema.get("minimum", schema.get("minLength", schema.get("exclusiveMinimum"))),
        schema.get("maximum", schema.get("maxLength")),
    )
    if high is not None:
        text += f", {low if low is not None else 0} to {high}"
        text += " characters" if "maxLength" in schema else ""
    if "default" in schema:
        text += f", default `{json.dumps(schema['default'])}`"
    return text


def _inline(text: str) -> str:
    """Escaped text with `code` spans."""
    parts = escape(text).split("`")
    return "".join(f"<code>{p}</code>" if n % 2 else p for n, p in enumerate(parts))


def _pretty(example: Any) -> str:
    if isinstance(example, str):
        return example
    return json.dumps(example, indent=2, ensure_ascii=False)
