"""What all wire models share, and the few constrained types they are made of."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

MAX_LABELS: Final = 32
# What every clock and calendar between us and PostgreSQL can hold, in whatever zone.
_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
_LABEL: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_./]{0,61}[A-Za-z0-9])?")


class Body(BaseModel):
    """A request body: strict types, unknown fields refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Query(BaseModel):
    """Query parameters: text that is parsed, unknown ones refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def one_line(text: str) -> str:
    if any(unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") for c in text):
        raise ValueError("control, format and line-breaking characters are not allowed")
    return text


def _labels(labels: dict[str, str]) -> dict[str, str]:
    if len(labels) > MAX_LABELS:
        raise ValueError(f"at most {MAX_LABELS} labels")
    for name, value in labels.items():
        if not _LABEL.fullmatch(name):
            raise ValueError(
                f"{name[:80]!r} is no label name (letters, digits, - _ . /, at most 63)"
            )
        if len(value) > 256:
            raise ValueError(f"the value of {name} has more than 256 characters")
        one_line(value)
    return labels


def _within_reach(at: datetime) -> datetime:
    if not _EARLIEST <= at <= _LATEST:
        raise ValueError("lies before 2000 or after 2200")
    return at


Moment = Annotated[AwareDatetime, AfterValidator(_within_reach)]  # in filters
Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(one_line)]
Labels = Annotated[dict[str, str], AfterValidator(_labels)]
Page = Annotated[int, Field(ge=1, le=200)]


class PageQuery(Query):
    """Of a list that has pages and no filters."""

    limit: Page = 50
    cursor: str | None = None


JsonObject = dict[str, Any]
