"""Query of the usage function."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, Field

from common.entrypoints.models.base import Query

_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)


def _sane(at: datetime) -> datetime:
    if at < _EARLIEST:
        raise ValueError("lies before all commands")
    return at


Moment = Annotated[AwareDatetime, AfterValidator(_sane)]


class UsageQuery(Query):
    """`by`: the dimensions of the sums, project and day when none is given."""

    by: list[Literal["project", "key", "model", "day"]] = Field(default_factory=list)
    project: list[str] = Field(default_factory=list)
    key: Annotated[str, Field(pattern=r"^key_[0-9a-f]{32}$")] | None = None
    model: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    since: Moment | None = None
    until: Moment | None = None
