"""Options of claude that a command may carry: an allowlist, each with the values that claude takes.

What claude would ignore with a warning, or refuse at its start, is refused here, before it queues.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Discriminator, Field, Tag

from common.domain.workspace import ENV_NAME
from common.entrypoints.models.base import WHOLE, Body, JsonObject

MAX_SCHEMA: Final = 64 * 1024  # it is one argument of claude's; Linux takes 128 KiB
MAX_SCHEMA_DEPTH: Final = 32
MAX_TEXT: Final = 120 * 1024  # likewise, with room for the option's name
MAX_SERVERS: Final = 32
MAX_SECRET: Final = 32 * 1024
_DRAFT_7: Final = (
    "http://json-schema.org/draft-07/schema",
    "http://json-schema.org/draft-07/schema#",
)
# claude keeps these names to itself and drops such a server without a word (seen with 2.1.330).
_RESERVED: Final = frozenset({"workspace", "claude-in-chrome", "computer-use"})


def _schema(schema: dict[str, Any]) -> dict[str, Any]:
    """claude validates its answer with draft 7, and knows no other `$schema`."""
    from jsonschema import Draft7Validator, SchemaError

    if len(json.dumps(schema).encode()) > MAX_SCHEMA:
        raise ValueError(f"has more than {MAX_SCHEMA} bytes")
    if _depth(schema, MAX_SCHEMA_DEPTH) < 0:
        raise ValueError(f"is nested more than {MAX_SCHEMA_DEPTH} levels deep")
    if schema.get("$schema", _DRAFT_7[0]) not in _DRAFT_7:
        raise ValueError(f"$schema can only be {_DRAFT_7[1]}")
    try:
        Draft7Validator.check_schema(schema)
    except SchemaError as error:
        # Not its whole text: that quotes what was sent.
        place = "/".join(map(str, error.absolute_path)) or "the schema"
        raise ValueError(f"is no JSON Schema of draft 7: see {place[:200]}") from None
    if any(not ref.startswith("#") for ref in _references(schema)):
        raise ValueError("$ref can only point into the schema itself (#…)")
    return schema


def _depth(value: Any, left: int) -> int:
    """Levels that are left below `value`; negative when there are too many."""
    if left < 0 or not isinstance(value, dict | list):
        return left
    inner = value.values() if isinstance(value, dict) else value
    return min((_depth(item, left - 1) for item in inner), default=left)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(ref := value.get("$ref"), str):
            yield ref
        for item in value.values():
            yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def _text(text: str) -> str:
    if len(text.encode()) > MAX_TEXT:
        raise ValueError(f"has more than {MAX_TEXT} bytes")
    return text


def _url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is no http or https URL")
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a password; send it as a header, which is kept secret")
    return url


def _secret_env(env: dict[str, str]) -> dict[str, str]:
    for name, value in env.items():
        if not ENV_NAME.match(name) or len(name) > 128:
            raise ValueError(f"{name[:80]!r} is no variable name")
        _secret(name, value)
    return env


def _secret(name: str, value: str) -> None:
    if len(value.encode()) > MAX_SECRET:
        raise ValueError(f"the value of {name} has more than {MAX_SECRET} bytes")


def _headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"{name[:80]!r} is no header name")
        if any(c in value for c in "\r\n\0"):
            raise ValueError(f"the value of {name} holds a line break")
        _secret(name, value)
    return headers


def _not_reserved(name: str) -> str:
    if name in _RESERVED:
        raise ValueError(f"claude keeps the name {name} to itself")
    return name


ServerName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$"), AfterValidator(_not_reserved)]
Url = Annotated[str, Field(max_length=2048, pattern=r"^[!-~]+$"), AfterValidator(_url)]
SecretEnv = Annotated[dict[str, str], Field(max_length=64), AfterValidator(_secret_env)]
Headers = Annotated[dict[str, str], Field(max_length=64), AfterValidator(_headers)]
ServerArgument = Annotated[str, Field(max_length=8192)]


class StdioServer(Body):
    """A program in the workspace. The values of `env` are secret: sealed, and shown as null."""

    type: Literal["stdio"] = "stdio"
    command: Annotated[str, Field(min_length=1, max_length=4096)]
    args: Annotated[list[ServerArgument], Field(max_length=256)] = Field(default_factory=list)
    env: SecretEnv = Field(default_factory=dict)


class HttpServer(Body):
    """A server at a URL. The values of `headers` are secret: sealed, and shown as null."""

    type: Literal["http", "sse"]
    url: Url
    headers: Headers = Field(default_factory=dict)


class ServerSecrets(Body):
    """The values of one server, sent again for a retry."""

    env: SecretEnv = Field(default_factory=dict)
    headers: Headers = Field(default_factory=dict)


def _which(server: Any) -> str | None:
    kind = (
        server.get("type", "stdio") if isinstance(server, dict) else getattr(server, "type", None)
    )
    tags = {"stdio": "server:stdio", "http": "server:url", "sse": "server:url"}
    return tags.get(kind) if isinstance(kind, str) else None


Server = Annotated[
    Annotated[StdioServer, Tag("server:stdio")] | Annotated[HttpServer, Tag("server:url")],
    Discriminator(
        _which,
        custom_error_type="server_type",
        custom_error_message="type is stdio, http or sse",
    ),
]
Servers = Annotated[dict[ServerName, Server], Field(max_length=MAX_SERVERS)]
# One argument of claude's holds all of them, joined by commas.
Tool = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^,\n\r\x00]+$")]
Tools = Annotated[list[Tool], Field(max_length=100)]
Word = Annotated[
    str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:\[\]/@-]*$")
]
# Behind the model, the first of them that is available answers.
Words = Annotated[
    str,
    Field(
        max_length=300,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:\[\]/@-]{0,99}(,[A-Za-z0-9][A-Za-z0-9._:\[\]/@-]{0,99}){0,2}$",
    ),
]


class ClaudeOptions(Body):
    """Options of claude that rdev passes on; anything else is refused."""

    model: Word | None = None
    fallback_model: Words | None = None
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    permission_mode: (
        Literal["acceptEdits", "auto", "bypassPermissions", "default", "dontAsk", "plan"] | None
    ) = None
    allowed_tools: Tools = Field(default_factory=list)
    disallowed_tools: Tools = Field(default_factory=list)
    append_system_prompt: Annotated[str, Field(min_length=1), AfterValidator(_text)] | None = None
    max_turns: Annotated[int, Field(ge=1, le=1000), WHOLE] | None = None
    max_budget_usd: Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)] | None = None
    partial_messages: bool = False
    approvals: bool = False
    json_schema: Annotated[JsonObject, AfterValidator(_schema)] | None = None
    mcp_servers: Servers = Field(default_factory=dict)
    require_mcp: bool = False

    def servers(self) -> dict[str, dict[str, Any]]:
        """The MCP servers with everything that is secret of them."""
        return {name: server.model_dump() for name, server in self.mcp_servers.items()}
