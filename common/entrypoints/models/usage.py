"""Query of the usage function."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from common.entrypoints.models.base import Moment, Query


class UsageQuery(Query):
    """`by`: the dimensions of the sums, project and day when none is given."""

    by: list[Literal["project", "key", "model", "day"]] = Field(default_factory=list)
    project: list[str] = Field(default_factory=list)
    key: Annotated[str, Field(pattern=r"^key_[0-9a-f]{32}$")] | None = None
    model: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    since: Moment | None = None
    until: Moment | None = None
