"""Bodies and queries of the triggers function, and what a stored command template may be."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from common.domain import event_filters, identifiers, templates
from common.domain.errors import FieldError, InvalidField
from common.domain.keys import RateLimit
from common.domain.triggers import COMMAND_REQUESTED, Trigger
from common.entrypoints import strict_json
from common.entrypoints.models.base import Body, JsonObject, Name, Page, Query
from common.entrypoints.models.commands import ProjectName, new_command
from common.entrypoints.models.keys import RateLimitBody

_REQUESTS: Final[dict[str, Any]] = {"exact": {"type": COMMAND_REQUESTED}}
_INVALID: Final = "trigger_invalid"


def _unique(names: list[str]) -> list[str]:
    return sorted(set(names))


KindName = Literal["claude", "shell", "git"]
ChannelName = Literal["http", "github", "broker"]
Channels = Annotated[list[ChannelName], Field(min_length=1, max_length=3), AfterValidator(_unique)]


class FromData(Body):
    """The command is the event's data: a body of `POST /v1/commands` that asks for one of these."""

    source: Literal["data"] = Field(alias="from")
    projects: Annotated[
        list[ProjectName], Field(min_length=1, max_length=100), AfterValidator(_unique)
    ]
    kinds: Annotated[list[KindName], Field(min_length=1, max_length=3), AfterValidator(_unique)]


_FROM_DATA: Final[TypeAdapter[FromData]] = TypeAdapter(FromData)


class CreateTrigger(Body):
    """`command` is a body of `POST /v1/commands` with places for values, such as {{ data.ref }}."""

    name: Name
    filter: JsonObject | None = None
    command: JsonObject
    accept: Channels = ["http", "github"]  # noqa: RUF012  # pydantic copies it
    enabled: bool = True
    rate_limit: RateLimitBody = RateLimitBody(limit=60, window_s=3600)

    def trigger(self) -> tuple[Trigger, dict[str, Any]]:
        """The trigger, and the secret parts of its command. Raises InvalidField."""
        command, secrets = _command(self.command)
        if self.filter is None and command.get("from") != "data":
            _refuse([FieldError("filter", "missing", "filter: is needed")])
        now = datetime.now(UTC)
        trigger = Trigger(
            id=identifiers.new_id(),
            name=self.name,
            key_id=identifiers.numbered(0),
            filter=_REQUESTS if self.filter is None else _filter(self.filter),
            command=command,
            accept=frozenset(self.accept),
            rate_limit=RateLimit(self.rate_limit.limit, self.rate_limit.window_s),
            created_at=now,
            updated_at=now,
            enabled=self.enabled,
        )
        return trigger, secrets


class UpdateTrigger(Body):
    """What is left out stays.

    Defaults stand for "left out" only: made by factories, they are not in openapi.json.
    """

    name: Name = Field(default_factory=str)
    filter: JsonObject = Field(default_factory=dict)
    command: JsonObject = Field(default_factory=dict)
    accept: Channels = Field(default_factory=list)
    enabled: bool = Field(default_factory=bool)
    rate_limit: RateLimitBody = Field(default_factory=lambda: RateLimitBody(limit=1, window_s=1))

    def changes(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The fields that were given, as JSON, and the secret parts of a command among them."""
        given = self.model_dump(include=self.model_fields_set)
        secrets: dict[str, Any] = {}
        if "filter" in given:
            _filter(given["filter"])
        if "command" in given:
            given["command"], secrets = _command(given["command"])
        return given, secrets


class RotateSecret(Body):
    """For how many seconds deliveries signed with the old secret are still taken."""

    grace_s: Annotated[int, Field(ge=0, le=30 * 86_400)] = 86_400


class TestTrigger(Body):
    """A CloudEvent in its JSON format. What is left out of `specversion` and `id` is made up."""

    __test__ = False  # for pytest, which would take it for a test

    event: JsonObject
    channel: ChannelName = "http"


class ListTriggers(Query):
    limit: Page = 50
    cursor: str | None = None


class ListMatches(Query):
    outcome: Literal["submitted", "refused"] | None = None
    limit: Page = 50
    cursor: str | None = None


def _filter(wanted: dict[str, Any]) -> dict[str, Any]:
    _refuse(event_filters.flaws(wanted))
    return wanted


def _command(wanted: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A command template as it may be shown, and its secret parts. Raises InvalidField."""
    if "from" in wanted:
        try:
            asked = _FROM_DATA.validate_python(wanted)
        except ValidationError as error:
            raise _below_command(strict_json.invalid(error)) from None
        return asked.model_dump(by_alias=True), {}
    if "run_at" in wanted:
        at = "command.run_at"
        _refuse([FieldError(at, _INVALID, f"{at}: it runs whenever an event comes")])
    _refuse(templates.flaws(wanted))
    try:
        made = new_command(templates.sample(wanted))
    except InvalidField as error:
        raise _below_command(error) from None
    public, secrets = wanted | {"env": dict.fromkeys(made.env)}, {"env": wanted.get("env", {})}
    if made.mcp_secrets:
        options = wanted["options"]
        secrets["mcp_servers"] = options["mcp_servers"]
        shown = made.spec["options"]["mcp_servers"]
        public["options"] = options | {"mcp_servers": shown}
    return public, {name: value for name, value in secrets.items() if value}


def _below_command(error: InvalidField) -> InvalidField:
    found = [FieldError(f"command.{e.field}", e.code, f"command.{e.message}") for e in error.errors]
    return InvalidField(found, code=_INVALID)


def _refuse(flaws: list[FieldError]) -> None:
    if flaws:
        raise InvalidField(flaws, code=_INVALID)
