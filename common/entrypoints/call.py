"""What a handler gets (a Call) and gives back (a Reply)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from starlette.datastructures import Headers

from common.domain.events import dumps
from common.domain.keys import Caller
from common.ports.commands import Idempotency, Origin

if TYPE_CHECKING:
    from common.bootstrap import App


@dataclass
class Call:
    """One authorised request. `caller` is None only on open routes (health, reference, events)."""

    app: App
    origin: Origin
    path: Mapping[str, str]
    headers: Headers
    query: Any = None
    caller_or_none: Caller | None = None
    idempotency: Idempotency | None = None
    raw_body: bytes = b""

    @property
    def caller(self) -> Caller:
        """The key behind the request; routes with a scope always have one."""
        if self.caller_or_none is None:
            raise LookupError("an open route has no caller")
        return self.caller_or_none


Content = BaseModel | dict[str, Any] | bytes | Iterator[bytes] | None


@dataclass
class Reply:
    """The answer: `content` is a model, a JSON object, or bytes, also in pieces."""

    content: Content = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    media_type: str = "application/json"

    def body(self) -> bytes:
        if isinstance(self.content, BaseModel):
            return self.content.model_dump_json().encode()
        if isinstance(self.content, bytes):
            return self.content
        if isinstance(self.content, dict):
            return dumps(self.content)
        return b""


Later = Callable[[], Awaitable[Reply]]
"""A reply that is awaited on the event loop: it holds no thread and no connection meanwhile."""
