"""Bodies and queries of the webhooks function."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator
from pydantic_core import PydanticCustomError

from common.domain import identifiers, receivers
from common.domain.errors import InvalidField
from common.domain.webhooks import (
    EVENT_TYPES,
    GRACE_S,
    MOST_HEADERS,
    PING,
    Endpoint,
    Payload,
    header_problem,
)
from common.entrypoints import pages
from common.entrypoints.models.base import ONE_LINE, WHOLE, Body, Moment, Page, Query, one_line
from common.entrypoints.models.commands import ProjectName
from common.ports.webhooks import DeliveryFilter, Range


def _url(text: str) -> str:
    try:
        receivers.parse(text)
    except InvalidField as error:
        [wrong] = error.errors
        said = wrong.message.removeprefix("url: ").replace("{", "(").replace("}", ")")
        raise PydanticCustomError(wrong.code, said) from None
    return text


def _event_type(name: str) -> str:
    if name not in EVENT_TYPES:
        raise PydanticCustomError(
            "unknown_event_type", "there is no event type {name}", {"name": name[:60]}
        )
    return name


def _headers(headers: dict[str, str]) -> dict[str, str]:
    problem = header_problem(headers)
    if problem is not None:
        raise ValueError(problem)
    return headers


Url = Annotated[str, Field(min_length=1, max_length=receivers.MAX_URL), AfterValidator(_url)]
Description = Annotated[
    str,
    Field(max_length=500, json_schema_extra={"pattern": ONE_LINE}),
    AfterValidator(one_line),
]
EventType = Annotated[
    str, Field(json_schema_extra={"enum": sorted(EVENT_TYPES)}), AfterValidator(_event_type)
]
EventTypes = Annotated[list[EventType], Field(min_length=1, max_length=50)]
DeliveredType = Annotated[str, Field(json_schema_extra={"enum": sorted({*EVENT_TYPES, PING})})]
Projects = Annotated[list[ProjectName], Field(min_length=1, max_length=1000)]
HeaderValues = Annotated[dict[str, str], Field(max_length=MOST_HEADERS), AfterValidator(_headers)]


class CreateWebhook(Body):
    """Null means all: every event type, every project of the key."""

    url: Url
    description: Description = ""
    event_types: EventTypes | None = None
    projects: Projects | None = None
    payload: Literal["thin", "full"] = "thin"
    headers: HeaderValues = Field(default_factory=dict)

    def endpoint(self) -> Endpoint:
        return Endpoint(
            id=identifiers.new_id(),
            key_id=identifiers.new_id(),  # the caller's, once it is stored
            url=self.url,
            payload=Payload(self.payload),
            created_at=datetime.now(UTC),
            description=self.description,
            event_types=_set(self.event_types),
            projects=_set(self.projects),
        )


class UpdateWebhook(Body):
    """What is left out stays; null means what it means when a webhook is created.

    `headers` replaces all of them. Enabling one that was disabled sends what waits for it.
    """

    url: Url = Field(default_factory=str)
    description: Description = Field(default_factory=str)
    event_types: EventTypes | None = None
    projects: Projects | None = None
    payload: Literal["thin", "full"] = Field(default_factory=lambda: "thin")
    headers: HeaderValues = Field(default_factory=dict)
    enabled: bool = Field(default_factory=bool)

    def changes(self) -> dict[str, Any]:
        """The fields that were given, as an Endpoint has them; headers apart."""
        given = {name: getattr(self, name) for name in self.model_fields_set - {"headers"}}
        for name in ("event_types", "projects"):
            if name in given:
                given[name] = _set(given[name])
        return given

    @property
    def new_headers(self) -> dict[str, str] | None:
        return self.headers if "headers" in self.model_fields_set else None


def _set(values: list[str] | None) -> frozenset[str] | None:
    return None if values is None else frozenset(values)


class RotateWebhook(Body):
    """For how many seconds the old secret signs beside the new one."""

    grace_s: Annotated[int, Field(ge=0, le=7 * 86_400), WHOLE] = GRACE_S


class RecoverWebhook(Body):
    """Which events to send again: those of [since, until), until now when that is left out.

    What was delivered is sent again only when `include_delivered` asks for it.
    """

    since: Moment
    until: Moment | None = None
    include_delivered: bool = False

    def range(self) -> Range:
        return Range(self.since, self.until or datetime.now(UTC), self.include_delivered)


class ListWebhooks(Query):
    limit: Page = 50
    cursor: str | None = None


class ListDeliveries(Query):
    state: list[Literal["pending", "failed", "delivered", "dead"]] = Field(default_factory=list)
    event_type: list[DeliveredType] = Field(default_factory=list, max_length=50)
    since: Moment | None = None
    until: Moment | None = None
    limit: Page = 50
    cursor: str | None = None

    @field_validator("event_type")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        return [name if name == PING else _event_type(name) for name in names]

    def wanted(self) -> DeliveryFilter:
        """One more than a page, which tells whether there is another."""
        before = pages.before(identifiers.DELIVERY, self.cursor)
        return DeliveryFilter(
            self.state, self.event_type, self.since, self.until, before, self.limit + 1
        )
