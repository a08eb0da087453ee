"""Queries of the events function."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from common.entrypoints.models.base import Page, Query

Word = Annotated[str, Field(min_length=1, max_length=1024)]


class ListLetters(Query):
    reason: Word | None = None
    type: Word | None = None
    source: Word | None = None
    project: Annotated[list[str], Field(max_length=1000)] = Field(default_factory=list)
    replayed: bool | None = None
    limit: Page = 50
    cursor: str | None = None
