"""Queries of the audit function."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from common.entrypoints.models.base import Moment, Page, Query

Text = Annotated[str, Field(min_length=1, max_length=200)]


class ExportAudit(Query):
    """Filters, each exact; `since` and `until` are moments with a zone."""

    project: list[str] = Field(default_factory=list)
    key: Annotated[str, Field(pattern=r"^key_[0-9a-f]{32}$")] | None = None
    action: Text | None = None
    target: Text | None = None
    since: Moment | None = None
    until: Moment | None = None


class ListAudit(ExportAudit):
    limit: Page = 50
    cursor: str | None = None
