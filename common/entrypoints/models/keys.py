"""Bodies and queries of the keys function."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from common.domain import identifiers
from common.domain.keys import ApiKey, RateLimit
from common.domain.scopes import ALL
from common.entrypoints.models.base import WHOLE, Body, Instant, Name
from common.entrypoints.models.commands import ProjectName


def _network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError:
        raise ValueError("not an address range like 10.0.0.0/8 or 2001:db8::/32") from None


def _scope(name: str) -> str:
    if name not in ALL:
        raise PydanticCustomError("unknown_scope", "there is no scope {name}", {"name": name[:60]})
    return name


class RateLimitBody(Body):
    limit: Annotated[int, Field(ge=1, le=100_000), WHOLE]
    window_s: Annotated[int, Field(ge=1, le=86_400), WHOLE]


Scope = Annotated[str, Field(json_schema_extra={"enum": list(ALL)}), AfterValidator(_scope)]
Range = Annotated[
    str,
    Field(max_length=64, json_schema_extra={"pattern": "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$"}),
    AfterValidator(_network),
]
Scopes = Annotated[list[Scope], Field(min_length=1, max_length=32)]
Projects = Annotated[list[ProjectName], Field(max_length=1000)]
Addresses = Annotated[list[Range], Field(max_length=100)]
MaxConcurrent = Annotated[int, Field(ge=1, le=1000), WHOLE]


class CreateKey(Body):
    name: Name
    scopes: Scopes
    projects: Projects | None = None
    allowed_ips: Addresses = Field(default_factory=list)
    expires_at: Instant | None = None
    rate_limit: RateLimitBody = RateLimitBody(limit=100, window_s=60)
    max_concurrent: MaxConcurrent | None = None

    def key(self) -> ApiKey:
        return ApiKey(
            id=identifiers.new_id(),
            name=self.name,
            prefix="",
            scopes=frozenset(self.scopes),
            projects=frozenset(self.projects) if self.projects is not None else None,
            allowed_ips=tuple(self.allowed_ips),
            rate_limit=RateLimit(self.rate_limit.limit, self.rate_limit.window_s),
            max_concurrent=self.max_concurrent,
            created_at=datetime.now(UTC),
            expires_at=self.expires_at,
        )


def _same(value: Any) -> Any:
    return value


_AS_STORED: Final[dict[str, Callable[[Any], Any]]] = {
    "scopes": frozenset,
    "projects": lambda names: None if names is None else frozenset(names),
    "allowed_ips": tuple,
    "rate_limit": lambda rate: RateLimit(rate.limit, rate.window_s),
}


class UpdateKey(Body):
    """What is left out stays; null means what it means when a key is created.

    Defaults stand for "left out" only: made by factories, they are not in openapi.json.
    """

    name: Name = Field(default_factory=str)
    scopes: Scopes = Field(default_factory=list)
    projects: Projects | None = None
    allowed_ips: Addresses = Field(default_factory=list)
    expires_at: Instant | None = None
    rate_limit: RateLimitBody = Field(default_factory=lambda: RateLimitBody(limit=100, window_s=60))
    max_concurrent: MaxConcurrent | None = None

    def changes(self) -> dict[str, Any]:
        """The fields that were given, as an ApiKey has them."""
        return {
            name: _AS_STORED.get(name, _same)(getattr(self, name)) for name in self.model_fields_set
        }


class RotateKey(Body):
    """For how many seconds the old key still works."""

    grace_s: Annotated[int, Field(ge=0, le=30 * 86_400), WHOLE] = 86_400
